"""Tiny random models: their shapes, their weights, and the GGUF files that carry them.

A weight is made as the bytes of the file; what transformers gets is the same bytes dequantised by the gguf
package, so both sides compute with equal weights.
"""

import dataclasses
import math
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import synth_gguf  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    arch: str
    usual: Type
    better: Type  # of attn_v, ffn_down and the head
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    tied: bool
    experts: int = 0
    used: int = 0
    rope_base: float = 1e6
    eps: float = 1e-6
    layers: int = 2
    scaling: str = ""  # of RoPE: linear, yarn, or llama3 (a tensor of divisors)
    vocab: int = 260  # all bytes, one merged token, three control tokens

    @property
    def quantised(self):
        return self.usual not in (Type.F32, Type.F16, Type.BF16)

    @property
    def qk_norm(self):
        return self.arch in ("qwen3", "qwen3moe")


# Rows of K-quants are multiples of 256 values, so those models are wider. Where that leaves room, heads are
# not hidden / heads wide, and rows are no multiple of the 16 lanes of a sum (72).
MODELS = [
    Model("qwen3moe-f32", "qwen3moe", Type.F32, Type.F32, 72, 4, 2, 32, 24, tied=False, experts=8, used=3),
    Model("qwen3-f32", "qwen3", Type.F32, Type.F32, 48, 4, 1, 32, 96, tied=True),
    Model("qwen2-f32", "qwen2", Type.F32, Type.F32, 64, 4, 2, 16, 96, tied=True, rope_base=1e4),
    Model("llama-f32", "llama", Type.F32, Type.F32, 48, 6, 3, 16, 80, tied=False, rope_base=1e4, eps=1e-5),
    Model("qwen3-f16", "qwen3", Type.F16, Type.F16, 72, 4, 2, 32, 96, tied=False),
    Model("llama-bf16", "llama", Type.BF16, Type.BF16, 64, 4, 4, 16, 96, tied=True, rope_base=5e5, eps=1e-5),
    Model("qwen3moe-q4_k_m", "qwen3moe", Type.Q4_K, Type.Q6_K, 256, 8, 2, 32, 256, tied=False, experts=4, used=2),
    Model("qwen3-q5_k", "qwen3", Type.Q5_K, Type.Q6_K, 256, 4, 1, 64, 256, tied=True),
    Model("qwen3moe-q8_0", "qwen3moe", Type.Q8_0, Type.Q8_0, 64, 4, 2, 32, 32, tied=True, experts=8, used=3),
    Model("qwen2-q4_0", "qwen2", Type.Q4_0, Type.Q4_0, 96, 4, 2, 24, 160, tied=False, rope_base=1e6),
    Model("qwen3-linear", "qwen3", Type.F32, Type.F32, 48, 4, 1, 32, 96, tied=True, scaling="linear"),
    Model("qwen3moe-yarn", "qwen3moe", Type.F32, Type.F32, 48, 4, 2, 32, 24, tied=True, experts=4, used=2,
          scaling="yarn"),
    Model("llama-llama3", "llama", Type.F32, Type.F32, 48, 6, 3, 16, 80, tied=True, rope_base=1e4, eps=1e-5,
          scaling="llama3"),
    Model("qwen3moe-q2_k", "qwen3moe", Type.Q2_K, Type.Q3_K, 256, 8, 2, 32, 256, tied=True, experts=4, used=2),
    Model("qwen3-iq4_xs", "qwen3", Type.IQ4_XS, Type.IQ4_NL, 256, 4, 1, 64, 256, tied=True),
    Model("llama-q5_0", "llama", Type.Q5_0, Type.Q5_1, 96, 4, 2, 32, 160, tied=False, rope_base=1e4, eps=1e-5),
    Model("llama-q4_1", "llama", Type.Q4_1, Type.Q8_0, 96, 4, 2, 32, 160, tied=False, rope_base=1e4, eps=1e-5),
]


@dataclasses.dataclass
class Weight:
    kind: Type
    data: np.ndarray  # as the file stores it: float32, float16, or bytes [rows..., row bytes]

    def values(self):
        if self.kind == Type.F32:
            return self.data
        return gguf.quants.dequantize(self.data, self.kind).astype(np.float32)


def random_weight(rng, kind, shape, std, mean=0.0):
    """Random blocks of synth_gguf, with a scale of its own for each block."""
    tensor = synth_gguf.Tensor("", kind, shape, mean, std)
    blocks = synth_gguf.random_blocks(rng, tensor, tensor.blocks)
    if kind == Type.F32 or kind == Type.F16:
        return Weight(kind, blocks.reshape(shape))
    if kind != Type.BF16:
        factors = rng.uniform(0.5, 1.5, size=tensor.blocks)
        for offset, value in synth_gguf.scale_fields(kind):
            scales = (value * std * factors).astype(np.float16)
            blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    return Weight(kind, blocks.view(np.uint8).reshape(*shape[:-1], -1))


