"""What /metrics says is true: known calls against the real server, and every family compared with what it must be.

The oracle (Truth) knows only what clients sent and got. Where calls end well everything is exact, to the bucket; where a
client cancels, what the server did meanwhile is known between bounds.
"""
import copy
import http.client
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import threading
import time
import unittest

import grpc
from exposition import generate_dashboards, scrape
from harness import CALL_SECONDS, LONG, Collected, Server, assert_conserved, expect_status, main, pb, request

Code = grpc.StatusCode
BLOCK = 32
HEADER = "x-gateway-inference-fairness-id"
GENERATE = "Generate"
METHODS = ("Generate", "Tokenize", "Detokenize", "GetModelInfo", "GetLoad", "Resume")
# Sums of seconds are written with fewer digits than they have.
EPSILON = 1e-5


class Span:
    """A number that is known between bounds; exact when they are equal."""

    def __init__(self, low, high=None):
        self.low, self.high = low, low if high is None else high

    def __add__(self, other):
        other = other if isinstance(other, Span) else Span(other)
        return Span(self.low + other.low, self.high + other.high)

    def __repr__(self):
        return f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"

    def check(self, case, value, what, slack=0.0):
        case.assertGreaterEqual(value, self.low - slack, f"{what}: want {self}")
        case.assertLessEqual(value, self.high + slack, f"{what}: want {self}")


class Observed:
    """What a histogram must hold: observations, each known between bounds."""

    def __init__(self):
        self.spans = []
        self.maybe = 0  # more that may have been observed

    def add(self, low, high=None):
        self.spans.append(Span(low, high))

    def check(self, case, histogram, what):
        count = Span(len(self.spans), len(self.spans) + self.maybe)
        count.check(case, histogram.count, f"{what} count")
        case.assertEqual(histogram.buckets[math.inf], histogram.count, what)
        for bound, value in histogram.buckets.items():
            sure = sum(span.high < bound - 1e-9 for span in self.spans)
            most = sum(span.low <= bound + 1e-9 for span in self.spans) + self.maybe
            Span(sure, most).check(case, value, f"{what} up to {bound}")
        if self.maybe == 0:
            total = Span(sum(s.low for s in self.spans), sum(s.high for s in self.spans))
            total.check(case, histogram.sum, f"{what} sum", EPSILON * max(1.0, total.high))


class Truth:
    """What the server must have counted, from what clients sent and got."""

    def __init__(self, experts_per_token, layers):
        self.experts_per_token, self.layers = experts_per_token, layers
        self.calls = {}  # (method, code): calls
        self.sheds = {}
        self.prompt_tokens = 0
        self.generated = Span(0)
        self.forward = Span(0)
        self.steps = Span(0)
        self.sequences = Span(0)  # of all steps together
        self.queried = Span(0)
        self.hits = Span(0)
        self.wasted = Span(0)  # cancelled and late together
        self.wasted_by_cancel = Span(0)
        self.unwanted = Span(0)
        self.blocks = set()  # of tokens that the prefix cache keeps: each with all tokens before it
        self.more_blocks = 0
        self.first_token, self.queue, self.prefill, self.decode = Observed(), Observed(), Observed(), Observed()
        self.end_to_end, self.prompts, self.answers = Observed(), Observed(), Observed()
        self.between_count, self.between_sum = Span(0), Span(0.0)
        self.last_step = Span(0.0)
        self.began = time.time()

    def call(self, method, code, count=1):
        self.calls[method, code] = self.calls.get((method, code), 0) + count

    def shed(self, cause, code=Code.RESOURCE_EXHAUSTED):
        self.call(GENERATE, code)
        self.sheds[cause] = self.sheds.get(cause, 0) + 1

    def keep(self, tokens):
        """The blocks of computed tokens stay for others."""
        for end in range(BLOCK, len(tokens) + 1, BLOCK):
            self.blocks.add(tuple(tokens[:end]))

    def known(self, prompt):
        """Tokens of the prompt that are found: whole blocks, and never the last token."""
        found = 0
        for end in range(BLOCK, len(prompt), BLOCK):
            if tuple(prompt[:end]) not in self.blocks:
                break
            found = end
        return found

    def finished(self, prompt, answers, usage, began, ended, bypass=False):
        """A request that ran alone: `answers` are the tokens of each of its sequences."""
        self.call(GENERATE, Code.OK)
        self.prompt_tokens += len(prompt)
        generated = sum(map(len, answers))
        for index, answer in enumerate(answers):
            found = 0 if bypass else self.known(prompt)
            if index == 0:
                assert usage.cached_tokens == found, (usage.cached_tokens, found)
            if not bypass:
                self.queried += len(prompt)
                self.hits += found
                self.keep(prompt)
            computed = len(prompt) - found + max(0, len(answer) - 1)
            self.forward += computed
            self.sequences += max(1, len(answer))
            if not bypass:
                self.keep((prompt + answer)[:len(prompt) + max(0, len(answer) - 1)])
        longest = max(1, *map(len, answers))
        # Several begin when the first has computed the prompt, and then go in step.
        self.steps += Span(longest, longest + (len(answers) > 1))
        self.generated += generated
        self.queue.add(usage.queue_seconds)
        self.prefill.add(usage.prefill_seconds)
        self.decode.add(usage.decode_seconds)
        inside = usage.queue_seconds + usage.prefill_seconds + usage.decode_seconds
        self.end_to_end.add(inside, max(inside, ended - began))
        self.prompts.add(len(prompt))
        self.answers.add(generated)
        if generated:
            self.first_token.add(usage.queue_seconds + usage.prefill_seconds)
            self.between_count += generated - len(answers)
            # The second of several begins later and ends with the first: its share of the time is not told.
            alone = len(answers) == 1
            self.between_sum += Span(usage.decode_seconds if alone else 0.0, usage.decode_seconds * len(answers))
        self.last_step = Span(began, ended)

    def broken(self, code, prompt, seen, most, began, ended):
        """A request that ran and ended badly after at least `seen` tokens and at most `most`."""
        self.call(GENERATE, code)
        self.prompt_tokens += len(prompt)
        found = self.known(prompt)
        self.queried += len(prompt)
        self.hits += found
        self.more_blocks += math.ceil((len(prompt) + most) / BLOCK)
        self.forward += Span(len(prompt) - found + seen - 1 if seen else 0, len(prompt) - found + most)
        self.steps += Span(seen, most + 1)
        self.sequences += Span(seen, most + 1)
        self.generated += Span(seen, most)
        self.wasted += Span(seen, most)
        self.unwanted += Span(0, 1)
        if seen:
            self.first_token.add(0.0, ended - began)
        else:
            self.first_token.maybe += 1
        self.between_count += Span(max(0, seen - 1), most - 1)
        self.between_sum += Span(0.0, ended - began)
        self.last_step = Span(began, ended)


