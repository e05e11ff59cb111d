"""Bits of one encoded context, split by what they are for."""
import dataclasses


@dataclasses.dataclass
class Bits:
    """All in bits; values counts the KV values that they describe."""
    values: int = 0
    payload: float = 0.0  # the symbols themselves
    tables: float = 0.0   # probability tables and stream lengths, where they travel with the symbols
    scales: float = 0.0   # scales of vectors

    def add(self, other):
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def per_value(self):
        """payload, tables, scales per KV value."""
        return self.payload / self.values, self.tables / self.values, self.scales / self.values


SCALE_BITS = 16  # a scale in half precision; CacheGen's released code keeps 32 bits
