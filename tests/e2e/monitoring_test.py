"""Dashboards, rules and alerts with real data: Prometheus scrapes real servers under load, Alertmanager is told of a loss."""
import contextlib
import json
import math
import random
import threading
import unittest

import grpc
from harness import CALL_SECONDS, ROOT, Server, main, pb, request
from prometheus import WINDOW, Alertmanager, Prometheus, Receiver, hurry_rules, substitute
import yaml

PANELS = sorted((ROOT / "k8s/grafana").glob("*.json"))
# Of the load's clients; more than --max-num-seqs and --max-queue together, so that some wait and some are refused.
CLIENTS = 8
SERVER = ("--max-num-seqs", 4, "--max-queue", 2, "--kv-cache-bytes", "4M", "--ctx", 640)


class Load:
    """Clients that send all kinds of requests until told to stop: good, bad, cancelled, alike, with several answers."""

    def __init__(self, server, seed, clients=CLIENTS):
        self.server, self.stopped = server, threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(random.Random(seed + i),)) for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def client(self, rng):
        shared = [7 + i % 50 for i in range(100)]  # prompts that begin alike
        while not self.stopped.is_set():
            prompt = (shared if rng.random() < 0.5 else []) + [rng.randrange(10, 4096) for _ in range(rng.randrange(1, 60))]
            if rng.random() < 0.05:
                prompt = []
            tokens = rng.randrange(8, 200)
            call = self.server.stub.Generate(
                request(prompt, stopping=pb.StoppingCriteria(max_new_tokens=tokens, ignore_eos=True)), timeout=CALL_SECONDS)
            stop_at = rng.randrange(8, 800)
            with contextlib.suppress(grpc.RpcError):
                for count, _ in enumerate(call):
                    if count == stop_at or self.stopped.is_set():
                        call.cancel()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def expressions():
    """[(dashboard, panel, expression as it is sent)]"""
    found = []
    for path in PANELS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                found.append((path.stem, panel["title"], substitute(target["expr"])))
    return found


def records():
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/millrace.yml").read_text())
    return [rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule]


class Monitoring(unittest.TestCase):
    def test_every_panel_and_rule_has_data_under_load_and_a_lost_server_is_told_of(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        with Receiver() as receiver, Alertmanager(receiver.url) as alertmanager, Server(*SERVER) as server, \
                Prometheus([server.metrics_address], alertmanager.address) as prometheus:
            with Load(server, seed):
                self.panels_have_data(prometheus, server)
            self.a_lost_server_is_told_of(prometheus, alertmanager, receiver, server)
            with Server(*SERVER) as another:
                prometheus.set_targets([another.metrics_address])
                resolved = receiver.next("MillraceDown", "resolved")
                self.assertEqual(resolved["labels"]["instance"], server.metrics_address)

    def panels_have_data(self, prometheus, server):
        wanted = expressions() + [("rules", name, name) for name in records()]
        self.assertGreater(len(wanted), 100)

        def empty():
            return [entry for entry in wanted if not any(math.isfinite(v) for _, v in prometheus.query(entry[2]))]

        # Some outcomes are rare, and a rate needs two scrapes: asked again while the load goes on.
        missing = []
        def all_there():
            missing[:] = empty()
            wanted[:] = missing
            return not missing
        try:
            prometheus.wait(all_there, "data")
        except RuntimeError:
            self.fail("no data:\n" + "\n".join(map(str, missing)))
        for label in ("job", "instance"):
            values = json.loads(prometheus.get(f"/api/v1/label/{label}/values", **{"match[]": "millrace_build_info"}))["data"]
            self.assertEqual(values, ["millrace"] if label == "job" else [server.metrics_address])

    def a_lost_server_is_told_of(self, prometheus, alertmanager, receiver, server):
        self.assertNotIn("MillraceDown", [labels["alertname"] for labels in prometheus.alerts()])
        server.process.kill()
        server.process.wait()
        alert = receiver.next("MillraceDown", "firing")
        self.assertEqual(alert["labels"], {"alertname": "MillraceDown", "job": "millrace", "severity": "critical",
                                           "instance": server.metrics_address})
        self.assertEqual(alert["annotations"], {"summary": f"{server.metrics_address} does not answer on its metrics port",
                                                "runbook": "docs/operations.md#millracedown"})
        self.assertIn("MillraceDown", [found["labels"]["alertname"] for found in alertmanager.alerts()])

    def test_hurried_rules_differ_in_time_alone(self):
        text = (ROOT / "deploy/prometheus/rules/millrace.yml").read_text()
        hurried = hurry_rules(text)
        changed = [(a, b) for a, b in zip(text.splitlines(), hurried.splitlines()) if a != b]
        self.assertTrue(changed)
        for before, after in changed:
            self.assertTrue(f"[{WINDOW}]" in after or after.strip() == "for: 0s", (before, after))


if __name__ == "__main__":
    main()
