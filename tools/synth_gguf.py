#!/usr/bin/env python3
"""Writes a GGUF file with random weights in the shapes of a real model, for measuring speed and memory.

usage: tools/synth_gguf.py OUT [--preset 30b-a3b|mini|tiny|dense] [--layers N] [--quant q4_k_m|...] [--vocab FILE.gguf]
                           [--vocab-size N] [--seed S]

Figures of speed do not depend on what the weights are. Blocks are random but sane: their scales keep activations finite.
--vocab copies the vocabulary of another GGUF file (its first --vocab-size tokens); without it a byte-level vocabulary of
256 bytes, a few merges, three control tokens and fillers is made. Tensors are written one after another: the 18.6 GB of
30b-a3b need little memory. Needs the packages gguf and numpy.
"""
import argparse
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, TokenType

# Shapes of published models (30b-a3b is Qwen3-30B-A3B) and two small ones of the same kind.
PRESETS = {
    "30b-a3b": dict(layers=48, hidden=2048, heads=32, kv_heads=4, head_dim=128, experts=128, used=8, ffn=768),
    "mini": dict(layers=12, hidden=1024, heads=16, kv_heads=4, head_dim=128, experts=64, used=8, ffn=512),
    "tiny": dict(layers=4, hidden=512, heads=8, kv_heads=2, head_dim=64, experts=16, used=4, ffn=256),
    "dense": dict(layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128, experts=0, used=0, ffn=3072),
}
# type -> (GGUF type, values in a block, bytes of a block, where its half-precision scales lie)
BLOCKS = {
    "q4_0": (Type.Q4_0, 32, 18, [0]), "q4_1": (Type.Q4_1, 32, 20, [0, 2]), "q8_0": (Type.Q8_0, 32, 34, [0]),
    "q4_k": (Type.Q4_K, 256, 144, [0, 2]), "q5_k": (Type.Q5_K, 256, 176, [0, 2]), "q6_k": (Type.Q6_K, 256, 210, [208]),
}
FLOATS = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16}
# Scales that give weights a deviation of about 0.02, as trained ones have: that over the deviation of the integers.
SCALE = {"q4_0": 4.3e-3, "q4_1": 4.3e-3, "q8_0": 2.7e-4, "q4_k": 1.1e-4, "q5_k": 5.6e-5, "q6_k": 1.5e-5}
STD = 0.02
CHUNK_VALUES = 1 << 24  # values made at a time