# One check for each family, name: (case, scrape, truth, state). `state` is what GetLoad and GetModelInfo said, idle.

def calls_received(case, s, t, _):
    for method in METHODS:
        want = sum(count for (m, _), count in t.calls.items() if m == method)
        case.assertEqual(s.value("millrace_requests_received_total", method=method), want, method)


def calls_ended(case, s, t, _):
    want = {(m, code.name): count for (m, code), count in t.calls.items()}
    got = {tuple(sorted(dict(labels).items())): v for labels, v in s.all("millrace_requests_total").items() if v}
    case.assertEqual(got, {(("code", code), ("method", m)): count for (m, code), count in want.items()})


def calls_in_flight(case, s, t, _):
    case.assertEqual({v for v in s.all("millrace_requests_in_flight").values()}, {0})


def exactly(name, want):
    return lambda case, s, t, _: (want(t) if isinstance(want(t), Span) else Span(want(t))).check(case, s.value(name), name)


def observed(name, of):
    return lambda case, s, t, _: of(t).check(case, s.histogram(name), name)


def forward_tokens(case, s, t, _):
    t.forward.check(case, s.value("millrace_forward_tokens_total", path="moe"), "forward tokens")
    case.assertEqual(s.value("millrace_forward_tokens_total", path="dense"), 0)


def sheds(case, s, t, _):
    got = {dict(labels)["cause"]: v for labels, v in s.all("millrace_sheds_total").items()}
    case.assertEqual(got, {**dict.fromkeys(("queue_full", "deadline", "displaced", "draining"), 0), **t.sheds})


def wasted(case, s, t, _):
    got = {dict(labels)["cause"]: v for labels, v in s.all("millrace_wasted_tokens_total").items()}
    case.assertEqual(set(got), {"preemption", "ended", "cancel", "deadline", "slow_reader", "shutdown", "failure"})
    # Whether the server's clock or the client's cancel ends a late request is a race.
    t.wasted.check(case, got.pop("cancel") + got.pop("deadline"), "wasted by cancels and deadlines")
    t.unwanted.check(case, got.pop("ended"), "sampled for who had ended")
    case.assertEqual(set(got.values()), {0})
    # However many it were: what was generated went to requests that ended well, or was wasted.
    finished = s.histogram("millrace_request_generated_tokens").sum
    lost = s.total("millrace_wasted_tokens_total", cause="cancel") + s.total("millrace_wasted_tokens_total", cause="deadline")
    case.assertEqual(s.value("millrace_generated_tokens_total"), finished + lost)


def between_tokens(case, s, t, _):
    got = s.histogram("millrace_inter_token_latency_seconds")
    t.between_count.check(case, got.count, "times between tokens")
    t.between_sum.check(case, got.sum, "sum of times between tokens", EPSILON * max(1.0, t.between_sum.high))
    case.assertEqual(got.buckets[math.inf], got.count)


def step_seconds(case, s, t, _):
    for phase in ("forward", "schedule"):
        got = s.histogram("millrace_step_seconds", phase=phase)
        t.steps.check(case, got.count, f"steps, {phase}")
        Span(0.0, time.time() - t.began).check(case, got.sum, f"seconds in steps, {phase}")
        if got.count:
            case.assertGreater(got.sum, 0)


