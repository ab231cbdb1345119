#!/usr/bin/env python3
"""The check of the contracts is itself checked: each kind of fault, planted in a small tree, is reported."""
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONTRACT = """\
metadata:
  version: "1.0.0"
  created: "2026-01-01"
  author: somebody
  references: ["a page"]
name: sample
version: "1.0.0"
scope: "a.h"
description: "what must hold"
equations:
  one: {description: "it", formula: "a = b"}
falsification:
  - id: FALSIFY-SAMPLE-001
    description: "it holds"
    test: "try it"
    tests: [good]
    status: discharged
  - id: FALSIFY-SAMPLE-002
    description: "later"
    test: "try it later"
    tests: []
    status: pending
    missing: "a machine"
status_history:
  - {version: "1.0.0", date: "2026-01-01", summary: "first"}
"""
CITATION = "// FALSIFY-SAMPLE-001\n"

# what is planted -> (change of the contract, source of the test, words the report must contain)
PLANTS = {
    "a key that nobody knows": (lambda c: c + "surprise: 1\n", CITATION, "unknown key 'surprise'"),
    "a key that stands twice": (lambda c: c + 'name: "again"\n', CITATION, "duplicate key 'name'"),
    "versions that differ": (lambda c: c.replace('\nversion: "1.0.0"', '\nversion: "1.1.0"'), CITATION, "differ"),
    "a gate without a test": (lambda c: c.replace("[good]", "[]"), CITATION, "no test proves it"),
    "a gate that no test cites": (lambda c: c, "// nothing\n", "no test cites it"),
    "a test that cites an unknown gate": (lambda c: c, CITATION + "// FALSIFY-SAMPLE-009\n", "which no contract has"),
    "an id that is no id": (lambda c: c.replace("SAMPLE-002", "sample two"), CITATION, "is not FALSIFY-NAME-nnn"),
    "a status that is none": (lambda c: c.replace("status: pending", "status: hoped"), CITATION, "status 'hoped'"),
    "pending for no reason": (lambda c: c.replace('    missing: "a machine"\n', ""), CITATION, "does not say what for"),
    "a test that does not exist": (lambda c: c.replace("[good]", "[lost]"), CITATION, "no ctest is called 'lost'"),
    "a discharged gate whose test fails": (lambda c: c.replace("[good]", "[bad]"), CITATION, "but bad failed"),
    "a discharged gate whose test is skipped": (lambda c: c.replace("[good]", "[skips]"), CITATION, "was skipped"),
}

CTEST = """\
add_test(good "true")
add_test(bad "false")
add_test(skips "sh" "-c" "exit 77")
set_tests_properties(skips PROPERTIES SKIP_RETURN_CODE "77")
"""


def run(contract, source):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, content in {"contracts/sample-v1.yaml": contract, "tests/a_test.cc": source,
                              "build/CTestTestfile.cmake": CTEST}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        done = subprocess.run([sys.executable, ROOT / "tools/check_contracts.py", "--root", root, "--build",
                               root / "build", "--run"], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


failures = 0
code, out = run(CONTRACT, CITATION)
if code != 0:
    failures += 1
    print("a sound contract is reported as bad:\n" + out)
for what, (change, source, words) in PLANTS.items():
    code, out = run(change(CONTRACT), source)
    if code != 1 or words not in out:
        failures += 1
        print(f"not caught: {what}\n{out}")
print(json.dumps({"plants": len(PLANTS), "failures": failures}))
sys.exit(1 if failures else 0)
