"""The parts of the GGUF format that tools/synth_gguf.py needs, with numpy alone: machines that measure may have no
more. Written by the format's description (ggml/docs/gguf.md of llama.cpp); tests/checks/synth_gguf_test.py holds every
byte against the gguf package.
"""

import enum
import struct

import numpy as np

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32  # of every tensor's bytes, unless a file says otherwise


class Type(enum.IntEnum):
    """Of tensors, by ggml's numbers."""
    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ4_NL = 20
    IQ4_XS = 23
    BF16 = 30


# (values, bytes) of a block.
BLOCKS = {
    Type.F32: (1, 4), Type.F16: (1, 2), Type.BF16: (1, 2),
    Type.Q4_0: (32, 18), Type.Q4_1: (32, 20), Type.Q5_0: (32, 22), Type.Q5_1: (32, 24), Type.Q8_0: (32, 34),
    Type.Q2_K: (256, 84), Type.Q3_K: (256, 110), Type.Q4_K: (256, 144), Type.Q5_K: (256, 176), Type.Q6_K: (256, 210),
    Type.IQ4_NL: (32, 18), Type.IQ4_XS: (256, 136),
}


class Value(enum.IntEnum):
    """Of metadata."""
    U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


FIXED = {Value.U8: "B", Value.I8: "b", Value.U16: "H", Value.I16: "h", Value.U32: "I", Value.I32: "i", Value.F32: "f",
         Value.BOOL: "?", Value.U64: "Q", Value.I64: "q", Value.F64: "d"}


def packed(kind, value, item=None):
    """One value; of an array the items are of the kind `item`."""
    if kind in FIXED:
        return struct.pack("<" + FIXED[kind], value)
    if kind == Value.STRING:
        text = value.encode("utf-8")
        return struct.pack("<Q", len(text)) + text
    return struct.pack("<IQ", item, len(value)) + b"".join(packed(item, entry) for entry in value)


class Header:
    """Everything of a file that comes before the bytes of its tensors."""

    def __init__(self, architecture):
        self.architecture = architecture
        self.metadata, self.tensors = [], []
        self.offset = 0  # of the next tensor, from where the header ends
        self.string("general.architecture", architecture)

    def add(self, key, kind, value, item=None):
        """`{arch}` in a key stands for the architecture."""
        key = key.format(arch=self.architecture)
        self.metadata.append(packed(Value.STRING, key) + struct.pack("<I", kind) + packed(kind, value, item))

    def string(self, key, value):
        self.add(key, Value.STRING, value)

    def u32(self, key, value):
        self.add(key, Value.U32, value)

    def f32(self, key, value):
        self.add(key, Value.F32, value)

    def array(self, key, item, values):
        self.add(key, Value.ARRAY, values, item)

    def tensor(self, name, kind, shape, nbytes):
        """`shape` is outermost first; returns where its bytes begin, from where the header ends."""
        begin = self.offset
        self.tensors.append(packed(Value.STRING, name) + struct.pack("<I", len(shape)) +
                            struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", kind, begin))
        self.offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return begin

    def pack(self):
        parts = [MAGIC, struct.pack("<IQQ", VERSION, len(self.tensors), len(self.metadata)), *self.metadata,
                 *self.tensors]
        size = sum(map(len, parts))
        return b"".join(parts) + bytes(-size % ALIGNMENT)


class MetadataReader:
    """The metadata of a file as a dictionary; arrays of numbers become lists."""

    def __init__(self, path):
        self.bytes = np.memmap(path, mode="r")
        self.at = 4
        version, _tensors, count = self.take("<IQQ")
        if bytes(self.bytes[:4]) != MAGIC or version not in (2, VERSION):
            raise ValueError(f"{path}: no GGUF file of version 2 or {VERSION}")
        self.fields = {}
        for _ in range(count):
            key = self.value(Value.STRING)
            self.fields[key] = self.value(self.take("<I")[0])

    def take(self, layout):
        size = struct.calcsize(layout)
        values = struct.unpack(layout, bytes(self.bytes[self.at:self.at + size]))
        self.at += size
        return values

    def value(self, kind):
        if kind in FIXED:
            return self.take("<" + FIXED[kind])[0]
        if kind == Value.STRING:
            size = self.take("<Q")[0]
            self.at += size
            return bytes(self.bytes[self.at - size:self.at]).decode("utf-8")
        item, count = self.take("<IQ")
        return [self.value(item) for _ in range(count)]


def read_metadata(path):
    return MetadataReader(path).fields