def step_sequences(case, s, t, _):
    got = s.histogram("millrace_step_batch_sequences")
    t.steps.check(case, got.count, "steps")
    t.sequences.check(case, got.sum, "sequences in all steps")


def step_tokens(case, s, t, _):
    got = s.histogram("millrace_step_batch_tokens")
    case.assertEqual(got.count, s.histogram("millrace_step_batch_sequences").count)
    case.assertEqual(got.sum, s.total("millrace_forward_tokens_total"))


def active_experts(case, s, t, _):
    got = s.histogram("millrace_moe_active_experts")
    case.assertEqual(got.count, t.layers * s.histogram("millrace_step_batch_tokens").count)
    case.assertEqual(got.sum, s.histogram("millrace_moe_rows_per_expert").count)


def rows_per_expert(case, s, t, _):
    got = s.histogram("millrace_moe_rows_per_expert")
    case.assertEqual(got.sum, t.experts_per_token * t.layers * s.total("millrace_forward_tokens_total"))
    case.assertEqual(got.buckets[math.inf], got.count)


def kv_blocks(case, s, t, state):
    total = state["load"].kv_blocks_total
    used, cached, free = (s.value("millrace_kv_blocks", state=name) for name in ("used", "cached", "free"))
    case.assertEqual(used + cached + free, total)
    case.assertEqual(used, 0)
    Span(len(t.blocks), len(t.blocks) + t.more_blocks).check(case, cached, "blocks kept for their prefixes")


def rate(case, s, t, _):
    # Of the last five seconds; all of the trace may lie in them, and none after a silence.
    Span(0.0, t.generated.high / 5).check(case, s.value("millrace_tokens_per_second"), "tokens a second")


def last_step(case, s, t, _):
    t.last_step.check(case, s.value("millrace_last_step_timestamp_seconds"), "newest step", 0.01)


def build_info(case, s, t, state):
    case.assertEqual(s.all("millrace_build_info"), {frozenset({("version", state["info"].version)}): 1})


def start_time(case, s, t, state):
    # Of the process as the kernel tells it, in ticks after the machine's start.
    ticks = int(pathlib.Path(f"/proc/{state['pid']}/stat").read_text().rsplit(")", 1)[1].split()[19])
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    started = booted + ticks / os.sysconf("SC_CLK_TCK")
    # Up to where the server makes its metrics, on a busy machine.
    Span(started, started + 5).check(case, s.value("process_start_time_seconds"), "start", 0.1)


def model_info(case, s, t, state):
    info = state["info"]
    case.assertEqual(s.total("millrace_model_info"), 1)
    case.assertEqual(s.labels("millrace_model_info"), {"name": info.name, "architecture": info.architecture,
                                                       "quantisation": info.quantisation, "device": info.device})


def cache_config(case, s, t, state):
    case.assertEqual(s.total("vllm:cache_config_info"), 1)
    case.assertEqual(s.labels("vllm:cache_config_info"), {"block_size": str(BLOCK),
                                                          "num_gpu_blocks": str(state["load"].kv_blocks_total)})


def none(name):
    return lambda case, s, t, _: case.assertEqual(set(s.all(name).values()), {0}, name)


CHECKS = {
    "millrace_build_info": build_info,
    "process_start_time_seconds": start_time,
    "millrace_model_info": model_info,
    "millrace_requests_received_total": calls_received,
    "millrace_requests_total": calls_ended,
    "millrace_requests_in_flight": calls_in_flight,
    "millrace_requests_running": none("millrace_requests_running"),
    "millrace_requests_waiting": none("millrace_requests_waiting"),
    "millrace_prompt_tokens_total": exactly("millrace_prompt_tokens_total", lambda t: t.prompt_tokens),
    "millrace_generated_tokens_total": exactly("millrace_generated_tokens_total", lambda t: t.generated),
    "millrace_forward_tokens_total": forward_tokens,
    "millrace_prefix_cache_queries_tokens_total": exactly("millrace_prefix_cache_queries_tokens_total", lambda t: t.queried),
    "millrace_prefix_cache_hits_tokens_total": exactly("millrace_prefix_cache_hits_tokens_total", lambda t: t.hits),
    "millrace_prefix_cache_evicted_blocks_total": none("millrace_prefix_cache_evicted_blocks_total"),
    "millrace_preemptions_total": none("millrace_preemptions_total"),
    "millrace_wasted_tokens_total": wasted,
    "millrace_sheds_total": sheds,
    "millrace_kv_blocks": kv_blocks,
    "millrace_tokens_per_second": rate,
    "millrace_oldest_wait_seconds": none("millrace_oldest_wait_seconds"),
    "millrace_last_step_timestamp_seconds": last_step,
    "millrace_time_to_first_token_seconds": observed("millrace_time_to_first_token_seconds", lambda t: t.first_token),
    "millrace_inter_token_latency_seconds": between_tokens,
    "millrace_request_queue_seconds": observed("millrace_request_queue_seconds", lambda t: t.queue),
    "millrace_request_prefill_seconds": observed("millrace_request_prefill_seconds", lambda t: t.prefill),
    "millrace_request_decode_seconds": observed("millrace_request_decode_seconds", lambda t: t.decode),
    "millrace_request_e2e_seconds": observed("millrace_request_e2e_seconds", lambda t: t.end_to_end),
    "millrace_request_prompt_tokens": observed("millrace_request_prompt_tokens", lambda t: t.prompts),
    "millrace_request_generated_tokens": observed("millrace_request_generated_tokens", lambda t: t.answers),
    "millrace_step_seconds": step_seconds,
    "millrace_step_batch_sequences": step_sequences,
    "millrace_step_batch_tokens": step_tokens,
    "millrace_moe_active_experts": active_experts,
    "millrace_moe_rows_per_expert": rows_per_expert,
    "vllm:num_requests_waiting": none("vllm:num_requests_waiting"),
    "vllm:num_requests_running": none("vllm:num_requests_running"),
    "vllm:kv_cache_usage_perc": none("vllm:kv_cache_usage_perc"),
    "vllm:cache_config_info": cache_config,
}


