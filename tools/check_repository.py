#!/usr/bin/env python3
"""Checks what must never be in the repository, over the files that git tracks.

usage: tools/check_repository.py [--root DIR]

  - a file over 20 MB, or more than 40 MB in all,
  - a path of one machine, such as a home or a scratch folder,
  - a note that work was left: the usual markers without an issue number.
"""
import argparse
import pathlib
import re
import subprocess
import sys

MAX_FILE_BYTES = 20_000_000  # the hosting limit we set ourselves
MAX_TOTAL_BYTES = 40_000_000  # the whole tree travels to test machines
# Written in pieces, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me/[a-z]"]) + r")/")
LOOSE_END = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b(?!\(#\d+\))")
BINARY_SUFFIXES = {".gguf", ".png", ".bin", ".npz", ".gz", ".xz", ".f32"}


def tracked(root):
    out = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    return [root / name for name in out.decode().split("\0") if name]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parent.parent, type=pathlib.Path)
    root = parser.parse_args().root.resolve()
    problems, total = [], 0
    for path in tracked(root):
        if not path.is_file():
            continue
        size = path.stat().st_size
        total += size
        name = path.relative_to(root)
        if size > MAX_FILE_BYTES:
            problems.append(f"{name}: {size} bytes, more than {MAX_FILE_BYTES}")
        if path.suffix in BINARY_SUFFIXES:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                problems.append(f"{name}:{number}: a path of one machine: {line.strip()[:80]}")
            if LOOSE_END.search(line) and path.suffix in {".cc", ".h", ".py", ".sh", ".txt", ".cmake"}:
                problems.append(f"{name}:{number}: a loose end: {line.strip()[:80]}")
    if total > MAX_TOTAL_BYTES:
        problems.append(f"the tree is {total} bytes, more than {MAX_TOTAL_BYTES}")
    for problem in problems:
        print(problem)
    print(f"repository: {total / 1e6:.1f} MB in tracked files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
