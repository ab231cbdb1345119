#!/usr/bin/env python3
"""Writes dequantize_golden.bin beside this file: random blocks of every type that the runtime reads
and what the Python package `gguf` makes of them.

Per type: uint32 ggml type, uint32 bytes of blocks, uint32 values, the blocks, the values as float32.
Needs numpy and gguf (tests/requirements.txt); run it again only when a type joins.
"""

import pathlib
import struct

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants

# Type, bytes of a block, offsets of the half-precision fields, blocks to write.
QUANTISED = [
    (Type.Q8_0, 34, [0], 96),
    (Type.Q4_0, 18, [0], 96),
    (Type.Q4_1, 20, [0, 2], 96),
    (Type.Q5_0, 22, [0], 96),
    (Type.Q5_1, 24, [0, 2], 96),
    (Type.IQ4_NL, 18, [0], 96),
    (Type.Q2_K, 84, [80, 82], 24),
    (Type.Q3_K, 110, [108], 24),
    (Type.Q4_K, 144, [0, 2], 24),
    (Type.Q5_K, 176, [0, 2], 24),
    (Type.Q6_K, 210, [208], 24),
    (Type.IQ4_XS, 136, [0], 24),
]
# The ends of the range, both zeros, the largest and the smallest subnormal; the rest is random.
EXTREMES = [65504.0, -65504.0, 0.0, -0.0, 6.0976e-5, 5.9605e-8, -5.9605e-8, 6.1035e-5]


def halves(rng, count):
    """Finite halves: the extremes first, then random bits."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] &= 0xBFFF  # no infinities and NaNs
    bits[: len(EXTREMES)] = np.array(EXTREMES, dtype=np.float16).view(np.uint16)[:count]
    return bits


def quantised_blocks(rng, block_bytes, offsets, count):
    blocks = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    blocks[-1], blocks[-2] = 0xFF, 0x00  # all ones and all zeros, but for the halves
    for index, offset in enumerate(offsets):
        values = np.roll(halves(rng, count), index)
        blocks[:, offset : offset + 2] = values.view(np.uint8).reshape(count, 2)
    return blocks.reshape(-1)


def record(kind, data, values):
    header = struct.pack("<III", int(kind), data.size, values.size)
    return header + data.tobytes() + values.astype("<f4").tobytes()


def main():
    rng = np.random.default_rng(20240607)
    out = b""
    for kind, block_bytes, offsets, count in QUANTISED:
        data = quantised_blocks(rng, block_bytes, offsets, count)
        with np.errstate(all="ignore"):
            out += record(kind, data, quants.dequantize(data, kind))
    patterns = np.arange(0, 1 << 16, 37, dtype=np.uint32).astype(np.uint16)
    for kind in (Type.F16, Type.BF16):
        data = patterns.view(np.uint8)
        source = data.view(np.float16) if kind == Type.F16 else data
        with np.errstate(all="ignore"):
            values = quants.dequantize(source, kind)
        out += record(kind, data, values)
    floats = rng.standard_normal(64, dtype=np.float32)
    out += record(Type.F32, floats.view(np.uint8), floats)
    path = pathlib.Path(__file__).with_name("dequantize_golden.bin")
    path.write_bytes(out)
    print(f"{path.name}: {len(out)} bytes")


if __name__ == "__main__":
    main()
