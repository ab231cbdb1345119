#!/usr/bin/env python3
"""Checks contracts/*.yaml and, with --run, that every status is what the evidence supports.

usage: tools/check_contracts.py [--root DIR] [--build BUILD_DIR] [--run]

Without a build: the files parse strictly (no duplicate or unknown keys), versions agree, gate ids are well
formed and unique, every gate names tests, every FALSIFY id in tests/ belongs to a gate, and every discharged gate
is cited by the source of a test.
With --build: every test named exists in that build, as a ctest or as a case of a GoogleTest binary.
With --run as well: the tests of every `discharged` gate are run; one that fails, is skipped or runs no case
turns the check red. A `pending` gate must say what is missing and is never run.

A gate names its tests as CTEST or as CTEST:Suite.Case (a GoogleTest filter of the binary of that name).
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

import yaml

GATE_ID = re.compile(r"^FALSIFY-[A-Z0-9]+(?:[-_][A-Z0-9]+)*[-_]\d{3}$")
CITATION = re.compile(r"FALSIFY-[A-Z0-9]+(?:[-_][A-Z0-9]+)*[-_]\d{3}\b")
TOP_KEYS = {"metadata", "name", "version", "scope", "description", "equations", "falsification", "scope_extension",
            "implementation_phases", "status_history"}
REQUIRED_TOP = {"metadata", "name", "version", "scope", "description", "equations", "falsification", "status_history"}
METADATA_KEYS = {"version", "created", "updated", "author", "registry", "references", "description", "depends_on"}
GATE_KEYS = {"id", "description", "test", "evidence", "prerequisite_status", "tests", "status", "recorded", "missing"}
REQUIRED_GATE = {"id", "description", "test", "tests", "status"}
HISTORY_KEYS = {"version", "date", "summary"}
STATUSES = {"discharged", "pending"}


class StrictLoader(yaml.SafeLoader):
    """YAML without duplicate keys."""


def strict_mapping(loader, node):
    keys = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in keys:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", key_node.start_mark)
        keys.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, strict_mapping)


def load(path, problems):
    try:
        contract = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except yaml.YAMLError as error:
        problems.append(f"{path.name}: {' '.join(str(error).split())}")
        return None
    if not isinstance(contract, dict):
        problems.append(f"{path.name}: not a mapping")
        return None
    return contract


def check_keys(where, mapping, known, required, problems):
    for key in sorted(set(mapping) - known):
        problems.append(f"{where}: unknown key '{key}'; known are {', '.join(sorted(known))}")
    for key in sorted(required - set(mapping)):
        problems.append(f"{where}: '{key}' is missing")


def check_shape(path, contract, problems):
    where = path.name
    check_keys(where, contract, TOP_KEYS, REQUIRED_TOP, problems)
    metadata = contract.get("metadata", {})
    check_keys(f"{where}: metadata", metadata, METADATA_KEYS, {"version", "created", "author", "references"}, problems)
    if not metadata.get("references"):
        problems.append(f"{where}: metadata.references is empty")
    versions = {str(contract.get("version")), str(metadata.get("version"))}
    history = contract.get("status_history") or [{}]
    for entry in history:
        check_keys(f"{where}: status_history", entry, HISTORY_KEYS, HISTORY_KEYS, problems)
    versions.add(str(history[-1].get("version")))
    if len(versions) != 1:
        problems.append(f"{where}: version, metadata.version and the last of status_history differ: {sorted(versions)}")
    major = str(contract.get("version", "0")).split(".")[0]
    if path.stem != f"{contract.get('name')}-v{major}":
        problems.append(f"{where}: the file's name is not NAME-vMAJOR of '{contract.get('name')}' {contract.get('version')}")
    for name, equation in (contract.get("equations") or {}).items():
        if not (equation or {}).get("formula"):
            problems.append(f"{where}: equation {name} has no formula")


def check_gate(where, gate, problems):
    check_keys(where, gate, GATE_KEYS, REQUIRED_GATE, problems)
    if not GATE_ID.match(str(gate.get("id"))):
        problems.append(f"{where}: the id is not FALSIFY-NAME-nnn")
    if gate.get("status") not in STATUSES:
        problems.append(f"{where}: status '{gate.get('status')}'; want {' or '.join(sorted(STATUSES))}")
    if gate.get("status") == "discharged" and not gate.get("tests"):
        problems.append(f"{where}: discharged, but no test proves it")
    if gate.get("status") == "pending" and not gate.get("missing"):
        problems.append(f"{where}: pending, but `missing` does not say what for")


def citations(root):
    """gate id -> names of the files in tests/ that cite it."""
    cited = {}
    for path in sorted((root / "tests").rglob("*")):
        if path.suffix in {".cc", ".py", ".h"} and "checks" not in path.parts:
            for gate in CITATION.findall(path.read_text(encoding="utf-8")):
                cited.setdefault(gate, set()).add(path)
    return cited


def ctests(build):
    """name -> {command, environment, folder, skip code} of every ctest of a build."""
    out = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True,
                         check=True).stdout
    tests = {}
    for test in json.loads(out)["tests"]:
        properties = {p["name"]: p["value"] for p in test.get("properties", [])}
        tests[test["name"]] = {
            "command": test.get("command"),
            "environment": dict(entry.split("=", 1) for entry in properties.get("ENVIRONMENT", [])),
            "folder": properties.get("WORKING_DIRECTORY", build),
            "skip": properties.get("SKIP_RETURN_CODE"),
        }
    return tests


def gtest_cases(build, binary):
    path = pathlib.Path(build) / binary
    if not path.is_file():
        return None
    out = subprocess.run([path, "--gtest_list_tests"], capture_output=True, text=True, check=True).stdout
    suite, cases = "", set()
    for line in out.splitlines():
        name = line.split("#")[0].rstrip()
        if line.startswith("  "):
            cases.add(suite + name.strip())
        else:
            suite = name.strip()
    return cases


def matches(pattern, cases):
    regex = re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern) + "$")
    return [case for case in cases if regex.match(case)]


def check_exists(where, test, build, names, problems):
    name, _, case = test.partition(":")
    if name not in names:
        problems.append(f"{where}: no ctest is called '{name}'")
    elif case:
        cases = gtest_cases(build, name)
        if cases is None or not matches(case, cases):
            problems.append(f"{where}: {name} has no case '{case}'")


def run_test(tests, test, done_before):
    """None if the test ran and passed, else what went wrong. Each is run once, whoever names it."""
    if test not in done_before:
        done_before[test] = run_once(tests, test)
    return done_before[test]


def run_once(tests, test):
    name, _, case = test.partition(":")
    known = tests.get(name)
    if known is None or not known["command"]:
        return "is not built"
    command = known["command"] + ([f"--gtest_filter={case}"] if case else [])
    done = subprocess.run(command, cwd=known["folder"], env={**os.environ, **known["environment"]}, capture_output=True,
                          text=True)
    if known["skip"] is not None and done.returncode == known["skip"]:
        return "was skipped"
    if done.returncode != 0:
        return "failed"
    if "[  SKIPPED ]" in done.stdout:
        return "was skipped"
    if case:
        passed = re.search(r"\[  PASSED  \] (\d+) test", done.stdout)
        return None if passed and int(passed.group(1)) > 0 else "ran no case"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parent.parent, type=pathlib.Path)
    parser.add_argument("--build", help="a build folder, as build/release")
    parser.add_argument("--run", action="store_true", help="run the tests of every discharged gate")
    arguments = parser.parse_args()
    root, problems, gates = arguments.root.resolve(), [], {}

    for path in sorted((root / "contracts").glob("*.yaml")):
        contract = load(path, problems)
        if contract is None:
            continue
        check_shape(path, contract, problems)
        for gate in contract.get("falsification") or []:
            where = f"{path.name}: {gate.get('id')}"
            check_gate(where, gate, problems)
            if gate.get("id") in gates:
                problems.append(f"{where}: the id stands in {gates[gate['id']][0]} too")
            gates[gate.get("id")] = (path.name, gate)

    cited = citations(root)
    for gate_id, files in sorted(cited.items()):
        if gate_id not in gates:
            problems.append(f"{sorted(files)[0].relative_to(root)}: cites {gate_id}, which no contract has")
    for gate_id, (name, gate) in gates.items():
        if gate.get("status") == "discharged" and gate_id not in cited:
            problems.append(f"{name}: {gate_id}: no test cites it")

    tests, done_before = (ctests(arguments.build) if arguments.build else {}), {}
    for gate_id, (name, gate) in gates.items():
        for test in gate.get("tests") or []:
            where = f"{name}: {gate_id}"
            if arguments.build:
                check_exists(where, test, arguments.build, tests, problems)
            if arguments.build and arguments.run and gate.get("status") == "discharged":
                wrong = run_test(tests, test, done_before)
                if wrong:
                    problems.append(f"{where}: says discharged, but {test} {wrong}")

    for problem in problems:
        print(problem)
    counts = {s: sum(1 for _, g in gates.values() if g.get("status") == s) for s in sorted(STATUSES)}
    print(f"contracts: {len(gates)} gates, " + ", ".join(f"{n} {s}" for s, n in counts.items()) +
          f", {len(problems)} problems")
    return 1 if problems or not gates else 0


if __name__ == "__main__":
    sys.exit(main())
