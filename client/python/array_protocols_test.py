"""Arrays of other libraries than NumPy. usage: array_protocols_test.py KVSTREAMD PACKAGE_FOLDER

NumPy's memory poses as a GPU's: what is made of it is looked at, and a load into it must fail with the one sentence
for a device that is not there (its ordinal is one that no machine has).
"""

import ctypes
import gc
import unittest

import numpy as np

from bindings_test import HEADS, LAYERS, MODEL, SIZE, TOKENS, Daemon, config, equal, kvstream, random_kv

ORDINAL = 999
CPU, CUDA, CUDA_HOST, ROCM, CUDA_MANAGED = 1, 2, 3, 10, 13
INT, UINT, FLOAT, BFLOAT = 0, 1, 2, 4


class CudaArray:
    """__cuda_array_interface__ over NumPy's memory."""

    def __init__(self, array, **fields):
        self.array = array
        self.fields = dict(shape=array.shape, typestr=array.dtype.str, data=(array.ctypes.data, False), version=3,
                           strides=array.strides)
        self.fields.update(fields)

    @property
    def __cuda_array_interface__(self):
        return {key: value for key, value in self.fields.items() if value is not KeyError}


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("ordinal", ctypes.c_int32)]


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", Device), ("axes", ctypes.c_int32), ("type", DataType),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("byte_offset", ctypes.c_uint64)]


class ManagedTensor(ctypes.Structure):
    pass


DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(ManagedTensor))
ManagedTensor._fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", DELETER)]

new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
capsule_name = ctypes.pythonapi.PyCapsule_GetName
capsule_name.restype = ctypes.c_char_p
capsule_name.argtypes = [ctypes.py_object]


