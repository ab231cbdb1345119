"""millrace loadgen: its figures against a server of known times and another client, its loads, its report."""
import concurrent.futures
import html.parser
import itertools
import json
import pathlib
import queue
import tempfile
import threading
import time
import unittest

import grpc

from harness import Server, main, pb, pb_grpc, request, run_cli

FIRST, GAP, TOKENS = 0.4, 0.1, 8  # seconds to the first token and between two, and how many there are
KINDS = 20  # of calls: the k-th has its first token after FIRST * (1 + k / (2 * KINDS))
CALLS, STREAMS = 60, 20


class KnownTimes(pb_grpc.GenerationServiceServicer):
    """Answers at times that are known, by the order in which calls come."""

    def __init__(self):
        self.calls = itertools.count()

    def GetModelInfo(self, message, context):
        return pb.ModelInfo(name="known", vocab_size=1000, context_length=4096)

    def Generate(self, message, context):
        due = time.monotonic() + FIRST * (1 + next(self.calls) % KINDS / (2 * KINDS))
        for token in range(message.stopping.max_new_tokens):
            time.sleep(max(0, due - time.monotonic()))
            yield pb.GenerateResponse(token_ids=[token])
            due += GAP


def independent_client(target):
    """ttft, itl and e2e of CALLS calls over STREAMS streams, in seconds: nothing here is loadgen's."""
    work, found, lock = queue.SimpleQueue(), {"ttft_seconds": [], "itl_seconds": [], "e2e_seconds": []}, threading.Lock()
    for call in range(CALLS):
        work.put(call)

    def stream():
        with grpc.insecure_channel(target) as channel:
            stub = pb_grpc.GenerationServiceStub(channel)
            while True:
                try:
                    work.get_nowait()
                except queue.Empty:
                    return
                message = request([1, 2, 3], max_new_tokens=TOKENS)
                begin, times = time.monotonic(), []
                for answer in stub.Generate(message):
                    times += [time.monotonic()] * len(answer.token_ids)
                with lock:
                    found["e2e_seconds"].append(time.monotonic() - begin)
                    found["ttft_seconds"].append(times[0] - begin)
                    found["itl_seconds"] += [b - a for a, b in zip(times, times[1:])]

    threads = [threading.Thread(target=stream) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: sorted(values) for name, values in found.items()}


class Pictures(html.parser.HTMLParser):
    """Counts what a page shows and what it would fetch."""

    def __init__(self):
        super().__init__()
        self.lines, self.fetched = 0, []

    def handle_starttag(self, tag, attributes):
        self.lines += tag == "polyline"
        self.fetched += [value for name, value in attributes if name in ("src", "href")]


