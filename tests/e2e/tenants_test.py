"""Tenants, priorities, deadlines and several answers, over real gRPC against the real server process."""
import json
import pathlib
import random
import tempfile
import threading
import unittest

import grpc
from google.protobuf import any_pb2, duration_pb2
from harness import CALL_SECONDS, Server, assert_blocks_free, chat, expect_status, generate, main, pb, request, run_cli

HEADER = "x-gateway-inference-fairness-id"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def fields(data):
    """{number: last value} of a protobuf message: varints as int, the rest as bytes. Enough to read google.rpc.Status."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 0x80:
                return value, at
    out, at = {}, 0
    while at < len(data):
        key, at = varint(at)
        value, at = varint(at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        out.setdefault(key >> 3, []).append(value)
    return out


def details(error):
    """(reason, seconds to wait) that a failure carries."""
    trailers = dict(error.trailing_metadata())
    status = fields(trailers["grpc-status-details-bin"])
    assert status[1] == [error.code().value[0]]
    reason = delay = None
    for raw in status[3]:
        detail = any_pb2.Any.FromString(raw)
        if detail.type_url == "type.googleapis.com/google.rpc.ErrorInfo":
            reason = fields(detail.value)[1][0].decode()
        elif detail.type_url == "type.googleapis.com/google.rpc.RetryInfo":
            duration = duration_pb2.Duration.FromString(fields(detail.value)[1][0])
            delay = duration.seconds + duration.nanos / 1e9
    return reason, delay, trailers.get("grpc-retry-pushback-ms")


def occupy(server):
    """A stream that holds the only place until it is cancelled."""
    stopping = pb.StoppingCriteria(max_new_tokens=1900, ignore_eos=True)
    call = server.stub.Generate(request(stopping=stopping), timeout=CALL_SECONDS)
    next(m for m in call if m.token_ids)
    return call


def start(server, order, name, tenant=None, **kwargs):
    """Starts a call on a thread of its own that notes its name when its first token comes; returns once it is accepted."""
    metadata = [(HEADER, tenant)] if tenant else None
    call = server.stub.Generate(request(max_new_tokens=64, **kwargs), timeout=CALL_SECONDS, metadata=metadata)

    def read():
        next(m for m in call if m.token_ids)
        order.append(name)
        list(call)

    assert next(call).HasField("prompt")  # sent once it is accepted
    thread = threading.Thread(target=read)
    thread.start()
    return thread


class Gateway(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server("--gateway", "127.0.0.0/8", "--max-num-seqs", 1))

    def test_a_raised_priority_goes_first(self):
        running, order = occupy(self.server), []
        threads = [start(self.server, order, f"p{p}", priority=p) for p in (0, -3, 7)]
        running.cancel()
        for thread in threads:
            thread.join()
        self.assertEqual(order, ["p7", "p0", "p-3"])

    def test_tenants_take_turns(self):
        running, order = occupy(self.server), []
        threads = [start(self.server, order, name, tenant=name[0]) for name in ("a1", "a2", "a3", "b1")]
        running.cancel()
        for thread in threads:
            thread.join()
        self.assertLess(order.index("b1"), 2)
        self.assertEqual([n for n in order if n[0] == "a"], ["a1", "a2", "a3"])

    def test_tenants_do_not_find_each_others_prefixes(self):
        def cached(tenant):
            call = self.server.stub.Generate(request([7] * 100), timeout=CALL_SECONDS, metadata=[(HEADER, tenant)])
            return list(call)[-1].usage.cached_tokens
        self.assertEqual([cached("one"), cached("two"), cached("one")], [0, 0, 96])

    def test_a_tenants_name_has_a_limit(self):
        with expect_status(self, grpc.StatusCode.INVALID_ARGUMENT) as caught:
            list(self.server.stub.Generate(request(), timeout=CALL_SECONDS, metadata=[(HEADER, "x" * 257)]))
        self.assertIn(HEADER, caught.exception.details())


class Stranger(unittest.TestCase):
    """A caller that is no gateway."""

    def test_neither_names_a_tenant_nor_raises_its_priority(self):
        with Server("--max-num-seqs", 1) as server:
            running, order = occupy(server), []
            threads = [start(server, order, "first"), start(server, order, "raised", priority=10),
                       start(server, order, "other", tenant="other"), start(server, order, "lowered", priority=-1),
                       start(server, order, "last")]
            running.cancel()
            for thread in threads:
                thread.join()
            self.assertEqual(order, ["first", "raised", "other", "last", "lowered"])

    def test_networks_are_checked(self):
        done = run_cli("serve", "--model", "x", "--gateway", "10.0.0.0/99")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--gateway 10.0.0.0/99", done.stderr)


class Fairness(unittest.TestCase):
    def test_two_tenants_at_ten_to_one_get_the_same(self):
        with Server("--gateway", "127.0.0.0/8", "--max-num-seqs", 4) as server, tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "load.json"
            done = run_cli("loadgen", "--target", server.target, "--tenants", 2, "--concurrency", 88, "--requests", 600,
                           "--prompt-tokens", 24, "--output-tokens", 24, "--json", out)
            self.assertEqual(done.returncode, 0, done.stderr)
            summary = json.loads(out.read_text())
            self.assertEqual(summary["statuses"], {"OK": 600})
            tokens = [summary["tenants"][f"tenant-{i}"]["contended_tokens"] for i in (0, 1)]
            self.assertGreater(min(tokens), 4000)
            self.assertLess(abs(tokens[0] / tokens[1] - 1), 0.05, tokens)


class Deadlines(unittest.TestCase):
    def test_a_call_that_cannot_meet_its_deadline_is_refused_at_once_with_a_hint(self):
        with Server() as server:
            for seed in (1, 2):  # now the pace is known
                generate(server, random.Random(seed).choices(range(10, 4000), k=900), max_new_tokens=8)
            before = server.metrics()
            with expect_status(self, EXHAUSTED) as caught:
                stopping = pb.StoppingCriteria(max_new_tokens=1900, min_new_tokens=1900)
                list(server.stub.Generate(request(stopping=stopping), timeout=0.5))
            reason, delay, pushback = details(caught.exception)
            self.assertEqual(reason, "DEADLINE_UNREACHABLE")
            self.assertGreater(delay, 0)
            self.assertEqual(int(pushback), round(delay * 1000))
            after = server.metrics()
            name = 'millrace_sheds_total{cause="deadline"}'
            self.assertEqual(after[name] - before.get(name, 0), 1)
            name = 'millrace_forward_tokens_total{path="moe"}'
            self.assertEqual(after[name], before[name], "not one prompt token is computed for it")

    def test_a_full_queue_says_when_to_come_again(self):
        with Server("--max-num-seqs", 1, "--max-queue", 0) as server:
            running = occupy(server)
            with expect_status(self, EXHAUSTED) as caught:
                generate(server)
            reason, delay, pushback = details(caught.exception)
            self.assertEqual(reason, "QUEUE_FULL")
            self.assertEqual(int(pushback), round(delay * 1000))
            running.cancel()


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server())

    def run_many(self, count, **sampling):
        messages = list(self.server.stub.Generate(
            request(chat("Tell me a story."), temperature=None, max_new_tokens=24,
                    sampling=pb.SamplingParams(num_sequences=count, **sampling)), timeout=CALL_SECONDS))
        answers = [[t for m in messages if m.index == i for t in m.token_ids] for i in range(count)]
        self.assertEqual(sorted(m.index for m in messages if m.HasField("finish")), list(range(count)))
        self.assertEqual([m.HasField("usage") for m in messages], [False] * (len(messages) - 1) + [True])
        self.assertEqual(messages[-1].usage.completion_tokens, sum(map(len, answers)))
        return answers

    def test_each_has_a_random_stream_of_its_own(self):
        answers = self.run_many(4, temperature=1.0, seed=11)
        self.assertEqual(len(set(map(tuple, answers))), 4)
        self.assertEqual(answers, self.run_many(4, temperature=1.0, seed=11))
        self.assertEqual(answers[:1], self.run_many(1, temperature=1.0, seed=11), "the first is the one it would be alone")

    def test_greedy_ones_are_all_the_same(self):
        answers = self.run_many(3, temperature=0.0)
        self.assertEqual(answers, [generate(self.server, chat("Tell me a story."), max_new_tokens=24).token_ids] * 3)

    def test_a_cancel_ends_all(self):
        stopping = pb.StoppingCriteria(max_new_tokens=500, ignore_eos=True)
        call = self.server.stub.Generate(request(stopping=stopping, sampling=pb.SamplingParams(num_sequences=8)),
                                         timeout=CALL_SECONDS)
        next(m for m in call if m.index == 5)
        call.cancel()
        assert_blocks_free(self, self.server)


if __name__ == "__main__":
    main()