class DlpackArray:
    """__dlpack__ over NumPy's memory, said to lie on any device."""

    def __init__(self, array, device=(CUDA, ORDINAL), code=FLOAT, bits=16, lanes=1, name=b"dltensor", compact=False,
                 axes=None, offset=0, tensor_device=None):
        self.array, self.device, self.name = array, device, name
        self.deleted, self.streams, self.capsules, self.keep = 0, [], [], []
        self.made = dict(code=code, bits=bits, lanes=lanes, compact=compact, axes=axes, offset=offset,
                         device=tensor_device or device)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        made, array = self.made, self.array
        axes = array.ndim if made["axes"] is None else made["axes"]
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        strides = (ctypes.c_int64 * array.ndim)(*[stride // array.itemsize for stride in array.strides])
        managed = ManagedTensor()
        managed.tensor = Tensor(array.ctypes.data - made["offset"], Device(*made["device"]), axes,
                                DataType(made["code"], made["bits"], made["lanes"]), shape,
                                None if made["compact"] else strides, made["offset"])

        def delete(pointer):
            assert ctypes.addressof(pointer.contents) == ctypes.addressof(managed)
            self.deleted += 1

        managed.deleter = DELETER(delete)
        self.keep.append((managed, shape, strides))
        self.capsules.append(new_capsule(ctypes.addressof(managed), self.name, None))
        return self.capsules[-1]


class Stream:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def bits(kv):
    """float16 KV as the bits of bfloat16."""
    return [tuple((x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for x in pair) for pair in kv]


def wrap(kv, make):
    return [tuple(make(x) for x in pair) for pair in kv]


def flat(kv):
    return [x for pair in kv for x in pair]


class ArrayProtocolsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.client = kvstream.Client(cls.daemon.address)
        cls.kv = random_kv()
        cls.tokens = np.arange(TOKENS, dtype=np.int32)
        cls.profile = kvstream.build_profile(config(), [cls.kv], chunk_tokens=32)
        cls.bfloat_profile = kvstream.build_profile(config("bfloat16"), [bits(cls.kv)], chunk_tokens=32)
        cls.client.put(cls.profile, cls.tokens, cls.kv, model=MODEL)

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()

    def load(self, out, profile=None, **arguments):
        return self.client.load(profile or self.profile, self.tokens, model=MODEL, policy="fixed", level=2, out=out, **arguments)

    def describe(self, out, profile=None, **arguments):
        return kvstream._kvstream._describe_target(profile or self.profile, out, **arguments)

    def memory(self):
        return [tuple(np.zeros((TOKENS, HEADS, SIZE), np.float16) for _ in range(2)) for _ in range(LAYERS)]

    def assert_no_gpu(self, out, **arguments):
        before = self.client.stats()
        with self.assertRaises(kvstream.KVStreamError) as caught:
            self.load(out, **arguments)
        self.assertIn(caught.exception.code, ("UNAVAILABLE", "FAILED_PRECONDITION"))
        after = self.client.stats()
        for key in ("loads_finished", "loads_failed", "loads_in_flight"):
            self.assertEqual(before[key], after[key], "the server was asked")

    # ---------------------------------------------------------------- host memory

    def test_host_tensors_of_other_libraries(self):
        want, _ = self.load(None)
        for device in ((CPU, 0), (CUDA_HOST, 0)):
            memory = self.memory()
            out = wrap(memory, lambda x: DlpackArray(x, device))
            got, _ = self.load(out)
            self.assertIs(got, out)
            self.assertTrue(equal(memory, want))
            for array in flat(out):
                self.assertEqual((array.deleted, array.streams), (1, [None]))
                self.assertEqual(capsule_name(array.capsules[0]), b"used_dltensor")

    def test_bfloat16_of_the_host(self):
        kv = bits(self.kv)
        make = lambda x: DlpackArray(x, (CPU, 0), code=BFLOAT)
        given = wrap(kv, make)
        self.assertEqual(kvstream.encode(self.bfloat_profile, given), kvstream.encode(self.bfloat_profile, kv))
        self.client.put(self.bfloat_profile, self.tokens, given, model=MODEL)
        self.assertEqual({array.deleted for array in flat(given)}, {2})
        want, _ = self.load(None, self.bfloat_profile)
        memory = [tuple(np.zeros_like(x) for x in pair) for pair in kv]
        self.load(wrap(memory, make), self.bfloat_profile)
        self.assertTrue(equal(memory, want))
        with self.assertRaisesRegex(ValueError, "bfloat16; this profile takes float16"):
            self.load(wrap(memory, make))
        with self.assertRaisesRegex(ValueError, "float16; this profile takes bfloat16"):
            self.load(wrap(memory, lambda x: DlpackArray(x, (CPU, 0))), self.bfloat_profile)

    def test_one_tensor_with_strides_offset_or_neither(self):
        want, _ = self.load(None)
        block = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.float16)
        cache = np.zeros((LAYERS, 2, HEADS, 500, SIZE), np.float16)
        view = cache.transpose(0, 1, 3, 2, 4)[:, :, :TOKENS]
        for array, arguments in ((block, dict(compact=True)), (view, {}), (view, dict(offset=64))):
            array[:] = 0
            self.load(DlpackArray(array, (CPU, 0), **arguments))
            self.assertTrue(equal(array, want))
        self.assertFalse(cache[:, :, :, TOKENS:].any())

    def test_a_failed_call_gives_tensors_back(self):
        out = wrap(self.memory(), lambda x: DlpackArray(x, (CPU, 0)))
        with self.assertRaises(kvstream.KVStreamError):
            self.client.load(self.profile, [1, 2, 3], model=MODEL, out=out)
        with self.assertRaises(ValueError):
            self.load(out[:1])
        gc.collect()
        for array in flat(out):
            self.assertEqual(array.deleted, len(array.streams))

    def test_numpys_own_dlpack(self):
        class Wrapped:
            def __init__(self, array):
                self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

        want, _ = self.load(None)
        memory = self.memory()
        self.load(wrap(memory, Wrapped))
        self.assertTrue(equal(memory, want))

    # ---------------------------------------------------------------- GPU memory

    def test_a_load_into_gpu_memory_says_that_there_is_no_gpu(self):
        memory = self.memory()
        for make in (CudaArray, DlpackArray, lambda x: DlpackArray(x, (CUDA_MANAGED, ORDINAL))):
            self.assert_no_gpu(wrap(memory, make), device=ORDINAL)
        block = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.float16)
        self.assert_no_gpu(DlpackArray(block))
        caches = [CudaArray(np.zeros((2, 9, 32, HEADS, SIZE), np.float16)) for _ in range(LAYERS)]
        self.assert_no_gpu(kvstream.PagedKv(caches=caches, block_table=CudaArray(np.arange(5, dtype=np.int32))),
                           device=ORDINAL)
        with self.assertRaises(kvstream.KVStreamError) as caught:
            self.client.warm_up(self.profile, device=ORDINAL)
        self.assertIn(caught.exception.code, ("UNAVAILABLE", "FAILED_PRECONDITION"))
        self.assertFalse(np.any(flat(memory)) or block.any())
        self.load(memory)  # host memory works as before

    def test_a_put_from_gpu_memory_says_so_as_well(self):
        frozen = [tuple(CudaArray(x, data=(x.ctypes.data, True)) for x in pair) for pair in self.kv]  # reading is enough
        paged = kvstream.PagedKv(caches=[CudaArray(np.zeros((2, 9, 32, HEADS, SIZE), np.float16)) for _ in range(LAYERS)],
                                 block_table=CudaArray(np.arange(5, dtype=np.int32)))
        for kv in (frozen, paged, wrap(self.kv, DlpackArray)):
            with self.assertRaises(kvstream.KVStreamError) as caught:
                self.client.put(self.profile, self.tokens, kv, model="from a GPU@1", device=ORDINAL)
            self.assertIn(caught.exception.code, ("UNAVAILABLE", "FAILED_PRECONDITION"))
        self.assertEqual(self.client.lookup(self.profile, self.tokens, model="from a GPU@1").matched_tokens, 0)

    def test_contiguous_memory_is_described_as_it_lies(self):
        cache = np.zeros((LAYERS, 2, HEADS, 500, SIZE), np.float16)
        view = cache.transpose(0, 1, 3, 2, 4)[:, :, :TOKENS]
        want = [(view[layer, plane].ctypes.data, SIZE, 500 * SIZE) for plane in range(2) for layer in range(LAYERS)]
        for out in (DlpackArray(view), CudaArray(view), [tuple(map(CudaArray, pair)) for pair in view]):
            target = self.describe(out, device=ORDINAL)
            self.assertEqual(target["tensors"], want)
            self.assertEqual((target["tokens"], target["device"], target["stream"]), (TOKENS, ORDINAL, 0))
            self.assertEqual(target["shard"], (0, LAYERS, 0, HEADS))
        compact = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.float16)
        for out in (CudaArray(compact, strides=None), CudaArray(compact, strides=KeyError), DlpackArray(compact, compact=True)):
            self.assertEqual(self.describe(out)["tensors"],
                             [(compact[layer, plane].ctypes.data, HEADS * SIZE, SIZE)
                              for plane in range(2) for layer in range(LAYERS)])

    def test_element_types(self):
        block = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.uint16)
        good = [(self.profile, CudaArray(block)), (self.profile, CudaArray(block, typestr="<f2")),
                (self.bfloat_profile, CudaArray(block)), (self.bfloat_profile, CudaArray(block, typestr="<V2")),
                (self.bfloat_profile, CudaArray(block, typestr="|V2")), (self.profile, DlpackArray(block, code=UINT)),
                (self.profile, DlpackArray(block)), (self.bfloat_profile, DlpackArray(block, code=BFLOAT)),
                (self.bfloat_profile, DlpackArray(block, code=UINT))]
        for profile, out in good:
            self.describe(out, profile)
        bad = [(self.profile, CudaArray(block, typestr="<V2")), (self.bfloat_profile, CudaArray(block, typestr="<f2")),
               (self.profile, CudaArray(block, typestr=">f2")), (self.profile, CudaArray(block, typestr="<i2")),
               (self.profile, CudaArray(block, typestr="<f4")), (self.profile, DlpackArray(block, code=BFLOAT)),
               (self.bfloat_profile, DlpackArray(block)), (self.profile, DlpackArray(block, code=INT)),
               (self.profile, DlpackArray(block, bits=32)), (self.profile, DlpackArray(block, lanes=2)),
               (self.profile, DlpackArray(block, code=77))]
        for profile, out in bad:
            with self.assertRaisesRegex(ValueError, "elements of type"):
                self.describe(out, profile)

    def test_streams(self):
        block = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.float16)
        for stream, want in ((None, 0), (0, 0), (1, 0), (0x7f00, 0x7f00), (Stream(cuda_stream=0x7f10), 0x7f10),
                             (Stream(ptr=0x7f20), 0x7f20)):
            array = DlpackArray(block)
            self.assertEqual(self.describe(array, stream=stream)["stream"], want)
            self.assertEqual(array.streams, [want or 1], "the producer is told where its memory will be used")
        # __cuda_array_interface__ may name a stream, which is taken where none is passed.
        self.assertEqual(self.describe(CudaArray(block, stream=0x7f30))["stream"], 0x7f30)
        self.assertEqual(self.describe(CudaArray(block, stream=1))["stream"], 0)
        self.assertEqual(self.describe(CudaArray(block, stream=0x7f30), stream=5)["stream"], 5)
        pairs = wrap(self.memory(), CudaArray)
        pairs[0][0].fields["stream"], pairs[1][1].fields["stream"] = 7, 8
        with self.assertRaisesRegex(ValueError, "different streams"):
            self.describe(pairs)
        self.assertEqual(self.describe(pairs, stream=9)["stream"], 9)
        for stream, error in ((-1, ValueError), (1 << 64, ValueError), ("default", TypeError), (1.5, TypeError)):
            with self.assertRaises(error):
                self.describe(CudaArray(block), stream=stream)
        with self.assertRaises(kvstream.KVStreamError) as caught:
            self.load(CudaArray(block), stream=2, device=ORDINAL)
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")  # the per-thread default stream
        with self.assertRaisesRegex(ValueError, "must not be 0"):
            self.describe(CudaArray(block, stream=0))

    def test_devices(self):
        block = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.float16)
        self.assertEqual(self.describe(DlpackArray(block, (CUDA, 3)))["device"], 3)
        self.assertEqual(self.describe(CudaArray(block))["device"], 0)
        self.assertEqual(self.describe(CudaArray(block), device=3)["device"], 3)
        with self.assertRaisesRegex(ValueError, "device 3 where device 2"):
            self.describe(DlpackArray(block, (CUDA, 3)), device=2)
        mixed = wrap(self.memory(), DlpackArray)
        mixed[1] = tuple(DlpackArray(x.array, (CUDA, 1)) for x in mixed[1])
        with self.assertRaisesRegex(ValueError, "device 1"):
            self.describe(mixed)
        with self.assertRaisesRegex(ValueError, "type 10"):
            self.load(DlpackArray(block, (ROCM, 0)))
        with self.assertRaisesRegex(ValueError, "name different devices"):
            self.describe(DlpackArray(block, tensor_device=(CPU, 0)))
        for device, error in ((-1, ValueError), ("cuda", TypeError)):
            with self.assertRaises(error):
                self.describe(CudaArray(block), device=device)

    def test_parts_of_a_model(self):
        half = np.zeros((1, 2, TOKENS, 1, SIZE), np.float16)
        target = self.describe(CudaArray(half), first_layer=1, first_head=1)
        self.assertEqual(target["shard"], (1, 1, 1, 1))
        for arguments in (dict(), dict(first_layer=1), dict(first_head=1), dict(first_layer=2, first_head=0),
                          dict(first_layer=0, first_head=2), dict(first_layer=-1, first_head=0)):
            with self.assertRaises(ValueError):
                self.describe(CudaArray(half), **arguments)

    def test_mixed_and_misplaced_memory(self):
        memory = self.memory()
        mixed = wrap(memory, CudaArray)
        mixed[1] = memory[1]
        with self.assertRaisesRegex(TypeError, "host memory where other arrays are in GPU memory"):
            self.load(mixed)
        with self.assertRaisesRegex(TypeError, "in GPU memory; host memory is needed"):
            self.load([memory[0], tuple(map(CudaArray, memory[1]))])
        with self.assertRaisesRegex(ValueError, "for arrays in GPU memory"):
            self.client.put(self.profile, self.tokens, self.kv, model=MODEL, stream=0)
        with self.assertRaisesRegex(TypeError, "in GPU memory"):
            kvstream.encode(self.profile, DlpackArray(np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.float16)))
        for arguments in (dict(stream=0), dict(device=0), dict(first_layer=0), dict(first_head=0)):
            with self.assertRaisesRegex(ValueError, "for arrays in GPU memory"):
                self.load(memory, **arguments)

    def test_interfaces_that_are_broken(self):
        block = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE), np.float16)
        shape = list(block.shape)
        for fields in (dict(shape=KeyError), dict(typestr=KeyError), dict(data=KeyError), dict(shape=shape),
                       dict(shape=(-1,) + block.shape[1:]), dict(shape=("a",)), dict(shape=(1 << 40,) * 5, strides=None),
                       dict(shape=(1 << 70,)), dict(strides=block.strides[1:]), dict(strides=list(block.strides)),
                       dict(strides=(block.strides[0] + 1,) + block.strides[1:]), dict(data=block.ctypes.data),
                       dict(data=(0, False)), dict(data=(block.ctypes.data, True)), dict(data=("0", False)),
                       dict(data=(1 << 80, False)), dict(typestr=2), dict(mask=CudaArray(block)), dict(stream="a"),
                       dict(shape=(LAYERS, 3) + block.shape[2:]), dict(shape=block.shape[:4], strides=block.strides[:4])):
            with self.assertRaises((TypeError, ValueError, OverflowError), msg=str(fields)):
                self.describe(CudaArray(block, **fields))
        for fields in (dict(name=b"dltensor_versioned"), dict(name=b"used_dltensor"), dict(axes=-1), dict(axes=99)):
            with self.assertRaises((TypeError, ValueError), msg=str(fields)):
                self.describe(DlpackArray(block, **fields))

        class Raises(DlpackArray):
            def __dlpack__(self, *, stream=None):
                raise BufferError("requires grad")

        with self.assertRaisesRegex(BufferError, "requires grad"):
            self.load(Raises(block))
        strided = np.zeros((LAYERS, 2, TOKENS, HEADS, SIZE * 2), np.float16)[..., ::2]
        with self.assertRaisesRegex(ValueError, "contiguous along its last axis"):
            self.describe(CudaArray(strided))
        for out in (7, "kv", [], {}, [(CudaArray(block),)]):
            with self.assertRaises((TypeError, ValueError)):
                self.load(out)

    # ---------------------------------------------------------------- paged caches

    def test_paged_caches_of_every_layout(self):
        blocks, size = 9, 32
        element = HEADS * SIZE
        for layout, shape, plane, strides in (
                ("plane_major_nhd", (2, blocks, size, HEADS, SIZE), blocks * size * element, (size * element, element, SIZE)),
                ("plane_major_hnd", (2, blocks, HEADS, size, SIZE), blocks * size * element, (size * element, SIZE, size * SIZE)),
                ("block_major_nhd", (blocks, 2, size, HEADS, SIZE), size * element, (2 * size * element, element, SIZE)),
                ("block_major_hnd", (blocks, 2, HEADS, size, SIZE), size * element, (2 * size * element, SIZE, size * SIZE))):
            caches = [np.zeros(shape, np.float16) for _ in range(LAYERS)]
            table = np.arange(5, dtype=np.int32)
            for make in (CudaArray, DlpackArray):
                wrapped_table = make(table) if make is CudaArray else DlpackArray(table, code=INT, bits=32)
                paged = kvstream.PagedKv(caches=[make(x) for x in caches], block_table=wrapped_table, layout=layout)
                target = self.describe(paged, device=ORDINAL, stream=3)
                self.assertEqual(target["tensors"], [(x.ctypes.data, x.ctypes.data + 2 * plane) for x in caches])
                self.assertEqual((target["blocks"], target["strides"]), ((blocks, size), strides))
                self.assertEqual(target["table"], (table.ctypes.data, 5))
                self.assertEqual((target["device"], target["stream"]), (ORDINAL, 3))
                self.assertEqual(target["shard"], (0, LAYERS, 0, HEADS))

    def test_a_permuted_cache_is_taken_by_its_strides(self):
        # vLLM hands out one shape and keeps heads outside of tokens in memory.
        cache = np.zeros((2, 9, HEADS, 32, SIZE), np.float16)
        view = cache.transpose(0, 1, 3, 2, 4)
        paged = kvstream.PagedKv(caches=[CudaArray(view)] * LAYERS, block_table=CudaArray(np.arange(5, dtype=np.int32)))
        self.assertEqual(self.describe(paged)["strides"], (HEADS * 32 * SIZE, SIZE, 32 * SIZE))

    def test_a_paged_cache_of_latents(self):
        latent = config().replace("llama", "deepseek_v3").replace('"vocab_size"', '"kv_lora_rank": 24, "qk_rope_head_dim": 8, "vocab_size"')
        profile = kvstream.build_profile(latent, [], chunk_tokens=32)
        caches = [np.zeros((9, 32, 32), np.float16) for _ in range(LAYERS)]
        table = CudaArray(np.arange(5, dtype=np.int32))
        target = self.describe(kvstream.PagedKv(caches=list(map(CudaArray, caches)), block_table=table, layout="latent"), profile)
        self.assertEqual(target["tensors"], [(x.ctypes.data, 0) for x in caches])
        self.assertEqual((target["blocks"], target["strides"][:2]), ((9, 32), (32 * 32, 32)))
        with self.assertRaisesRegex(ValueError, "does not fit a model with latents"):
            self.describe(kvstream.PagedKv(caches=list(map(CudaArray, caches)), block_table=table), profile)

    def test_paged_caches_that_do_not_fit(self):
        def make(shape=(2, 9, 32, HEADS, SIZE), dtype=np.float16, **fields):
            return CudaArray(np.zeros(shape, dtype), **fields)

        table = make((5,), np.int32)
        good = [make()] * LAYERS
        for caches, block_table, layout in (
                (good[:1], table, "plane_major_nhd"), ([], table, "plane_major_nhd"), (good, table, "latent"),
                ([make(), make((2, 8, 32, HEADS, SIZE))], table, "plane_major_nhd"), (good, table, "block_major_nhd"),
                ([make((2, 9, 32, HEADS + 1, SIZE))] * 2, table, "plane_major_nhd"),
                ([make((2, 9, 32, HEADS, SIZE + 1))] * 2, table, "plane_major_nhd"),
                ([make((9, 32, SIZE))] * 2, table, "plane_major_nhd"), (good, table, "plane_major_hnd"),
                ([make(dtype=np.int32)] * 2, table, "plane_major_nhd"),
                ([make(data=(4096, True))] * 2, table, "plane_major_nhd"),
                (good, make((5,), np.int64), "plane_major_nhd"), (good, make((5, 1), np.int32), "plane_major_nhd"),
                (good, CudaArray(np.zeros(10, np.int32)[::2]), "plane_major_nhd")):
            with self.assertRaises(ValueError):
                self.describe(kvstream.PagedKv(caches=caches, block_table=block_table, layout=layout))
        for caches, block_table in ((make(), table), (7, table), ([1, 2], table), (good, [0, 1, 2]),
                                    (good, np.arange(5, dtype=np.int32)), ([x.array for x in good], table)):
            with self.assertRaises(TypeError):
                self.describe(kvstream.PagedKv(caches=caches, block_table=block_table))
        with self.assertRaisesRegex(ValueError, "layout 'nhd' is none of 'plane_major_nhd'"):
            kvstream.PagedKv(caches=good, block_table=table, layout="nhd")
        short = kvstream.PagedKv(caches=good, block_table=make((2,), np.int32))
        with self.assertRaises(kvstream.KVStreamError) as caught:
            self.load(short, device=ORDINAL)
        self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")
        with self.assertRaises(TypeError):
            kvstream.encode(self.profile, short)


if __name__ == "__main__":
    unittest.main(argv=["array_protocols_test.py"])