def endless(most):
    return pb.StoppingCriteria(max_new_tokens=most, ignore_eos=True)


def until(server, condition, what):
    """The first scrape that meets the condition: each is an answer of the server, so this waits for it, not for a time."""
    give_up = time.monotonic() + CALL_SECONDS
    while time.monotonic() < give_up:
        page = scrape(server)
        if condition(page):
            return page
    raise AssertionError(f"never came: {what}")


def idle(page):
    return (page.total("millrace_requests_in_flight") == 0 and page.value("millrace_requests_running") == 0 and
            page.value("millrace_requests_waiting") == 0 and page.value("millrace_kv_blocks", state="used") == 0)


def changed(page, family):
    """A copy of the page with one family's values wrong: the check of it must notice."""
    wrong = copy.copy(page)
    # Counters and histograms by one. What clients see of a gauge is known less well.
    off = 1000 if family.type == "gauge" else 1
    ours = {family.name, *(family.name + end for end in ("_bucket", "_sum", "_count"))}
    wrong.samples = {(name, labels): value + (off if name in ours else 0) for (name, labels), value in page.samples.items()}
    return wrong


class Trace:
    """Drives a server and tells the truth of it."""

    def __init__(self, case, server, rng):
        self.case, self.server, self.rng = case, server, rng
        self.info = server.stub.GetModelInfo(pb.GetModelInfoRequest())
        self.truth = Truth(self.info.experts_per_token, self.info.layers)
        self.truth.call("GetModelInfo", Code.OK)

    def prompt(self, length):
        return [self.rng.randrange(10, self.info.vocab_size) for _ in range(length)]

    def finish(self, prompt, tokens, sequences=1, bypass=False):
        fields = {"cache": pb.CacheOptions(bypass_prefix_cache=True)} if bypass else {}
        began = time.time()
        done = Collected(self.server.stub.Generate(
            request(prompt, stopping=endless(tokens), sampling=pb.SamplingParams(num_sequences=sequences), **fields),
            timeout=CALL_SECONDS))
        ended = time.time()
        answers = [[token for m in done.messages if m.index == i for token in m.token_ids] for i in range(sequences)]
        self.case.assertEqual([len(answer) for answer in answers], [tokens] * sequences)
        self.truth.finished(prompt, answers, done.usage, began, ended, bypass)
        return answers[0]

    def fails(self, code, **fields):
        with expect_status(self.case, code):
            list(self.server.stub.Generate(request(**fields), timeout=CALL_SECONDS))
        self.truth.call(GENERATE, code)

    def unary(self, method, message, code=Code.OK):
        try:
            getattr(self.server.stub, method)(message, timeout=CALL_SECONDS)
            got = Code.OK
        except grpc.RpcError as error:
            got = error.code()
        self.case.assertEqual(got, code)
        self.truth.call(method, code)

    def start(self, prompt, most, tenant=None, **fields):
        metadata = [(HEADER, tenant)] if tenant else None
        call = self.server.stub.Generate(request(prompt, stopping=endless(most), **fields), timeout=CALL_SECONDS,
                                         metadata=metadata)
        self.case.assertTrue(next(call).HasField("prompt"))  # accepted
        return call

    def check(self, exact=False):
        """Every family, once the server is idle. Where all is known exactly, each check must also notice a small lie."""
        page = until(self.server, idle, "an idle server")
        load = self.server.stub.GetLoad(pb.GetLoadRequest())
        self.truth.call("GetLoad", Code.OK)
        page = until(self.server, idle, "an idle server")
        self.case.assertEqual(set(page.families), set(CHECKS), "a family that no check knows, or one that is gone")
        state = {"load": load, "info": self.info, "pid": self.server.process.pid}
        for name, check in CHECKS.items():
            with self.case.subTest(name):
                check(self.case, page, self.truth, state)
        for name, family in page.families.items() if exact else ():
            with self.case.subTest(f"{name}, off by a little"), self.case.assertRaises(AssertionError):
                CHECKS[name](self.case, changed(page, family), self.truth, state)
        return page