# Trained for a short context, so that sequences of 40 tokens pass it.
SCALING_FACTOR = 4.0
ORIGINAL_CONTEXT = 16
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}


def llama3_divisors(m):
    """What llama.cpp's conversion writes for Llama 3.1: long waves are stretched, short ones are left alone."""
    inverse = m.rope_base ** -(np.arange(0, m.head_dim, 2) / m.head_dim)
    wave = 2 * np.pi / inverse
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    smooth = np.clip((ORIGINAL_CONTEXT / wave - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / SCALING_FACTOR + smooth)).astype(np.float32)


def make_weights(model, rng):
    """Weights by their GGUF names. Deviations of 1 / sqrt(inputs) keep activations near 1, so that every
    layer matters; the table is smaller, or each token would only predict itself where the head is tied."""
    m, out = model, {}

    def matrix(name, kind, *shape, gain=1.0):
        out[name] = random_weight(rng, kind, shape, gain / math.sqrt(shape[-1]))

    def vector(name, size, mean=1.0, std=0.2):
        out[name] = random_weight(rng, Type.F32, (size,), std, mean)

    out["token_embd.weight"] = random_weight(rng, m.better if m.tied else m.usual, (m.vocab, m.hidden), 0.15)
    for layer in range(m.layers):
        at = f"blk.{layer}."
        vector(at + "attn_norm.weight", m.hidden)
        matrix(at + "attn_q.weight", m.usual, m.heads * m.head_dim, m.hidden)
        matrix(at + "attn_k.weight", m.usual, m.kv_heads * m.head_dim, m.hidden)
        matrix(at + "attn_v.weight", m.better, m.kv_heads * m.head_dim, m.hidden)
        matrix(at + "attn_output.weight", m.usual, m.hidden, m.heads * m.head_dim)
        if m.arch == "qwen2":
            vector(at + "attn_q.bias", m.heads * m.head_dim, 0.0, 0.3)
            vector(at + "attn_k.bias", m.kv_heads * m.head_dim, 0.0, 0.3)
            vector(at + "attn_v.bias", m.kv_heads * m.head_dim, 0.0, 0.3)
        if m.qk_norm:
            vector(at + "attn_q_norm.weight", m.head_dim, 1.3)
            vector(at + "attn_k_norm.weight", m.head_dim, 1.3)
        vector(at + "ffn_norm.weight", m.hidden)
        if m.experts:
            matrix(at + "ffn_gate_inp.weight", Type.F32, m.experts, m.hidden, gain=1.5)
            matrix(at + "ffn_gate_exps.weight", m.usual, m.experts, m.ffn, m.hidden)
            matrix(at + "ffn_up_exps.weight", m.usual, m.experts, m.ffn, m.hidden)
            matrix(at + "ffn_down_exps.weight", m.better, m.experts, m.hidden, m.ffn, gain=2.0)
        else:
            matrix(at + "ffn_gate.weight", m.usual, m.ffn, m.hidden)
            matrix(at + "ffn_up.weight", m.usual, m.ffn, m.hidden)
            matrix(at + "ffn_down.weight", m.better, m.hidden, m.ffn, gain=2.0)
    if m.scaling == "llama3":
        out["rope_freqs.weight"] = Weight(Type.F32, llama3_divisors(m))
    vector("output_norm.weight", m.hidden)
    if not m.tied:
        matrix("output.weight", m.better, m.vocab, m.hidden, gain=3.0)
    return out


def write_metadata(writer, m):
    writer.add_name(m.name)
    writer.add_block_count(m.layers)
    writer.add_context_length(256)
    writer.add_embedding_length(m.hidden)
    writer.add_feed_forward_length(m.ffn)
    writer.add_head_count(m.heads)
    writer.add_head_count_kv(m.kv_heads)
    writer.add_key_length(m.head_dim)
    writer.add_value_length(m.head_dim)
    writer.add_rope_freq_base(m.rope_base)
    writer.add_layer_norm_rms_eps(m.eps)
    if m.scaling in ("linear", "yarn"):
        writer.add_string(f"{m.arch}.rope.scaling.type", m.scaling)
        writer.add_rope_scaling_factor(SCALING_FACTOR)
    if m.scaling == "yarn":
        writer.add_rope_scaling_orig_ctx_len(ORIGINAL_CONTEXT)
    if m.experts:
        writer.add_expert_count(m.experts)
        writer.add_expert_used_count(m.used)
        writer.add_expert_feed_forward_length(m.ffn)
    tokens, types, merges = synth_gguf.own_vocabulary(m.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)


def write_gguf(path, model, weights, split_max_tensors=0):
    """One file at `path`, or several of so many tensors each: NAME-00001-of-0000N.gguf."""
    writer = gguf.GGUFWriter(path, model.arch, split_max_tensors=split_max_tensors)
    write_metadata(writer, model)
    for name, weight in weights.items():
        writer.add_tensor(name, weight.data, raw_dtype=weight.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
