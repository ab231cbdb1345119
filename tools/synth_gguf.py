#!/usr/bin/env python3
"""Writes a GGUF file of a real architecture's shapes whose weights are random.

    python3 tools/synth_gguf.py OUT.gguf --preset mini --quant q4_k_m

For measuring speed and memory: neither depends on what the weights are, only on shapes and types. Every
block is a valid one (scales are finite and small), so logits stay finite. Tensors are made and written a
slice at a time, by as many threads as there are cores: a file of 18 GB needs some hundred MB of memory.
The same arguments write the same bytes. Needs numpy, nothing else.
"""

import argparse
import concurrent.futures
import math
import os
import sys
import time

import numpy as np

import gguf_format
from gguf_format import Type, Value

PRESETS = {
    "30b-a3b": dict(layers=48, hidden=2048, heads=32, kv_heads=4, head_dim=128,
                    experts=128, used=8, expert_ff=768, dense_ff=6144),
    "mini": dict(layers=12, hidden=1024, heads=16, kv_heads=4, head_dim=128,
                 experts=64, used=8, expert_ff=512, dense_ff=3072),
    "tiny": dict(layers=4, hidden=512, heads=8, kv_heads=2, head_dim=64,
                 experts=16, used=4, expert_ff=256, dense_ff=1024),
    "dense": dict(layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128,
                  experts=0, used=0, expert_ff=0, dense_ff=3072),
}

# What a --quant writes: the usual type, and the type of the tensors that matter most.
QUANTS = {
    "q4_k_m": (Type.Q4_K, Type.Q6_K),
    "q2_k": (Type.Q2_K, Type.Q3_K),
    "q3_k_m": (Type.Q3_K, Type.Q5_K),
    "iq4_xs": (Type.IQ4_XS, Type.Q5_K),
    "iq4_nl": (Type.IQ4_NL, Type.IQ4_NL),
    "q5_0": (Type.Q5_0, Type.Q5_1),
    "q5_k": (Type.Q5_K, Type.Q5_K),
    "q8_0": (Type.Q8_0, Type.Q8_0),
    "q4_0": (Type.Q4_0, Type.Q4_0),
    "q4_1": (Type.Q4_1, Type.Q4_1),
    "f16": (Type.F16, Type.F16),
    "bf16": (Type.BF16, Type.BF16),
    "f32": (Type.F32, Type.F32),
}

SLICE_BYTES = 32 << 20
STD = 0.02  # of the weights, as models are initialised
NORMAL, CONTROL = 1, 3


class Tensor:
    def __init__(self, name, kind, shape, mean=0.0, std=STD):
        self.name, self.kind, self.shape, self.mean, self.std = name, kind, shape, mean, std
        block_values, block_bytes = gguf_format.BLOCKS[kind]
        if shape[-1] % block_values:
            sys.exit(f"synth_gguf: {name}: rows of {shape[-1]} values are no multiple of {block_values}, "
                     f"the block of {kind.name}")
        self.blocks = math.prod(shape) // block_values
        self.block_bytes = block_bytes
        self.nbytes = self.blocks * block_bytes


def half(value):
    return np.frombuffer(np.float16(value).tobytes(), np.uint8)