class Synthesiser:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def block_bytes(self, kind, count):
        """`count` random blocks of a quantised type."""
        _, _, size, scales = BLOCKS[kind]
        blocks = self.rng.integers(0, 256, size=(count, size), dtype=np.uint8)
        for index, offset in enumerate(scales):
            # The second half is the minimum: about half of the range below zero.
            value = SCALE[kind] * (1.0 if index == 0 else {"q4_1": -7.5, "q4_k": 7.5, "q5_k": 15.5}[kind])
            blocks[:, offset:offset + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
        return blocks

    def chunks(self, kind, shape, mean=0.0, std=STD):
        """The bytes of a tensor, some millions of values at a time."""
        values = int(np.prod(shape))
        step = CHUNK_VALUES
        for begin in range(0, values, step):
            count = min(step, values - begin)
            if kind in BLOCKS:
                yield self.block_bytes(kind, count // BLOCKS[kind][1])
                continue
            numbers = self.rng.standard_normal(count, dtype=np.float32) * np.float32(std) + np.float32(mean)
            if kind == "bf16":
                yield (numbers.view(np.uint32) >> 16).astype(np.uint16)
            else:
                yield numbers.astype(np.float16 if kind == "f16" else np.float32)


def size_of(kind, shape):
    values = int(np.prod(shape))
    if kind in BLOCKS:
        return values // BLOCKS[kind][1] * BLOCKS[kind][2]
    return values * (4 if kind == "f32" else 2)


def more_bits(layer, layers):
    """The layers in which Q4_K_M spends six bits on attn_v and ffn_down, as llama.cpp chooses them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def plan(preset, quant, vocab):
    """(name, kind, shape, mean, std) of every tensor, in file order."""
    p = preset
    low, high = ("q4_k", "q6_k") if quant == "q4_k_m" else (quant, quant)
    hidden, q, kv = p["hidden"], p["heads"] * p["head_dim"], p["kv_heads"] * p["head_dim"]
    norm = dict(mean=1.0, std=0.05)
    tensors = [("token_embd.weight", low, (vocab, hidden), {}), ("output_norm.weight", "f32", (hidden,), norm),
               ("output.weight", high, (vocab, hidden), {})]
    for layer in range(p["layers"]):
        up = high if more_bits(layer, p["layers"]) else low
        rows = [("attn_norm", "f32", (hidden,), norm), ("attn_q", low, (q, hidden), {}), ("attn_k", low, (kv, hidden), {}),
                ("attn_v", up, (kv, hidden), {}), ("attn_output", low, (hidden, q), {}),
                ("attn_q_norm", "f32", (p["head_dim"],), norm), ("attn_k_norm", "f32", (p["head_dim"],), norm),
                ("ffn_norm", "f32", (hidden,), norm)]
        if p["experts"]:
            experts, ffn = p["experts"], p["ffn"]
            rows += [("ffn_gate_inp", "f32", (experts, hidden), dict(std=2 * STD)), ("ffn_gate_exps", low, (experts, ffn, hidden), {}),
                     ("ffn_up_exps", low, (experts, ffn, hidden), {}), ("ffn_down_exps", up, (experts, hidden, ffn), {})]
        else:
            rows += [("ffn_gate", low, (p["ffn"], hidden), {}), ("ffn_up", low, (p["ffn"], hidden), {}),
                     ("ffn_down", up, (hidden, p["ffn"]), {})]
        tensors += [(f"blk.{layer}.{name}.weight", kind, shape, extra) for name, kind, shape, extra in rows]
    return tensors


def byte_alphabet():
    """The printable character that stands for each byte in byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    table = {b: chr(b) for b in printable}
    table.update({b: chr(256 + i) for i, b in enumerate(others)})
    return [table[b] for b in range(256)]


def own_vocabulary(size):
    """(tokens, types, merges, end id): bytes, some merges of letters, control tokens, fillers."""
    alphabet = byte_alphabet()
    letters = [alphabet[b] for b in b"etaoinshrdlu"]
    merges = [(a, b) for a in letters for b in letters]
    tokens = alphabet + [a + b for a, b in merges] + ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    types = [TokenType.NORMAL] * (len(tokens) - 3) + [TokenType.CONTROL] * 3
    size = max(size or 512, len(tokens))
    fillers = [f"<unused_{i}>" for i in range(size - len(tokens))]
    return tokens + fillers, types + [TokenType.UNUSED] * len(fillers), [f"{a} {b}" for a, b in merges], len(tokens) - 1


def copied_vocabulary(path, size):
    reader = GGUFReader(path)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    if size:
        tokens, types = tokens[:size], types[:size]
        kept = set(tokens)
        merges = [m for m in merges if m.replace(" ", "") in kept and all(part in kept for part in m.split(" "))]
    return tokens, types, merges, len(tokens) - 1


def write_header(writer, preset, name, vocabulary):
    p = preset
    writer.add_name(name)
    writer.add_block_count(p["layers"])
    writer.add_context_length(40960)
    writer.add_embedding_length(p["hidden"])
    writer.add_feed_forward_length(p["ffn"] if not p["experts"] else 3 * p["hidden"])
    writer.add_head_count(p["heads"])
    writer.add_head_count_kv(p["kv_heads"])
    writer.add_key_length(p["head_dim"])
    writer.add_value_length(p["head_dim"])
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    if p["experts"]:
        writer.add_expert_count(p["experts"])
        writer.add_expert_used_count(p["used"])
        writer.add_expert_feed_forward_length(p["ffn"])
    tokens, types, merges, end = vocabulary
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)


def show_progress(done, total):
    if sys.stderr.isatty():
        filled = int(40 * done / total)
        sys.stderr.write(f"\r[{'#' * filled}{'.' * (40 - filled)}] {100 * done // total} %{chr(10) if done == total else ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--preset", default="mini", choices=PRESETS)
    parser.add_argument("--layers", type=int, help="instead of the preset's")
    parser.add_argument("--quant", default="q4_k_m", choices=["q4_k_m", *BLOCKS, *FLOATS])
    parser.add_argument("--vocab", help="a GGUF file whose vocabulary is copied")
    parser.add_argument("--vocab-size", type=int, default=0, help="the first N tokens, or so many with fillers")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    preset = dict(PRESETS[arguments.preset])
    preset["layers"] = arguments.layers or preset["layers"]
    vocabulary = (copied_vocabulary(arguments.vocab, arguments.vocab_size) if arguments.vocab
                  else own_vocabulary(arguments.vocab_size))

    writer = GGUFWriter(arguments.out, "qwen3moe" if preset["experts"] else "qwen3")
    write_header(writer, preset, f"synthetic-{arguments.preset}", vocabulary)
    tensors = plan(preset, arguments.quant, len(vocabulary[0]))
    for name, kind, shape, _ in tensors:
        type_ = BLOCKS[kind][0] if kind in BLOCKS else FLOATS[kind]
        stored = (*shape[:-1], size_of(kind, shape[-1:])) if kind in BLOCKS else shape
        dtype = np.uint8 if kind in BLOCKS else {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}[kind]
        writer.add_tensor_info(name, stored, np.dtype(dtype), size_of(kind, shape), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()

    synthesiser = Synthesiser(arguments.seed)
    total, done = sum(size_of(kind, shape) for _, kind, shape, _ in tensors), 0
    out = writer.fout[0]
    for name, kind, shape, extra in tensors:
        writer.write_padding(out, out.tell())
        for chunk in synthesiser.chunks(kind, shape, **extra):
            out.write(chunk.tobytes())
            done += chunk.nbytes
            show_progress(done, total)
        writer.write_padding(out, size_of(kind, shape))
    writer.close()


if __name__ == "__main__":
    main()
