#!/usr/bin/env python3
"""Checks who may know whom: the table of docs/architecture.md, against includes and against the link graph.

usage: tools/check_layering.py [--root DIR]

Prints one line for each violation and exits with 1 if there is any:
  - an #include of a folder that the including folder may not know,
  - a link (DEPS of millrace_library) that the table does not allow,
  - a *_test.cc that no CMakeLists.txt names (it would never run).
"""
import argparse
import pathlib
import re
import sys

# folder -> what it may include of ours, beside itself. A name ending in ".h" is that one header; "folder/*.h"
# is the headers right in the folder. The longest matching prefix decides which folder a file belongs to.
KERNEL_HEADERS = ["kernels/*.h"]
MAY_INCLUDE = {
    "base": [],
    "kernels": [],
    "kernels/reference": ["kernels/*.h"],
    "kernels/cpu": ["kernels/*.h"],
    "kernels/cuda": ["kernels/*.h"],
    "runtime/kv": ["base"],
    "runtime/gguf": ["base", "kernels/dtype.h"],
    "runtime/tokenizer": ["base"],
    "runtime/sampling": ["base", "kernels/sampling.h"],
    "runtime/step": ["base", "runtime/sampling"],
    # The factory knows the CPU's backend; CUDA's is a module (runtime/backend/cuda_module.h).
    "runtime/backend": ["base", *KERNEL_HEADERS, "kernels/cpu", "kernels/cuda", "runtime/backend/cpu"],
    "runtime/backend/cpu": ["base", "runtime/backend", *KERNEL_HEADERS, "kernels/cpu"],
    "runtime/backend/cuda": ["base", "runtime/backend", *KERNEL_HEADERS, "kernels/cuda"],
    "runtime/model": ["base", "runtime/gguf", "runtime/backend", *KERNEL_HEADERS],
    "runtime/runner": ["base", "runtime", *KERNEL_HEADERS],
    # The sampled tokens of a step are kernels' values; they reach the scheduler through runtime/step.
    "scheduler": ["base", "runtime/step", "runtime/kv", "runtime/sampling", "kernels/sampling.h"],
    "service": ["base", "proto", "scheduler", "runtime/tokenizer", "runtime/sampling", "kernels/sampling.h"],
    "cli": [""],
    "tests": [""],
}
LINK_FOLDERS = ["base", "kernels", "runtime", "scheduler", "proto", "service", "cli"]
SOURCE_SUFFIXES = {".h", ".cc", ".cu", ".cuh"}


def owner(path):
    """The folder of MAY_INCLUDE that a repository path belongs to, or None."""
    parts = path.split("/")
    for n in range(len(parts) - 1, 0, -1):
        folder = "/".join(parts[:n])
        if folder in MAY_INCLUDE:
            return folder
    return None


def allowed(folder, included):
    if owner(included) == folder:
        return True
    for rule in MAY_INCLUDE[folder]:
        if rule.endswith("/*.h"):
            if "/".join(included.split("/")[:-1]) == rule[:-4]:
                return True
        elif rule.endswith(".h"):
            if included == rule:
                return True
        elif rule == "" or included.startswith(rule + "/"):
            return True
    return False


def check_includes(root):
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        if path.suffix not in SOURCE_SUFFIXES or relative.startswith(("build/", ".")):
            continue
        folder = owner(relative)
        if folder is None:
            yield f"{relative}: in no folder of the architecture"
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not match:
                continue
            included = match.group(1)
            generated = included.endswith(".pb.h")
            if generated:
                if folder not in ("service", "cli", "tests"):
                    yield f"{relative}:{number}: {folder} must not know the wire format ({included})"
            elif not (root / included).is_file():
                # A library's header in quotes (absl/...), unless the name is one of ours.
                if "/" not in included or (root / included.split("/")[0]).is_dir():
                    yield f"{relative}:{number}: '{included}' is not written from the repository's root"
            elif not allowed(folder, included):
                yield f"{relative}:{number}: {folder} must not include {included}"


def cmake_calls(text, function):
    """The argument lists of every call of `function`, without comments."""
    text = re.sub(r"#[^\n]*", "", text)
    for match in re.finditer(rf"\b{function}\s*\(([^()]*)\)", text):
        yield match.group(1).split()


def keyword(arguments, name):
    keywords = {"NAME", "SRCS", "DEPS", "FLAGS", "LABELS", "ARGS", "TIMEOUT", "PROTOS", "ROOT"}
    values, current = [], None
    for argument in arguments:
        if argument in keywords:
            current = argument
        elif current == name:
            values.append(argument.strip('"'))
    return values


def check_links(root):
    folder_of, links = {}, []
    for top in LINK_FOLDERS:
        for path in sorted((root / top).rglob("CMakeLists.txt")):
            folder = owner((path.parent.relative_to(root) / "x").as_posix()) or path.parent.name
            for arguments in cmake_calls(path.read_text(encoding="utf-8"), "millrace_library"):
                for name in keyword(arguments, "NAME"):
                    folder_of["millrace::" + name] = folder
                    links += [(path, folder, name, d) for d in keyword(arguments, "DEPS")]
    for path, folder, name, dependency in links:
        target = folder_of.get(dependency)
        if target is None or target == folder or folder not in MAY_INCLUDE:
            continue
        rules = MAY_INCLUDE[folder]
        if not any(r == "" or target == r.split("/*")[0] or target.startswith(r + "/") or r.startswith(target + "/")
                   for r in rules):
            yield f"{path.relative_to(root)}: millrace_{name} ({folder}) must not link {dependency} ({target})"


def check_tests_listed(root):
    for path in sorted((root / "tests").rglob("*_test.cc")):
        directory = path.parent
        lists = ""
        while directory != root:
            cmake = directory / "CMakeLists.txt"
            lists += cmake.read_text(encoding="utf-8") if cmake.is_file() else ""
            directory = directory.parent
        if path.name not in lists:
            yield f"{path.relative_to(root)}: no CMakeLists.txt names this test, so it never runs"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parent.parent, type=pathlib.Path)
    root = parser.parse_args().root.resolve()
    violations = [*check_includes(root), *check_links(root), *check_tests_listed(root)]
    for violation in violations:
        print(violation)
    print(f"layering: {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