# Fields of half precision in a block: (byte offset, value for a standard deviation of 1). The other
# bytes are random: sub-scales and quants of any bits are valid. The values come from the moments of
# uniform quants: 6-bit sub-scales have a mean square of about 36.6^2, 4-bit quants a deviation of 4.6
# about their mean 7.5, and so on; a minimum equal to the mean quant times the scale centres the weights.
def scale_fields(kind):
    if kind == Type.Q8_0:
        return [(0, 1 / 73.9)]
    if kind == Type.Q4_0:
        return [(0, 1 / 4.64)]
    if kind == Type.Q4_1:
        return [(0, 1 / 4.61), (2, -7.5 / 4.61)]
    if kind == Type.Q5_0:
        return [(0, 1 / 9.25)]
    if kind == Type.Q5_1:
        return [(0, 1 / 9.23), (2, -15.5 / 9.23)]
    if kind == Type.IQ4_NL:
        return [(0, 1 / 70.4)]
    if kind == Type.IQ4_XS:
        return [(0, 1 / 1300.0)]
    if kind == Type.Q2_K:
        return [(80, 1 / 13.9), (82, 1.5 / 13.9)]
    if kind == Type.Q3_K:
        return [(108, 1 / 43.3)]
    if kind == Type.Q4_K:
        return [(0, 1 / 265.0), (2, 7.5 / 265.0)]
    if kind == Type.Q5_K:
        return [(0, 1 / 540.0), (2, 15.5 / 540.0)]
    if kind == Type.Q6_K:
        return [(208, 1 / 1366.0)]
    raise ValueError(kind)


def random_blocks(rng, tensor, count):
    if tensor.kind in (Type.F32, Type.F16, Type.BF16):
        values = rng.standard_normal(count, dtype=np.float32) * np.float32(tensor.std)
        values += np.float32(tensor.mean)
        if tensor.kind == Type.F32:
            return values
        if tensor.kind == Type.F16:
            return values.astype(np.float16)
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    out = rng.integers(0, 256, size=(count, tensor.block_bytes), dtype=np.uint8)
    for offset, value in scale_fields(tensor.kind):
        out[:, offset:offset + 2] = half(value * tensor.std)
    return out


def keeps_more_bits(layer, layers):
    """The layers whose attn_v and ffn_down get the better type in llama.cpp's Q4_K_M: the first and the
    last eighth, and every third between them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def tensor_plan(shape, layers, vocab_size, quant):
    usual, better = QUANTS[quant]
    hidden, head_dim = shape["hidden"], shape["head_dim"]
    q_rows, kv_rows = shape["heads"] * head_dim, shape["kv_heads"] * head_dim

    def norm(name, size):
        return Tensor(name, Type.F32, (size,), mean=1.0, std=0.05)

    yield Tensor("token_embd.weight", usual, (vocab_size, hidden))
    yield norm("output_norm.weight", hidden)
    yield Tensor("output.weight", better, (vocab_size, hidden))
    for layer in range(layers):
        at = f"blk.{layer}."
        important = better if keeps_more_bits(layer, layers) else usual
        yield norm(at + "attn_norm.weight", hidden)
        yield Tensor(at + "attn_q.weight", usual, (q_rows, hidden))
        yield Tensor(at + "attn_k.weight", usual, (kv_rows, hidden))
        yield Tensor(at + "attn_v.weight", important, (kv_rows, hidden))
        yield Tensor(at + "attn_output.weight", usual, (hidden, q_rows))
        yield norm(at + "attn_q_norm.weight", head_dim)
        yield norm(at + "attn_k_norm.weight", head_dim)
        yield norm(at + "ffn_norm.weight", hidden)
        experts = shape["experts"]
        if experts:
            ff = shape["expert_ff"]
            # Twice the deviation: a router of real models is sharper than one of equal logits.
            yield Tensor(at + "ffn_gate_inp.weight", Type.F32, (experts, hidden), std=2 * STD)
            yield Tensor(at + "ffn_gate_exps.weight", usual, (experts, ff, hidden))
            yield Tensor(at + "ffn_up_exps.weight", usual, (experts, ff, hidden))
            yield Tensor(at + "ffn_down_exps.weight", important, (experts, hidden, ff))
        else:
            ff = shape["dense_ff"]
            yield Tensor(at + "ffn_gate.weight", usual, (ff, hidden))
            yield Tensor(at + "ffn_up.weight", usual, (ff, hidden))
            yield Tensor(at + "ffn_down.weight", important, (hidden, ff))


def byte_alphabet():
    """The printable character that stands for each byte in byte-level BPE, in the order of bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    stand_ins = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(stand_ins)) for b in range(256)]


SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def own_vocabulary(size):
    """256 bytes, merged words of lower-case letters, three control tokens at the end."""
    if size < 256 + len(SPECIAL_TOKENS):
        sys.exit(f"synth_gguf: --vocab-size {size}: at least {256 + len(SPECIAL_TOKENS)} are needed")
    tokens, merges = byte_alphabet(), []
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    space = tokens[ord(" ")]
    # Each word is one letter longer than a word made before it, so each merge joins two known tokens.
    words = [space, *letters]
    room = size - len(tokens) - len(SPECIAL_TOKENS)
    at = 0
    while len(merges) < room:
        for letter in letters[:room - len(merges)]:
            merges.append(f"{words[at]} {letter}")
            words.append(words[at] + letter)
            tokens.append(words[-1])
        at += 1
    types = [NORMAL] * len(tokens) + [CONTROL] * len(SPECIAL_TOKENS)
    return tokens + SPECIAL_TOKENS, types, merges


def read_vocabulary(path, size):
    """The vocabulary of a file; its first `size` tokens, control tokens moved in, if size is given."""
    fields = gguf_format.read_metadata(path)
    tokens, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    types = fields["tokenizer.ggml.token_type"]
    if size and size < len(tokens):
        kept = [t for t in range(size) if tokens[t] not in SPECIAL_TOKENS][:size - len(SPECIAL_TOKENS)]
        tokens = [tokens[t] for t in kept] + SPECIAL_TOKENS
        types = [types[t] for t in kept] + [CONTROL] * len(SPECIAL_TOKENS)
        known = set(tokens)
        merges = [m for m in merges if known.issuperset([*m.split(" "), m.replace(" ", "")])]
    return tokens, types, merges


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


# llama.cpp's number of a file type, where it has one of the name.
FILE_TYPES = {"q4_k_m": 15, "q5_k": 17, "q8_0": 7, "q4_0": 2, "q4_1": 3, "f16": 1, "bf16": 32, "f32": 0}


def make_header(name, shape, layers, quant, vocabulary):
    """The metadata of a model; tensors are still to be added."""
    header = gguf_format.Header("qwen3moe" if shape["experts"] else "qwen3")
    header.string("general.name", name)
    if quant in FILE_TYPES:
        header.u32("general.file_type", FILE_TYPES[quant])
    header.u32("{arch}.block_count", layers)
    header.u32("{arch}.context_length", 40960)
    header.u32("{arch}.embedding_length", shape["hidden"])
    header.u32("{arch}.feed_forward_length", shape["dense_ff"])
    header.u32("{arch}.attention.head_count", shape["heads"])
    header.u32("{arch}.attention.head_count_kv", shape["kv_heads"])
    header.u32("{arch}.attention.key_length", shape["head_dim"])
    header.u32("{arch}.attention.value_length", shape["head_dim"])
    header.f32("{arch}.rope.freq_base", 1e6)
    header.f32("{arch}.attention.layer_norm_rms_epsilon", 1e-6)
    if shape["experts"]:
        header.u32("{arch}.expert_count", shape["experts"])
        header.u32("{arch}.expert_used_count", shape["used"])
        header.u32("{arch}.expert_feed_forward_length", shape["expert_ff"])
    add_vocabulary(header, vocabulary)
    return header


def add_vocabulary(header, vocabulary):
    tokens, types, merges = vocabulary
    header.string("tokenizer.ggml.model", "gpt2")
    header.string("tokenizer.ggml.pre", "qwen2")
    header.array("tokenizer.ggml.tokens", Value.STRING, tokens)
    header.array("tokenizer.ggml.token_type", Value.I32, types)
    header.array("tokenizer.ggml.merges", Value.STRING, merges)
    if "<|im_end|>" in tokens:
        header.u32("tokenizer.ggml.eos_token_id", tokens.index("<|im_end|>"))
    if "<|endoftext|>" in tokens:
        header.u32("tokenizer.ggml.bos_token_id", tokens.index("<|endoftext|>"))
        header.u32("tokenizer.ggml.padding_token_id", tokens.index("<|endoftext|>"))
    header.add("tokenizer.ggml.add_bos_token", Value.BOOL, False)
    header.string("tokenizer.chat_template", CHAT_TEMPLATE)


