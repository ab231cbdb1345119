#!/usr/bin/env python3
"""Makes tests/golden/demo/reference.json: what transformers does with the demo model in F16.

usage: make_demo_golden.py STORY_MOE_F16_GGUF        needs torch, transformers, gguf and numpy
"""
import argparse
import json
import pathlib

import gguf
import numpy as np

import reference_models
import tiny_models

PROMPTS = ["Tell me a story about a bear named Pip.", "Write a short story about a fox and a kite.", "Hello!"]
GREEDY_TOKENS = 48
TOP = 20

MODEL = tiny_models.Model("demo", "qwen3moe", gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F16, hidden=256,
                          heads=8, kv_heads=2, head_dim=64, ffn=256, tied=False, experts=16, used=4, layers=6, vocab=4096)


def encode(reader, text):
    """The chat of one user, by the vocabulary of the file: greedy longest match is enough for a golden prompt."""
    tokens = [bytes(part).decode() for part in
              (reader.fields["tokenizer.ggml.tokens"].parts[i] for i in reader.fields["tokenizer.ggml.tokens"].data)]
    ids = {token: i for i, token in enumerate(tokens)}

    def plain(piece):
        piece, out = piece.replace(" ", "\u0120").replace("\n", "\u010a"), []
        while piece:
            size = next(n for n in range(len(piece), 0, -1) if piece[:n] in ids)
            out.append(ids[piece[:size]])
            piece = piece[size:]
        return out
    return [ids["<|im_start|>"], *plain(f"user\n{text}"), ids["<|im_end|>"], *plain("\n"), ids["<|im_start|>"],
            *plain("assistant\n")]


def continuation(model, prompt):
    tokens, tops = list(prompt), []
    for _ in range(GREEDY_TOKENS):
        row = reference_models.logits(model, tokens)[-1]
        best = np.argsort(-row)[:TOP]
        tops.append([[int(t), float(row[t])] for t in best])
        tokens.append(int(best[0]))
    return {"prompt": prompt, "tokens": tokens[len(prompt):], "top_of_first": tops[0], "top_of_last": tops[-1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    reader = gguf.GGUFReader(parser.parse_args().model)
    weights = {t.name: tiny_models.Weight(t.tensor_type, np.array(t.data)) for t in reader.tensors}
    model = reference_models.load(MODEL, weights)
    out = {"prompts": [continuation(model, encode(reader, text)) for text in PROMPTS]}
    path = pathlib.Path(__file__).parent / "demo" / "reference.json"
    path.write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
