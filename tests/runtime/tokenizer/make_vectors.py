#!/usr/bin/env python3
"""Makes the vocabulary of our own and the vectors that tokenizer_test reads.

    python3 tests/runtime/tokenizer/make_vectors.py tests/golden/tokenizer

Trains a byte-level BPE of 1,000 tokens on made-up text with Hugging Face `tokenizers`, then encodes
random strings with it: the Qwen pipeline with special tokens parsed and not, and SmolLM's. The same
package writes the same files again.
"""

import json
import pathlib
import random
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        trainers)

import random_text

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"]
USER_DEFINED = ["<think>", "</think>", "<think>!", "<tool_call>"]
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def qwen2():
    return normalizers.NFC(), pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def llama_bpe():
    return None, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    return None, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def smollm():
    return None, pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = qwen2()
    trainer = trainers.BpeTrainer(vocab_size=1000 - len(CONTROL) - len(USER_DEFINED),
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    runs = ["A" * 40, " " * 40 + "x", "\n" * 20, "世" * 20, "\u0301" * 12] * 40
    tokenizer.train_from_iterator([*random_text.strings(7, 4000, []), *runs], trainer)
    return json.loads(tokenizer.to_str())["model"]


def pipeline(model, parts, parse_special=True, whole_words=False):
    tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], ignore_merges=whole_words,
                                     merges=[tuple(merge) for merge in model["merges"]]))
    normalizer, tokenizer.pre_tokenizer = parts
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in USER_DEFINED])
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    model = train()
    pipelines = {"qwen2": pipeline(model, qwen2()),
                 "qwen2_plain": pipeline(model, qwen2(), parse_special=False),
                 "smollm": pipeline(model, smollm()),
                 "llama-bpe": pipeline(model, llama_bpe(), whole_words=True),
                 "gpt-2": pipeline(model, gpt2())}
    normal = sorted(model["vocab"], key=model["vocab"].get)
    vocabulary = {"tokens": normal + CONTROL + USER_DEFINED,
                  "types": [1] * len(normal) + [3] * len(CONTROL) + [4] * len(USER_DEFINED),
                  "merges": [" ".join(merge) for merge in model["merges"]]}
    (out / "vocabulary.json").write_text(json.dumps(vocabulary, indent=0, separators=(",", ":")) + "\n")
    texts = [text[:80] for text in random_text.strings(11, 292, CONTROL + USER_DEFINED)]
    rng = random.Random(13)
    texts += [random_text.long_word(rng) for _ in range(8)]
    with open(out / "vectors.jsonl", "w") as lines:
        for text in texts:
            ids = {name: p.encode(text, add_special_tokens=False).ids for name, p in pipelines.items()}
            lines.write(json.dumps({"text": text, **ids}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