class Progress:
    """A bar on stderr while that is a terminal; nothing otherwise."""

    def __init__(self, total):
        self.total, self.done, self.shown, self.start = total, 0, 0.0, time.monotonic()
        self.visible = sys.stderr.isatty()

    def add(self, nbytes):
        self.done += nbytes
        now = time.monotonic()
        if not self.visible or (now - self.shown < 0.1 and self.done < self.total):
            return
        self.shown = now
        filled = 40 * self.done // self.total
        rate = self.done / 1e6 / max(now - self.start, 1e-3)
        sys.stderr.write(f"\r\033[K[{'#' * filled}{'.' * (40 - filled)}] {self.done / 1e9:.2f} of "
                         f"{self.total / 1e9:.2f} GB, {rate:.0f} MB/s")
        sys.stderr.write("\n" if self.done == self.total else "")
        sys.stderr.flush()


def slices_of(tensor):
    """(number, first block, blocks) of each piece that is made at once."""
    each = max(1, SLICE_BYTES // tensor.block_bytes // 4)
    for number, begin in enumerate(range(0, tensor.blocks, each)):
        yield number, begin, min(each, tensor.blocks - begin)


def write_slice(file, seed, tensor, at, piece):
    """A slice has random numbers of its own: which thread makes it, and when, does not matter."""
    number, begin, blocks = piece
    data = memoryview(random_blocks(np.random.default_rng([*seed, number]), tensor, blocks)).cast("B")
    at += begin * tensor.block_bytes
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written
    return blocks * tensor.block_bytes


def write_tensors(file, begins, plan, seed, threads):
    """`begins` is where the bytes of each tensor go."""
    progress = Progress(sum(tensor.nbytes for tensor in plan))
    pieces = ((begin, (seed, number), tensor, piece) for number, (begin, tensor) in enumerate(zip(begins, plan))
              for piece in slices_of(tensor))
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = set()
        for begin, own_seed, tensor, piece in pieces:
            waiting.add(pool.submit(write_slice, file, own_seed, tensor, begin, piece))
            if len(waiting) < 2 * threads:
                continue
            done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                progress.add(future.result())
        for future in waiting:
            progress.add(future.result())
    return progress.total


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--preset", default="30b-a3b", choices=PRESETS)
    parser.add_argument("--layers", type=int, help="instead of the preset's")
    parser.add_argument("--quant", default="q4_k_m", choices=QUANTS)
    parser.add_argument("--vocab", help="a GGUF whose vocabulary to use (else a small one is made)")
    parser.add_argument("--vocab-size", type=int, help="tokens to keep or to make")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()

    shape = PRESETS[args.preset]
    layers = args.layers or shape["layers"]
    if args.vocab:
        vocabulary = read_vocabulary(args.vocab, args.vocab_size)
    else:
        vocabulary = own_vocabulary(args.vocab_size or 4096)
    plan = list(tensor_plan(shape, layers, len(vocabulary[0]), args.quant))

    header = make_header(f"synthetic-{args.preset}", shape, layers, args.quant, vocabulary)
    begins = [header.tensor(tensor.name, tensor.kind, tensor.shape, tensor.nbytes) for tensor in plan]
    head = header.pack()
    with open(args.out, "wb") as out:
        out.write(head)
        out.truncate(len(head) + header.offset)
        total = write_tensors(out.fileno(), [len(head) + begin for begin in begins], plan, args.seed, args.threads)
    print(f"{args.out}: {len(plan)} tensors, {total / 1e9:.2f} GB of weights, {len(vocabulary[0])} tokens")


if __name__ == "__main__":
    main()
