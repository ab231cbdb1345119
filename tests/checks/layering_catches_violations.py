#!/usr/bin/env python3
"""The layering check is itself checked: each kind of violation, planted in a small tree, is reported."""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# what is planted -> (path, content, words the report must contain)
PLANTS = {
    "a kernel that knows the runtime": (
        "kernels/bad.h", '#include "runtime/kv/pool.h"\n', "kernels must not include runtime/kv/pool.h"),
    "a model that knows CPU kernels": (
        "runtime/model/bad.cc", '#include "kernels/cpu/matmul.h"\n', "runtime/model must not include"),
    "a scheduler that knows the runner": (
        "scheduler/bad.cc", '#include "runtime/runner/runner.h"\n', "scheduler must not include"),
    "a scheduler that knows the wire format": (
        "scheduler/bad.cc", '#include "millrace/v1/generation.pb.h"\n', "must not know the wire format"),
    "an include that is not from the root": (
        "scheduler/bad.cc", '#include "engine.h"\n', "not written from the repository's root"),
    "a link that points upwards": (
        "base/CMakeLists.txt", "millrace_library(NAME base SRCS a.cc DEPS millrace::scheduler)\n",
        "must not link millrace::scheduler"),
    "a test that never runs": ("tests/base/lost_test.cc", "\n", "no CMakeLists.txt names this test"),
}
CLEAN = {
    "base/check.h": "", "kernels/dtype.h": "", "kernels/cpu/matmul.h": '#include "kernels/dtype.h"\n',
    "runtime/kv/pool.h": '#include "base/check.h"\n', "runtime/runner/runner.h": '#include "runtime/kv/pool.h"\n',
    "runtime/model/model.h": '#include "kernels/dtype.h"\n', "scheduler/engine.h": '#include "runtime/kv/pool.h"\n',
    "service/server.h": '#include "scheduler/engine.h"\n#include "millrace/v1/generation.pb.h"\n', "cli/main.cc": "",
    "proto/x.txt": "", "tests/base/check_test.cc": '#include "base/check.h"\n',
    "tests/base/CMakeLists.txt": "millrace_test(NAME check_test SRCS check_test.cc)\n",
    "scheduler/CMakeLists.txt": "millrace_library(NAME scheduler SRCS e.cc DEPS millrace::base)\n",
    "base/CMakeLists.txt": "millrace_library(NAME base SRCS a.cc)\n",
}


def run(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        done = subprocess.run([sys.executable, ROOT / "tools/check_layering.py", "--root", folder],
                              capture_output=True, text=True)
        return done.returncode, done.stdout


failures = 0
code, out = run(CLEAN)
if code != 0:
    failures += 1
    print("a clean tree is reported as bad:\n" + out)
for what, (path, content, words) in PLANTS.items():
    code, out = run({**CLEAN, path: content})
    if code != 1 or words not in out:
        failures += 1
        print(f"not caught: {what}\n{out}")
print(f"{len(PLANTS) + 1 - failures} passed, {failures} failed")
sys.exit(1 if failures else 0)
