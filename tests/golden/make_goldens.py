#!/usr/bin/env python3
"""Makes tests/golden/models: tiny random models as GGUF files, and what transformers computes with them.

usage: make_goldens.py [--out DIR]        needs torch, transformers, gguf and numpy

index.json names for each model its file, the token sequences, and the file of logits: float32, little-endian,
[variant][sequence][position][vocab]; variant 0 is plain, variant 1 (quantised models) has the int8 activations of
docs/numerics.md. `greedy` continues a prompt of a dense model; its choices are clear by `margin`.
"""
import argparse
import json
import pathlib

import numpy as np

import reference_models
import tiny_models

SEED = 20261124
SEQUENCES = 2
LENGTH = 40
GREEDY_TOKENS = 24
# A choice is clear when the best logit leads by this share of the row's root mean square: ten times
# the bound of golden_logits_test.
CLEAR = 1e-2


def greedy(model, vocab, rng):
    """A prompt, its continuation and the least relative lead of any choice in it."""
    while True:
        prompt = [int(t) for t in rng.integers(0, vocab, size=8)]
        tokens, least = list(prompt), np.inf
        for _ in range(GREEDY_TOKENS):
            row = reference_models.logits(model, tokens)[-1]
            first, second = np.sort(row)[::-1][:2]
            least = min(least, float((first - second) / np.sqrt(np.mean(row**2))))
            tokens.append(int(np.argmax(row)))
        if least > CLEAR:
            return {"prompt": prompt, "tokens": tokens[len(prompt):], "margin": least}


def make(model, out):
    rng = np.random.default_rng([SEED, *model.name.encode()])
    weights = tiny_models.make_weights(model, rng)
    tiny_models.write_gguf(out / f"{model.name}.gguf", model, weights)
    sequences = [[int(t) for t in rng.integers(0, model.vocab, size=LENGTH)] for _ in range(SEQUENCES)]
    variants = [reference_models.load(model, weights)]
    if model.quantised:
        variants.append(reference_models.load(model, weights, int8=True))
    logits = np.stack([[reference_models.logits(v, s) for s in sequences] for v in variants])
    logits.astype("<f4").tofile(out / f"{model.name}.logits")
    entry = {"name": model.name, "vocab": model.vocab, "quantised": model.quantised, "sequences": sequences}
    if not model.quantised and not model.experts:
        entry["greedy"] = greedy(variants[0], model.vocab, rng)
    return entry


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "models")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for index, model in enumerate(tiny_models.MODELS):
        entries.append(make(model, out))
        print(f"{index + 1}/{len(tiny_models.MODELS)} {model.name}", flush=True)
    (out / "index.json").write_text(json.dumps({"models": entries}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
