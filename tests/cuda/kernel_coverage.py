#!/usr/bin/env python3
"""Checks that tests ran every kernel there is, every instance of a template included.

usage: kernel_coverage.py FOLDER BINARY...

Each test binary on the emulated GPU wrote to FOLDER/<its name>.ran, as MILLRACE_KERNELS_RAN told it, where the kernels lie that it ran. Prints the
kernels that none of them ran, and those of kernels/cuda that none of them holds, and exits with 1 if there are any.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def names_in_sources():
    """Names of all kernels, without the arguments of templates."""
    names = set()
    for path in (ROOT / "kernels/cuda").glob("*.cu"):
        text = re.sub(r"__launch_bounds__\([^()]*(\([^()]*\)[^()]*)*\)", "", path.read_text())
        names |= set(re.findall(r"__global__\s+void\s+(\w+)\s*\(", text))
    return names


def kernels_of(binary, names):
    """{distance from the anchor: full name} of the kernels that a binary holds."""
    addresses, anchor = {}, None
    for line in subprocess.run(["nm", "-C", binary], capture_output=True, text=True, check=True).stdout.splitlines():
        match = re.match(r"([0-9a-f]+) (\w) (.*)", line)
        if not match:
            continue
        address, kind, name = int(match[1], 16), match[2], match[3]
        if name == "millrace_kernel_anchor":
            anchor = address
        kernel = re.search(r"millrace::cuda::(?:\(anonymous namespace\)::)(\w+)(?=[<(])", name)
        if kind in "tTwW" and kernel and kernel[1] in names and "clone" not in name and "::operator" not in name:
            addresses[address] = name.removeprefix("void ")
    return {address - anchor: name for address, name in addresses.items()}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    folder, names, known, ran = pathlib.Path(sys.argv[1]), names_in_sources(), set(), set()
    for binary in sys.argv[2:]:
        kernels = kernels_of(binary, names)
        known |= set(kernels.values())
        for line in (folder / (pathlib.Path(binary).name + ".ran")).read_text().split():
            ran.add(kernels.get(int(line), "a kernel of the test itself"))
    absent = [name for name in sorted(names) if not any(re.search(rf"\b{name}\b", kernel) for kernel in known)]
    for name in absent:
        print(f"no test holds {name}")
    for name in sorted(known - ran):
        print(f"no test runs {name}")
    print(f"kernel coverage: {len(known & ran)} of {len(known)} kernels ran in tests")
    return 1 if known - ran or absent or not known else 0


if __name__ == "__main__":
    sys.exit(main())