def read(call, tokens):
    """At least so many tokens of a stream; how many there were."""
    seen = 0
    while seen < tokens:
        seen += len(next(call).token_ids)
    return seen


class GroundTruth(unittest.TestCase):
    def setUp(self):
        seed = int(os.environ.get("MILLRACE_SEED", random.randrange(1 << 32)))
        print(f"seed {seed}")
        self.server = self.enterContext(Server("--gateway", "127.0.0.0/8", "--max-num-seqs", 2, "--max-queue", 2))
        fresh = scrape(self.server)
        self.trace = Trace(self, self.server, random.Random(seed))
        self.assertEqual({v for (name, _), v in fresh.samples.items() if self.counts(fresh, name)}, {0})

    @staticmethod
    def counts(page, name):
        return page.families.get(name) and page.families[name].type == "counter" or name.endswith(("_bucket", "_count", "_sum"))

    def test_every_family_says_what_happened(self):
        trace, truth = self.trace, self.trace.truth
        with self.subTest("requests that end well"):
            self.good_requests()
        with self.subTest("calls that are refused for what they ask"):
            self.bad_requests()
        with self.subTest("cancels and deadlines"):
            self.broken_requests()
        with self.subTest("a full queue"):
            self.overload()
        with self.subTest("a silence"):
            self.silence()
        with self.subTest("a drain"):
            self.drain()

    def good_requests(self):
        trace = self.trace
        trace.check()
        for length, tokens in ((1, 1), (5, 8), (32, 3), (33, 40), (100, 0), (64, 1)):
            trace.finish(trace.prompt(length), tokens)
        # The same 100 tokens: three whole blocks are found. Then they and their answer: a chat that goes on.
        again = trace.prompt(100)
        answer = trace.finish(again, 30)
        trace.finish(again, 5)
        trace.finish(again + answer + trace.prompt(9), 4)
        self.assertEqual(trace.truth.hits.low, 96 + 128)
        trace.finish(again, 6, bypass=True)
        trace.check(exact=True)
        trace.finish(trace.prompt(70), 12, sequences=2)
        trace.check()

    def bad_requests(self):
        trace = self.trace
        for _ in range(3):
            trace.fails(Code.INVALID_ARGUMENT, prompt=[])
        trace.fails(Code.NOT_FOUND, model="another")
        trace.fails(Code.UNIMPLEMENTED, sampling=pb.SamplingParams(regex="a"))
        for _ in range(3):
            trace.unary("Tokenize", pb.TokenizeRequest(text="one two"))
        trace.unary("Tokenize", pb.TokenizeRequest(model="another", text="x"), Code.NOT_FOUND)
        trace.unary("Detokenize", pb.DetokenizeRequest(token_ids=[5, 6]))
        trace.unary("Detokenize", pb.DetokenizeRequest(token_ids=[1 << 30]), Code.INVALID_ARGUMENT)
        trace.unary("GetModelInfo", pb.GetModelInfoRequest())
        for _ in range(2):
            with expect_status(self, Code.UNIMPLEMENTED):
                list(self.server.stub.Resume(pb.ResumeRequest(request_id="x"), timeout=CALL_SECONDS))
            trace.truth.call("Resume", Code.UNIMPLEMENTED)
        trace.check()

    def broken_requests(self):
        trace, most = self.trace, 1500
        prompt = trace.prompt(40)
        began = time.time()
        call = trace.start(prompt, most, request_id="twice")
        seen = read(call, 20)
        trace.fails(Code.ALREADY_EXISTS, request_id="twice")
        page = scrape(self.server)
        self.assertEqual(page.value("millrace_requests_running"), 1)
        self.assertGreaterEqual(page.value("millrace_kv_blocks", state="used"), (len(prompt) + seen) // BLOCK)
        call.cancel()
        until(self.server, idle, "the end of the cancelled request")
        trace.truth.broken(Code.CANCELLED, prompt, seen, most, began, time.time())
        page = trace.check()
        self.assertGreaterEqual(page.value("millrace_wasted_tokens_total", cause="cancel"), seen)
        self.assertEqual(page.value("millrace_wasted_tokens_total", cause="deadline"), 0)
        # One that runs into its deadline: the model cannot do so many tokens in so little time, and is not asked to.
        prompt = trace.prompt(10)
        seen, began = 0, time.time()
        with expect_status(self, Code.DEADLINE_EXCEEDED):
            for message in self.server.stub.Generate(request(prompt, stopping=endless(1900)), timeout=0.3):
                seen += len(message.token_ids)
        until(self.server, idle, "the end of the late request")
        trace.truth.broken(Code.DEADLINE_EXCEEDED, prompt, seen, 1900, began, time.time())
        trace.check()

    def overload(self):
        trace, truth, most = self.trace, self.trace.truth, 1900
        prompts = [trace.prompt(20) for _ in range(4)]
        began = time.time()
        running = [trace.start(prompts[i], most, tenant="a") for i in range(2)]
        seen = [read(call, 1) for call in running]
        waiting = [trace.start(prompts[i], most, tenant="a") for i in range(2, 4)]
        queued = time.time()
        for _ in range(3):
            with expect_status(self, Code.RESOURCE_EXHAUSTED):
                list(self.server.stub.Generate(request(trace.prompt(4)), timeout=CALL_SECONDS, metadata=[(HEADER, "a")]))
            truth.shed("queue_full")
        page = scrape(self.server)
        assert_conserved(self, self.server.metrics())
        for prefix in ("millrace_requests_", "vllm:num_requests_"):
            self.assertEqual(page.total(prefix + "running"), 2)
            self.assertEqual(page.total(prefix + "waiting"), 2)
        self.assertEqual(page.value("millrace_requests_in_flight", method=GENERATE), 4)
        Span(0.0, time.time() - began).check(self, page.value("millrace_oldest_wait_seconds"), "oldest wait")
        later = scrape(self.server)
        self.assertGreaterEqual(later.value("millrace_oldest_wait_seconds"), page.value("millrace_oldest_wait_seconds"))
        self.assertLessEqual(later.value("millrace_oldest_wait_seconds"), time.time() - queued + 0.5)
        used = page.value("millrace_kv_blocks", state="used") / sum(page.all("millrace_kv_blocks").values())
        self.assertAlmostEqual(page.total("vllm:kv_cache_usage_perc"), used, places=5)
        self.assertGreater(used, 0)
        # A tenant with nothing in the queue takes a place of the one that has all of it.
        other = trace.prompt(6)
        call = trace.start(other, most, tenant="b")
        until(self.server, lambda p: p.value("millrace_sheds_total", cause="displaced") == 1, "a displaced request")
        while all(stream.is_active() for stream in waiting):
            scrape(self.server)
        lost = next(i for i, stream in enumerate(waiting) if not stream.is_active())
        self.assertEqual(waiting[lost].code(), Code.RESOURCE_EXHAUSTED)
        truth.shed("displaced")
        for stream in (waiting[1 - lost], call):
            stream.cancel()
        truth.call(GENERATE, Code.CANCELLED, 2)  # accepted, and never ran
        truth.prompt_tokens += len(prompts[2]) + len(prompts[3]) + len(other)
        until(self.server, lambda p: p.value("millrace_requests_waiting") == 0, "an empty queue")
        for stream in running:
            stream.cancel()
        until(self.server, idle, "an idle server")
        for prompt, tokens in zip(prompts, seen):
            truth.broken(Code.CANCELLED, prompt, tokens, most, began, time.time())
        # They shared their steps.
        truth.steps.low -= min(seen)
        # The pace is known by now: so many tokens in so little time are refused at once.
        with expect_status(self, Code.RESOURCE_EXHAUSTED):
            stopping = pb.StoppingCriteria(max_new_tokens=1900, min_new_tokens=1900)
            list(self.server.stub.Generate(request(trace.prompt(3), stopping=stopping), timeout=0.3))
        truth.shed("deadline")
        trace.check()

    def silence(self):
        """An idle server computes no tokens, whatever it did five seconds ago."""
        until(self.server, lambda page: page.value("millrace_tokens_per_second") == 0, "a rate of 0")
        self.trace.check()

    def drain(self):
        trace = self.trace
        prompt, began = trace.prompt(8), time.time()
        call = trace.start(prompt, 1900)
        seen = read(call, 1)
        self.server.terminate()
        while self.server.http("/readyz")[0] == 200:
            pass
        with expect_status(self, Code.UNAVAILABLE):
            list(self.server.stub.Generate(request(), timeout=CALL_SECONDS))
        trace.truth.shed("draining", Code.UNAVAILABLE)
        page = scrape(self.server)
        sheds(self, page, trace.truth, None)
        self.assertEqual(page.value("millrace_requests_total", method=GENERATE, code="UNAVAILABLE"), 1)
        call.cancel()
        self.assertEqual(self.server.wait(), 0)


class Pressure(unittest.TestCase):
    """A KV cache too small for what runs: what is evicted, preempted and computed again adds up."""

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server("--kv-cache-bytes", "2M", "--ctx", 640, "--max-num-seqs", 6))
        cls.rng = random.Random(1)

    def prompt(self, length):
        return [self.rng.randrange(10, 4096) for _ in range(length)]

    def test_evicted_blocks_are_those_that_were_kept_and_are_gone(self):
        kept = 0
        before = scrape(self.server)
        total = before.total("millrace_kv_blocks")
        while kept < 2 * total:
            prompt = self.prompt(300)
            done = Collected(self.server.stub.Generate(request(prompt, stopping=endless(2)), timeout=CALL_SECONDS))
            self.assertEqual(done.usage.cached_tokens, 0)
            kept += (len(prompt) + 1) // BLOCK
        page = until(self.server, idle, "an idle server")
        evicted = (page.value("millrace_prefix_cache_evicted_blocks_total") -
                   before.value("millrace_prefix_cache_evicted_blocks_total"))
        cached = page.value("millrace_kv_blocks", state="cached") - before.value("millrace_kv_blocks", state="cached")
        self.assertEqual(evicted, kept - cached)

    def test_preempted_work_is_counted_to_the_token(self):
        before = scrape(self.server)
        prompts = [self.prompt(100) for _ in range(6)]
        streams = [self.server.stub.Generate(request(prompt, stopping=endless(400)), timeout=CALL_SECONDS)
                   for prompt in prompts]
        usages = [list(stream)[-1].usage for stream in streams]
        page = until(self.server, idle, "an idle server")

        def grown(name, **labels):
            return page.total(name, **labels) - before.total(name, **labels)

        preemptions = sum(usage.preemptions for usage in usages)
        self.assertGreater(preemptions, 0)
        self.assertEqual(grown("millrace_preemptions_total"), preemptions)
        again = grown("millrace_wasted_tokens_total", cause="preemption")
        self.assertGreater(again, 0)
        once = sum(usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens - 1 for usage in usages)
        self.assertEqual(grown("millrace_forward_tokens_total"), once + again)
        # Whoever comes back looks for its blocks again.
        looked = grown("millrace_prefix_cache_queries_tokens_total")
        self.assertGreater(looked, sum(map(len, prompts)))
        self.assertLessEqual(grown("millrace_prefix_cache_hits_tokens_total"), looked)


