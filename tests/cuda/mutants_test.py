#!/usr/bin/env python3
"""What tests/cuda/mutants.py says of bugs that are found and that are not, with kernels of this build."""
import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys
import unittest

import mutants
from mutants import MUTANTS, ROOT, Mutant

BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD", ROOT / "build/release"))
PLACE = "  SyncBlock();\n"  # of rope_append.cu, once


def run(table, *arguments):
    """(exit code, what it prints) with a table of bugs."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = mutants.main([*arguments, "--build", str(BUILD)], table)
    return code, out.getvalue()


def rope(new, old=PLACE):
    return Mutant("a bug", "rope_append.cu", old, new, "cuda_rope_append_test")


class CudaMutants(unittest.TestCase):
    def test_every_kernel_file_has_a_bug(self):
        listed = re.findall(r"^ +(\w+\.cu)$", (ROOT / "kernels/cuda/sources.cmake").read_text(), re.M)
        self.assertGreater(len(listed), 10)
        self.assertEqual(set(listed) - {mutant.file for mutant in MUTANTS}, set())
        self.assertEqual(len({mutant.name for mutant in MUTANTS}), len(MUTANTS))

    def test_an_edit_that_matches_nowhere_or_twice_is_refused(self):
        for place in ("no such line\n", "const int "):
            code, output = run([rope("", place)], "--check")
            self.assertEqual(code, 2, output)
            self.assertIn("places instead of 1", output)

    def test_bad_usage_is_refused_before_anything_is_built(self):
        for arguments in (["--only"], ["--only", "x", "--check"], ["--jobs", "0"], ["--only", "no such bug"], ["now"]):
            done = subprocess.run([ROOT / "tools/cuda_mutants", *arguments], capture_output=True, text=True)
            self.assertEqual(done.returncode, 2, done.stderr)

    def test_a_change_that_no_test_can_see_is_not_found(self):
        code, output = run([rope(2 * PLACE)])
        self.assertEqual(code, 1, output)
        self.assertIn("NOT FOUND\ncuda mutants: 0 of 1 turned a test red", output)

    def test_a_bug_that_does_not_compile_is_not_found(self):
        code, output = run([rope("  SyncBlok();\n"), rope("")])
        self.assertEqual(code, 1, output)
        self.assertIn("does not compile", output)
        self.assertIn("cuda mutants: 1 of 2 turned a test red", output)

    def test_a_fault_of_a_kernel_and_a_crash_are_found(self):
        divergent = rope("  if (threadIdx.x != 0) SyncBlock();\n")
        astray = rope("s.rows + half * dim + (1 << 16);", "s.rows + half * dim;")
        code, output = run([divergent, astray])
        self.assertEqual(code, 0, output)
        self.assertIn(": fault: ", output)
        self.assertIn(": crashed (SIG", output)


if __name__ == "__main__":
    sys.exit(unittest.main())
