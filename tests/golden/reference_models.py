"""The tiny models in transformers: the same weights, dequantised, and on request the same int8 activations."""

import types

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from transformers import (LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
                          Qwen3MoeConfig, Qwen3MoeForCausalLM)

import tiny_models

# Values that share a scale of the activations, by the type of the weights (docs/numerics.md).
ACTIVATION_BLOCK = {
    **dict.fromkeys((Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.IQ4_NL), 32),
    **dict.fromkeys((Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_XS), 256),
}

NAMES = {  # of a layer: GGUF -> transformers
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def rope_parameters(m):
    out = {"rope_type": m.scaling or "default", "rope_theta": m.rope_base}
    if m.scaling:
        out["factor"] = tiny_models.SCALING_FACTOR
    if m.scaling in ("yarn", "llama3"):
        out["original_max_position_embeddings"] = tiny_models.ORIGINAL_CONTEXT
    if m.scaling == "llama3":
        out |= tiny_models.LLAMA3
    return out


def make_config(m):
    common = dict(vocab_size=m.vocab, hidden_size=m.hidden, intermediate_size=m.ffn, num_hidden_layers=m.layers,
                  num_attention_heads=m.heads, num_key_value_heads=m.kv_heads, rms_norm_eps=m.eps,
                  max_position_embeddings=256, tie_word_embeddings=m.tied, attn_implementation="eager",
                  rope_parameters=rope_parameters(m))
    if m.arch == "qwen3moe":
        return Qwen3MoeConfig(head_dim=m.head_dim, num_experts=m.experts, num_experts_per_tok=m.used,
                              moe_intermediate_size=m.ffn, norm_topk_prob=True, **common)
    if m.arch == "qwen3":
        return Qwen3Config(head_dim=m.head_dim, **common)
    if m.arch == "llama":
        return LlamaConfig(head_dim=m.head_dim, **common)
    return Qwen2Config(**common)


def unpermute(values, heads):
    """llama files hold the rows of Q and K in pairs of neighbours; transformers in two halves."""
    rows = values.shape[0]
    return values.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def state_dict(m, weights):
    out = {}
    for name, weight in weights.items():
        values = weight.values()
        if m.arch == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            values = unpermute(values, m.heads if "attn_q" in name else m.kv_heads)
        if name == "token_embd.weight":
            out["model.embed_tokens.weight"] = values
        elif name == "output_norm.weight":
            out["model.norm.weight"] = values
        elif name == "output.weight":
            out["lm_head.weight"] = values
        elif "_exps" not in name and name != "rope_freqs.weight":
            _, layer, rest = name.split(".", 2)
            out[f"model.layers.{layer}.{NAMES[rest]}"] = values
    for layer in range(m.layers if m.experts else 0):
        def of(part, layer=layer):
            return weights[f"blk.{layer}.ffn_{part}_exps.weight"].values()
        at = f"model.layers.{layer}.mlp.experts."
        out[at + "gate_up_proj"] = np.concatenate([of("gate"), of("up")], axis=1)
        out[at + "down_proj"] = of("down")
    if m.tied:
        out["lm_head.weight"] = out["model.embed_tokens.weight"]
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in out.items()}


def round_to_int8(x, kind):
    """What a product with weights of `kind` sees of the activations `x` [..., k]."""
    block = ACTIVATION_BLOCK.get(kind)
    if block is None:
        return x
    blocks = x.float().reshape(*x.shape[:-1], -1, block)
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    inverse = torch.where(largest > 0, 127.0 / largest, torch.zeros_like(largest))
    rounded = torch.clamp(torch.round(blocks * inverse), -127, 127)
    return (rounded * (largest / 127.0)).reshape(x.shape)


def hook_linear(module, kind):
    module.register_forward_pre_hook(lambda _, inputs: (round_to_int8(inputs[0], kind),))


def hook_experts(experts, gate_up_kind, down_kind):
    def forward(self, hidden, chosen, weights):
        out = torch.zeros_like(hidden)
        x = round_to_int8(hidden, gate_up_kind)
        for token in range(hidden.shape[0]):
            for rank in range(chosen.shape[1]):
                expert = chosen[token, rank]
                gate, up = (self.gate_up_proj[expert] @ x[token]).chunk(2)
                inner = round_to_int8(torch.nn.functional.silu(gate) * up, down_kind)
                out[token] += weights[token, rank] * (self.down_proj[expert] @ inner)
        return out
    experts.forward = types.MethodType(forward, experts)


def hook_int8(model, m, weights):
    def kind(name):
        return weights[name].kind
    for index, layer in enumerate(model.model.layers):
        at = f"blk.{index}."
        attention = layer.self_attn
        for module, name in ((attention.q_proj, "attn_q"), (attention.k_proj, "attn_k"), (attention.v_proj, "attn_v"),
                             (attention.o_proj, "attn_output")):
            hook_linear(module, kind(f"{at}{name}.weight"))
        if m.experts:
            hook_experts(layer.mlp.experts, kind(at + "ffn_gate_exps.weight"), kind(at + "ffn_down_exps.weight"))
            continue
        for module, name in ((layer.mlp.gate_proj, "ffn_gate"), (layer.mlp.up_proj, "ffn_up"),
                             (layer.mlp.down_proj, "ffn_down")):
            hook_linear(module, kind(f"{at}{name}.weight"))
    hook_linear(model.lm_head, kind("token_embd.weight" if m.tied else "output.weight"))


def load(m, weights, int8=False):
    classes = {"qwen3moe": Qwen3MoeForCausalLM, "qwen3": Qwen3ForCausalLM, "qwen2": Qwen2ForCausalLM,
               "llama": LlamaForCausalLM}
    model = classes[m.arch](make_config(m)).float().eval()
    model.load_state_dict(state_dict(m, weights), strict=True)
    if int8:
        hook_int8(model, m, weights)
    return model


@torch.no_grad()
def logits(model, tokens):
    """[positions, vocab] float32."""
    return model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