class UnderLoad(unittest.TestCase):
    def test_every_scrape_adds_up(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        with Server("--max-num-seqs", 8, "--max-queue", 8) as server:
            done = threading.Event()

            def client(rng):
                for _ in range(25):
                    tokens = rng.randrange(1, 40)
                    call = server.stub.Generate(request([rng.randrange(10, 4096) for _ in range(rng.randrange(1, 60))],
                                                        stopping=endless(tokens)), timeout=CALL_SECONDS)
                    try:
                        for count, _ in enumerate(call):
                            if count == rng.randrange(60):
                                call.cancel()
                    except grpc.RpcError as error:
                        self.assertIn(error.code(), {Code.CANCELLED, Code.RESOURCE_EXHAUSTED})

            threads = [threading.Thread(target=client, args=(random.Random(seed + i),)) for i in range(12)]
            closer = threading.Thread(target=lambda: ([thread.join() for thread in threads], done.set()))
            for thread in (*threads, closer):
                thread.start()
            last, scrapes, total = None, 0, server.stub.GetLoad(pb.GetLoadRequest()).kv_blocks_total
            while not done.is_set():
                page = scrape(server)
                self.adds_up(page, total)
                if last is not None:
                    self.only_grows(last, page)
                last, scrapes = page, scrapes + 1
            closer.join()
            self.assertGreater(scrapes, 10)
            self.assertEqual(until(server, idle, "an idle server").value("millrace_requests_received_total", method=GENERATE),
                             12 * 25)

    def adds_up(self, page, total):
        for method in METHODS:
            ended = page.total("millrace_requests_total", method=method)
            flying = page.value("millrace_requests_in_flight", method=method)
            self.assertEqual(page.value("millrace_requests_received_total", method=method), ended + flying, method)
        self.assertEqual(page.total("millrace_kv_blocks"), total)
        # One snapshot of the engine under both names.
        self.assertEqual(page.total("vllm:num_requests_running"), page.value("millrace_requests_running"))
        self.assertEqual(page.total("vllm:num_requests_waiting"), page.value("millrace_requests_waiting"))
        self.assertAlmostEqual(page.total("vllm:kv_cache_usage_perc"), page.value("millrace_kv_blocks", state="used") / total,
                               places=5)
        self.assertLessEqual(page.value("millrace_requests_running"), 8)
        for name, family in page.families.items():
            if family.type == "histogram":
                for labels in ({"phase": "forward"}, {"phase": "schedule"}) if family.labels else ({},):
                    got = page.histogram(name, **labels)
                    self.assertEqual(list(got.buckets.values()), sorted(got.buckets.values()), name)
                    self.assertEqual(got.buckets[math.inf], got.count, name)

    def only_grows(self, before, after):
        for (name, labels), value in before.samples.items():
            if before.families.get(name) is None or before.families[name].type == "counter":
                self.assertGreaterEqual(after.samples[name, labels], value, name)

    def test_twenty_scrapes_a_second_cost_less_than_one_percent(self):
        """Of the CPU time of the server while it decodes: what its threads called http use."""
        with Server("--max-num-seqs", 16) as server:
            streams = [server.stub.Generate(request(stopping=endless(1900)), timeout=CALL_SECONDS) for _ in range(16)]
            for stream in streams:
                read(stream, 1)
            readers = [threading.Thread(target=self.drain, args=(stream,)) for stream in streams]
            for reader in readers:
                reader.start()
            host, port = server.metrics_address.rsplit(":", 1)
            connection = http.client.HTTPConnection(host, int(port))
            # Of three times a second's worth the least counts: others may run beside this, and caches are theirs then.
            share = min(self.scrape_share(server, connection) for _ in range(3))
            connection.close()
            for stream in streams:
                stream.cancel()
            for reader in readers:
                reader.join()
        self.assertLess(share, 0.01)

    def scrape_share(self, server, connection):
        before, began, tick = cpu_seconds(server.process.pid), time.monotonic(), threading.Event()
        for i in range(20):
            connection.request("GET", "/metrics")
            self.assertEqual(connection.getresponse().read()[:6], b"# HELP")
            # Twenty a second, as a router asks: a pace, not a wait for something.
            tick.wait(max(0.0, began + (i + 1) / 20 - time.monotonic()))
        after, seconds = cpu_seconds(server.process.pid), time.monotonic() - began
        spent = {name: after[name] - before.get(name, 0.0) for name in after}
        # Where others take the cores the server gets less than it could use, and a scrape costs no less for that: the whole
        # is at least what the threads that compute use when they are alone.
        alone = seconds * threads_that_compute(server.process.pid)
        share = spent["http"] / max(sum(spent.values()), alone)
        got = spent["http"] / sum(spent.values())
        print(f"{20 / seconds:.1f} scrapes a second: {share:.3%} of the CPU time ({got:.3%} of what the server got), "
              f"{spent['http'] / 20 * 1e3:.2f} ms each")
        self.assertGreater(20 / seconds, 18)
        self.assertGreater(spent["engine"] + spent.get("worker", 0.0), 0.1, "it decodes meanwhile")
        self.assertGreater(spent["http"], 0)
        return share

    @staticmethod
    def drain(stream):
        try:
            for _ in stream:
                pass
        except grpc.RpcError:
            pass  # cancelled in the end


def cpu_seconds(pid):
    """CPU seconds of the process's threads by name: to the nanosecond where the kernel tells, else in its ticks."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name, stat = (task / "comm").read_text().strip(), (task / "stat").read_text().rsplit(")", 1)[1].split()
            spent = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
            if (task / "schedstat").exists():
                spent = int((task / "schedstat").read_text().split()[0]) / 1e9
        except FileNotFoundError:
            continue  # it ended meanwhile
        seconds[name] = seconds.get(name, 0.0) + spent
    return seconds


def threads_that_compute(pid):
    names = [(task / "comm").read_text().strip() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return sum(name in ("engine", "worker") for name in names)


class Names(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server("--gateway", "127.0.0.0/8"))

    def test_promtool_finds_nothing_wrong(self):
        page = scrape(self.server)
        # The names that routers look for have a colon, which promtool keeps for recording rules.
        ours = [line for line in page.text.splitlines() if not re.match("(# (HELP|TYPE) )?vllm:", line)]
        self.assertTrue(shutil.which("promtool"), "tools/setup --tests installs it")

        def promtool(text):
            done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
            return done.returncode, (done.stdout + done.stderr).splitlines()

        self.assertEqual(promtool("\n".join(ours) + "\n"), (0, []))
        status, complaints = promtool(page.text)
        self.assertNotEqual(status, 0)
        self.assertEqual(complaints, [f"{name} metric names should not contain ':'" for name in sorted(page.families)
                                     if name.startswith("vllm:")])

    def test_the_families_are_those_that_dashboards_are_made_of(self):
        want = (pathlib.Path(generate_dashboards.FOLDER) / generate_dashboards.FAMILIES).read_text()
        self.assertEqual(generate_dashboards.format_families(scrape(self.server).families), want,
                         f"tools/generate_dashboards --read-families {self.server.metrics_address} writes it anew")

    def test_random_tenants_methods_and_models_make_no_series(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        rng = random.Random(seed)
        count = 100_000 if LONG else 10_000
        word = lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=12))
        channel, stub = self.server.channel, self.server.stub

        def one():
            """Starts a call that names something nobody named before; what waits for its end."""
            kind = rng.randrange(10)
            options = {"metadata": [(HEADER, word())], "timeout": CALL_SECONDS}
            if kind < 4:
                return channel.unary_unary(f"/{word()}.{word()}/{word()}").future(b"", **options).exception
            if kind < 6:
                return channel.unary_unary(f"/millrace.v1.GenerationService/{word()}").future(b"", **options).exception
            if kind < 8:
                return stub.Tokenize.future(pb.TokenizeRequest(model=word(), text="x"), **options).exception
            if kind < 9:
                return stub.GetModelInfo.future(pb.GetModelInfoRequest(model=word()), **options).exception
            call = stub.Generate(request([rng.randrange(10, 4096)], max_new_tokens=rng.randrange(2), request_id=word(),
                                         cache=pb.CacheOptions(salt=word()), priority=rng.randrange(-10, 11)), **options)
            return lambda: list(call)  # a stream ends when it is read

        def run(calls):
            for begin in range(0, calls, 64):
                for finish in [one() for _ in range(min(64, calls - begin))]:
                    finish()
            return scrape(self.server)

        few = run(200)
        many = run(count)
        self.assertEqual(set(many.samples), set(few.samples))
        got = many.value("millrace_requests_total", method=GENERATE, code="OK")
        self.assertGreater(got, count / 20)
        self.assertLess(len(many.samples), 1000)


if __name__ == "__main__":
    main()
