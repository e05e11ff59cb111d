"""Curves of bits per value over KL divergence: interpolation and comparison."""
import math

KLS = ("kl_prose", "kl_answers")


def bits_at(points, target):
    """Bits per value at which a codec reaches KL `target`: points [(bits, KL)], linear in bits over log KL between neighbours.

    Returns (bits, bound).  bound is "" for an interpolated figure, "<=" where even the fewest bits measured are better than the target, so that
    they are an upper bound.  (None, "") where no point is as good as the target.  Where the curve crosses the target several times, the
    crossing of the fewest bits counts.
    """
    points = sorted(points)
    if points[0][1] <= target:
        return points[0][0], "<="
    for (bits_a, kl_a), (bits_b, kl_b) in zip(points, points[1:]):
        if kl_b <= target:
            share = math.log(kl_a / target) / math.log(kl_a / kl_b)
            return bits_a + share * (bits_b - bits_a), ""
    return None, ""


def curve_of(rows, kl, codec, group=None, bits="bits_per_value"):
    return [(row[bits], row[kl]) for row in rows if row["codec"] == codec and row.get("group") == group]


def groups_of(rows):
    return list(dict.fromkeys(row["group"] for row in rows if row["codec"] == "kvstream"))


def comparisons(rows):
    """One per baseline row, KL and group: the bits per value that our codec needs at the baseline's KL, and their share of the baseline's."""
    for row in rows:
        if row["codec"] == "kvstream":
            continue
        for kl in KLS:
            for group in groups_of(rows):
                bits, bound = bits_at(curve_of(rows, kl, "kvstream", group), row[kl])
                yield {"label": row["label"], "kl": kl, "at": row[kl], "group": group, "bits": bits, "bound": bound,
                       "of_payload": bits and bits / row["payload"], "of_payload_and_tables": bits and bits / (row["payload"] + row["tables"]),
                       "of_all": bits and bits / row["bits_per_value"]}
