"""The alert and recording rules: valid, tested one by one, explained in the handbook, and the tests can fail."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/prometheus"
RULES = FOLDER / "rules/millrace.yml"
CASES = FOLDER / "tests/millrace.yml"


def run(*command):
    """(exit status, all output)."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def rules(kind):
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def families():
    lines = (ROOT / "k8s/grafana/metric_families.tsv").read_text().splitlines()
    return {name: kind for name, kind, _, _ in (line.split("\t") for line in lines)}


def failing_alerts(expression):
    """The alerts whose cases fail when every alert's expression is `expression`."""
    with tempfile.TemporaryDirectory() as scratch:
        changed = yaml.safe_load(RULES.read_text())
        for group in changed["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    rule["expr"] = expression
        for name, text in (("rules", yaml.safe_dump(changed)), ("tests", CASES.read_text())):
            folder = pathlib.Path(scratch) / name
            folder.mkdir()
            (folder / "millrace.yml").write_text(text)
        status, output = run("promtool", "test", "rules", f"{scratch}/tests/millrace.yml")
        return status, set(re.findall(r"alertname:\s*(\w+)", output))


class Rules(unittest.TestCase):
    def test_promtool_and_amtool_accept_every_file(self):
        for command in (["promtool", "check", "rules", RULES], ["promtool", "check", "config", FOLDER / "prometheus.yml"],
                        ["amtool", "check-config", FOLDER / "alertmanager.yml"]):
            status, output = run(*command)
            self.assertEqual(status, 0, output)

    def test_every_case_holds(self):
        status, output = run("promtool", "test", "rules", CASES)
        self.assertEqual(status, 0, output)

    def test_every_alert_has_a_case_that_fires_and_one_that_is_silent(self):
        fires, silent = set(), set()
        for case in yaml.safe_load(CASES.read_text())["tests"]:
            for check in case.get("alert_rule_test", []):
                (fires if check["exp_alerts"] else silent).add(check["alertname"])
        alerts = {rule["alert"] for rule in rules("alert")}
        self.assertEqual(fires, alerts)
        self.assertEqual(silent, alerts)

    def test_the_cases_notice_an_alert_that_never_fires_and_one_that_always_does(self):
        alerts = {rule["alert"] for rule in rules("alert")}
        for expression in ("vector(0) > 1", "vector(1)"):
            status, failing = failing_alerts(expression)
            self.assertNotEqual(status, 0)
            self.assertEqual(failing, alerts, expression)

    def test_every_alert_has_a_line_in_the_handbook(self):
        handbook = (ROOT / "docs/operations.md").read_text()
        anchors = re.findall(r'<a id="(\w+)"></a>`(\w+)` \| (.+) \| (.+) \|', handbook)
        described = {f"docs/operations.md#{anchor}": name for anchor, name, _, _ in anchors}
        for rule in rules("alert"):
            self.assertEqual(described.pop(rule["annotations"]["runbook"], None), rule["alert"])
            self.assertTrue(rule["annotations"]["summary"])
            self.assertIn(rule["labels"]["severity"], {"critical", "warning", "info"})
        self.assertEqual(described, {}, "lines of alerts that are not there")

    def test_rules_read_only_metrics_that_the_server_has(self):
        known = families()
        names = {f"{name}{end}" for name, kind in known.items() if kind == "histogram" for end in ("_bucket", "_sum", "_count")}
        names |= {name for name, kind in known.items() if kind != "histogram"}
        for rule in rules("expr"):
            # What a recording rule is called has a colon before it.
            for name in re.findall(r"(?<![\w:])millrace_\w+", rule["expr"]):
                self.assertIn(name, names, rule)
        recorded = {rule["record"] for rule in rules("record")}
        for rule in rules("alert"):
            for name in re.findall(r"\b(?:job|instance|job_code):[\w:]+", rule["expr"]):
                self.assertIn(name, recorded)


if __name__ == "__main__":
    if shutil.which("promtool") is None or shutil.which("amtool") is None:
        sys.exit("promtool or amtool is missing: tools/setup --tests installs them")
    unittest.main(verbosity=2)
