"""The dashboards are what tools/generate_dashboards makes of the metrics, and Grafana's own types know every key of them."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "k8s/grafana"
FAMILIES = (FOLDER / "metric_families.tsv").read_text()
NAMES = ("overview", "scheduler", "moe", "instance", "capacity")


def generate(families, *flags):
    """The finished generator, on these families, in a folder of its own, with the files that it wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        (folder / "metric_families.tsv").write_text(families)
        done = subprocess.run([sys.executable, ROOT / "tools/generate_dashboards", "--out", folder, *flags],
                              capture_output=True, text=True, timeout=60)
        return done, {path.name: path.read_text() for path in folder.glob("*.json")}


class Dashboards(unittest.TestCase):
    def load(self, name):
        return json.loads((FOLDER / f"{name}.json").read_text())

    def test_are_what_the_generator_writes(self):
        done = subprocess.run([sys.executable, ROOT / "tools/generate_dashboards", "--check"], capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({path.stem for path in FOLDER.glob("*.json")}, set(NAMES))

    def test_a_stale_file_is_noticed(self):
        with tempfile.TemporaryDirectory() as scratch:
            for path in FOLDER.iterdir():
                text = path.read_text()
                (pathlib.Path(scratch) / path.name).write_text(text.replace("p95", "p96") if path.stem == "overview" else text)
            done = subprocess.run([sys.executable, ROOT / "tools/generate_dashboards", "--check", "--out", scratch],
                                  capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("overview.json", done.stderr)
        self.assertNotIn("moe.json", done.stderr)

    def test_survive_grafanas_types(self):
        for name in NAMES:
            with self.subTest(name):
                dashboard = self.load(name)
                again = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
                self.assertEqual(again, dashboard)

    def test_every_panel_says_what_it_shows(self):
        for name in NAMES:
            dashboard = self.load(name)
            numbers = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(numbers), len(set(numbers)), name)
            for panel in dashboard["panels"]:
                if panel["type"] != "row":
                    self.assertTrue(panel["targets"], panel["title"])
                    self.assertTrue(panel["description"], panel["title"])
                    self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])

    def test_a_metric_that_is_gone_stops_the_generator(self):
        lines = FAMILIES.splitlines(keepends=True)
        done, files = generate("".join(line for line in lines if not line.startswith("millrace_sheds_total\t")))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("millrace_sheds_total is on no page", done.stderr)
        self.assertEqual(files, {})

    def test_a_label_that_is_gone_or_another_type_stops_it(self):
        done, _ = generate(FAMILIES.replace("\tcause\t", "\treason\t"))
        self.assertIn("has no label cause", done.stderr)
        done, _ = generate(FAMILIES.replace("millrace_kv_blocks\tgauge", "millrace_kv_blocks\tcounter"))
        self.assertIn("millrace_kv_blocks is a counter; want a gauge", done.stderr)

    def test_a_metric_that_no_panel_shows_stops_it(self):
        done, _ = generate(FAMILIES + "millrace_new_total\tcounter\t\tSomething new\n")
        self.assertIn("no panel shows millrace_new_total", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