class Loadgen(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def loadgen(self, target, *flags):
        done = run_cli("loadgen", "--target", target, "--json", self.folder / "out.json", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads((self.folder / "out.json").read_text())

    def known_server(self):
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2 * STREAMS))
        pb_grpc.add_GenerationServiceServicer_to_server(KnownTimes(), server)
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(server.stop, None)
        return target

    def test_its_quantiles_are_the_known_ones_and_those_of_another_client_within_two_percent(self):
        firsts = sorted([FIRST * (1 + k / (2 * KINDS)) for k in range(KINDS)] * (CALLS // KINDS))
        known = {"ttft_seconds": firsts, "itl_seconds": [GAP] * CALLS,
                 "e2e_seconds": [first + GAP * (TOKENS - 1) for first in firsts]}
        ours = self.loadgen(self.known_server(), "--concurrency", STREAMS, "--requests", CALLS, "--prompt-tokens", 3,
                            "--output-tokens", TOKENS)
        theirs = independent_client(self.known_server())
        for name, values in known.items():
            for q in (0.5, 0.9):
                with self.subTest(name, q=q):
                    mine = ours[name][f"p{100 * q:.0f}"]
                    self.assertLess(abs(mine / values[int(q * len(values))] - 1), 0.02)
                    self.assertLess(abs(mine / theirs[name][int(q * len(theirs[name]))] - 1), 0.02)

    def test_calls_come_by_a_poisson_process_of_the_rate_that_was_asked_for(self):
        with Server() as server:
            found = self.loadgen(server.target, "--rate", 200, "--requests", 400, "--prompt-tokens", 2, "--output-tokens", 1,
                                 "--seed", 3)
        # The last of 400 comes at 2 s, give or take three times sqrt(400) / 200 s.
        self.assertLess(abs(found["seconds"] - 2), 0.35)
        self.assertEqual(found["statuses"], {"OK": 400})

    def test_a_recorded_load_comes_again_with_its_prompts_and_times(self):
        record = self.folder / "record"
        with Server("--record", record) as server:
            self.loadgen(server.target, "--rate", 50, "--requests", 50, "--prompt-tokens", "uniform:5:60", "--output-tokens", 4)
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        sent = [line[2]["prompt"] for line in lines if line[0] == "submit"]
        seconds = [line[1] / 1e9 for line in lines if line[0] == "submit"]
        with Server("--record", self.folder / "again") as server:
            found = self.loadgen(server.target, "--trace", record, "--speed", 2)
        again = [json.loads(line) for line in (self.folder / "again").read_text().splitlines()]
        self.assertEqual(sorted(line[2]["prompt"] for line in again if line[0] == "submit"), sorted(sent))
        self.assertGreater(found["seconds"], (max(seconds) - min(seconds)) / 2)
        self.assertEqual(found["generated_tokens"], 4 * 50)

    def test_a_trace_of_times_and_sizes_names_its_tenants(self):
        trace = self.folder / "trace"
        calls = [{"at": 0.01 * i, "prompt_tokens": 3, "output_tokens": 2 + i % 2, "tenant": "ab"[i % 2]} for i in range(10)]
        trace.write_text("".join(json.dumps(call) + "\n" for call in calls))
        with Server("--gateway", "127.0.0.0/8") as server:
            found = self.loadgen(server.target, "--trace", trace)
        tokens = {name: tenant["generated_tokens"] for name, tenant in found["tenants"].items()}
        self.assertEqual(tokens, {"a": 10, "b": 15})

    def test_cancels_deadlines_and_slow_readers_end_as_they_must(self):
        with Server() as server:
            found = self.loadgen(server.target, "--requests", 40, "--cancel-fraction", 0.5, "--slow-fraction", 0.1,
                                 "--output-tokens", 20)
            self.assertEqual(sum(found["statuses"].values()), 40)
            self.assertGreater(found["statuses"]["CANCELLED"], 5)
            late = self.loadgen(server.target, "--requests", 5, "--concurrency", 1, "--deadline", 0.05, "--output-tokens",
                                1500)  # no CPU makes so many in that time
            self.assertEqual(late["statuses"], {"DEADLINE_EXCEEDED": 5})

    def test_the_page_stands_alone_and_shows_five_plots(self):
        page = self.folder / "page.html"
        with Server() as server:
            found = self.loadgen(server.target, "--requests", 20, "--output-tokens", 20, "--html", page)
        pictures = Pictures()
        pictures.feed(page.read_text())
        self.assertEqual((pictures.lines, pictures.fetched), (5, []))
        self.assertIn(f"{found['e2e_seconds']['p99']:.4f}", page.read_text())
        line = found["timeline"]
        step = line["seconds"][1] - line["seconds"][0]
        self.assertAlmostEqual(sum(line["tokens_per_second"]) * step, found["generated_tokens"], places=3)

    def test_bad_traces_are_told_in_one_line(self):
        for text, word in (('{"at": 0, "prompt_tokens": 5}', "output_tokens"), ("[1]", ":1"), ("", "no calls"),
                           ('{"at": -1, "prompt_tokens": 5, "output_tokens": 1}', "at:"),
                           ('{"at": 0, "prompt_tokens": 0, "output_tokens": 1}', "at least 1")):
            (self.folder / "bad").write_text(text)
            with Server() as server:
                done = run_cli("loadgen", "--target", server.target, "--trace", self.folder / "bad")
            self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)
            self.assertIn(word, done.stderr)


if __name__ == "__main__":
    main()
