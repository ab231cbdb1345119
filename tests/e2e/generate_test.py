"""Generate over real gRPC against the real server process."""
import random
import signal
import subprocess
import threading
import time
import unittest

import grpc

from harness import (CALL_SECONDS, LONG, Server, assert_blocks_free, assert_conserved, chat, expect_status, generate,
                     generate_in_process, main, pb, request)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server())

    def test_streams_tokens_that_join_to_the_whole_text(self):
        done = generate(self.server, chat("Tell me a story about a bear named Pip."), max_new_tokens=40)
        # Tokens that come faster than they are written share a message.
        self.assertGreater(len(done.messages), 2)
        self.assertIn("Pip", done.text)
        self.assertEqual(len(done.finishes), 1)
        self.assertEqual(done.usage.completion_tokens, len(done.token_ids))
        decoded = self.server.stub.Detokenize(pb.DetokenizeRequest(token_ids=done.token_ids))
        self.assertEqual(done.text, decoded.text)

    def test_equals_the_command_line_on_the_same_tokens(self):
        tokens = list(self.server.stub.Tokenize(pb.TokenizeRequest(text="Once upon a time")).token_ids)
        done = generate(self.server, tokens, max_new_tokens=32)
        self.assertEqual(done.token_ids, generate_in_process(tokens, 32)["token_ids"])

    def test_does_not_depend_on_its_neighbours(self):
        prompts = [f"Tell me a story about a {a}." for a in ("fox", "bear", "robot", "kite", "girl", "boat", "cat")]
        alone = [generate(self.server, chat(p), max_new_tokens=48).token_ids for p in prompts]
        together = [None] * len(prompts)

        def run(i):
            together[i] = generate(self.server, chat(prompts[i]), max_new_tokens=48).token_ids

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(alone, together)

    def test_a_seed_makes_sampling_repeatable_and_seeds_differ(self):
        def run(seed):
            sampling = pb.SamplingParams(temperature=1.0, seed=seed)
            return generate(self.server, chat("Tell me a story."), temperature=None, max_new_tokens=24,
                            sampling=sampling).token_ids
        self.assertEqual(run(1), run(1))
        self.assertNotEqual(run(1), run(2))

    def test_a_chat_goes_on_without_computing_its_beginning_again(self):
        first = list(self.server.stub.Tokenize(pb.TokenizeRequest(
            chat=chat("Tell me a story about a whale and a lighthouse, and about the storm that they met."))).token_ids)
        answer = generate(self.server, first, max_new_tokens=64).token_ids
        second = first + answer + first  # any next turn
        without = generate(self.server, second, max_new_tokens=24, cache=pb.CacheOptions(bypass_prefix_cache=True))
        self.assertEqual(without.usage.cached_tokens, 0)
        apart = generate(self.server, second, max_new_tokens=24, cache=pb.CacheOptions(salt="another caller"))
        self.assertEqual(apart.usage.cached_tokens, 0)
        before = self.server.metrics()
        found = generate(self.server, second, max_new_tokens=24)
        # Of what was computed, which the last token of the answer was not, the full blocks of 32.
        self.assertEqual(found.usage.cached_tokens, (len(first) + len(answer) - 1) // 32 * 32)
        self.assertGreater(found.usage.cached_tokens, 32)
        self.assertEqual(found.token_ids, without.token_ids)
        self.assertEqual(found.token_ids, apart.token_ids)
        after = self.server.metrics()
        for name, more in (("queries", len(second)), ("hits", found.usage.cached_tokens)):
            name = f"millrace_prefix_cache_{name}_tokens_total"
            self.assertEqual(after[name] - before[name], more, name)

    def test_sigusr1_forgets_what_was_computed_and_running_streams_go_on(self):
        with Server() as server:
            prompt = list(range(5, 105))
            alone = generate(server, prompt, max_new_tokens=200).token_ids
            self.assertEqual(generate(server, prompt, max_new_tokens=1).usage.cached_tokens, 96)
            stream = server.stub.Generate(request(prompt, max_new_tokens=200))
            tokens = list(next(stream).token_ids)
            server.process.send_signal(signal.SIGUSR1)
            for _ in range(1000):
                if "prefix cache flushed" in server.log():
                    break
                self.assertEqual(server.http("/livez")[0], 200)
            else:
                self.fail("no word of a flush")
            self.assertEqual(generate(server, prompt, max_new_tokens=1).usage.cached_tokens, 0)
            for answer in stream:
                tokens += answer.token_ids
            self.assertEqual(tokens, alone)

    def test_max_new_tokens_zero_only_prefills(self):
        done = generate(self.server, max_new_tokens=0)
        self.assertEqual((done.text, done.token_ids), ("", []))
        self.assertEqual(done.finishes[0].reason, pb.FINISH_REASON_LENGTH)

    def test_ends_with_the_end_token_of_the_file(self):
        done = generate(self.server, chat("Hello!"), max_new_tokens=300)
        self.assertEqual(done.finishes[0].reason, pb.FINISH_REASON_STOP)
        self.assertEqual(done.finishes[0].eos_token_id, done.token_ids[-1])
        self.assertNotIn("<|im_end|>", done.text)

    def test_a_stop_string_is_never_half_sent(self):
        whole = generate(self.server, chat("Tell me a story about a fox."), max_new_tokens=60).text
        stop = whole[30:41]
        stopping = pb.StoppingCriteria(stop_strings=[stop], max_new_tokens=60)
        done = generate(self.server, chat("Tell me a story about a fox."), stopping=stopping)
        self.assertEqual(done.text, whole[:whole.index(stop)])
        self.assertEqual(done.finishes[0].stop_string, stop)
        stopping.include_stop_string = True
        done = generate(self.server, chat("Tell me a story about a fox."), stopping=stopping)
        self.assertEqual(done.text, whole[:whole.index(stop) + len(stop)])

    def test_logprobs_match_the_tokens_one_to_one(self):
        done = generate(self.server, max_new_tokens=6, output=pb.OutputOptions(logprobs=3))
        self.assertEqual([p.token_id for p in done.logprobs], done.token_ids)
        for entry in done.logprobs:
            self.assertEqual(len(entry.top), 3)
            self.assertEqual((entry.rank, entry.top[0].token_id), (1, entry.token_id))  # greedy
            self.assertLessEqual(entry.logprob, 0)

    def test_prompt_ids_come_back_on_request(self):
        done = generate(self.server, [5, 6, 7], output=pb.OutputOptions(prompt_token_ids=True))
        self.assertEqual([i for p in done.prompt for i in p.token_ids], [5, 6, 7])

    def test_a_chat_is_what_its_template_makes_of_it(self):
        rendered = self.server.stub.Tokenize(pb.TokenizeRequest(chat=chat("Hello!")))
        self.assertEqual(rendered.text, "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n")
        done = generate(self.server, chat("Hello!"), output=pb.OutputOptions(prompt_token_ids=True))
        self.assertEqual([i for p in done.prompt for i in p.token_ids], list(rendered.token_ids))

    def test_users_never_write_control_tokens(self):
        tokens = self.server.stub.Tokenize(pb.TokenizeRequest(chat=chat("<|im_end|>"))).token_ids
        self.assertEqual(sum(1 for t in tokens if t == 2), 1)  # the template's own

    def test_a_cancelled_stream_gives_its_blocks_back(self):
        call = self.server.stub.Generate(request(chat("Tell me a story."), max_new_tokens=500), timeout=CALL_SECONDS)
        next(iter(call))
        call.cancel()
        with expect_status(self, grpc.StatusCode.CANCELLED):
            list(call)
        assert_blocks_free(self, self.server)

    def test_a_deadline_ends_a_request(self):
        stopping = pb.StoppingCriteria(max_new_tokens=1900, ignore_eos=True)
        with expect_status(self, grpc.StatusCode.DEADLINE_EXCEEDED):
            list(self.server.stub.Generate(request(stopping=stopping), timeout=0.2))
        assert_blocks_free(self, self.server)

    def test_a_live_request_id_is_taken(self):
        stopping = pb.StoppingCriteria(max_new_tokens=1500, ignore_eos=True)
        call = self.server.stub.Generate(request(request_id="twice", stopping=stopping), timeout=CALL_SECONDS)
        self.assertEqual(next(iter(call)).request_id, "twice")
        with expect_status(self, grpc.StatusCode.ALREADY_EXISTS):
            generate(self.server, request_id="twice")
        call.cancel()

    def test_model_facts_and_load_are_told(self):
        info = self.server.stub.GetModelInfo(pb.GetModelInfoRequest())
        self.assertEqual((info.architecture, info.vocab_size, info.layers, info.experts, info.experts_per_token),
                         ("qwen3moe", 4096, 6, 16, 4))
        self.assertTrue(info.batch_invariant)
        load = self.server.stub.GetLoad(pb.GetLoadRequest())
        self.assertEqual(load.state, pb.SERVER_STATE_SERVING)
        self.assertGreater(load.kv_blocks_total, 0)

    def test_metrics_count_every_request_once(self):
        generate(self.server)
        with expect_status(self, INVALID):
            generate(self.server, [])
        metrics = self.server.metrics()
        assert_conserved(self, metrics)
        self.assertGreater(metrics["millrace_generated_tokens_total"], 0)
        self.assertIn("vllm:num_requests_waiting", {k.split("{")[0] for k in metrics})


class EveryTypeOfCache(unittest.TestCase):
    def test_tells_a_story_in_a_cache_of_its_bytes(self):
        for dtype, bytes_per_token in (("f32", 6144), ("f16", 3072), ("q8_0", 1632), ("fp8", 1536)):
            with self.subTest(dtype), Server("--kv-dtype", dtype) as server:
                info = server.stub.GetModelInfo(pb.GetModelInfoRequest())
                self.assertEqual(info.kv_bytes_per_token, bytes_per_token)
                prompt = chat("Tell me a story about a bear named Pip. " * 4)
                first, again = (generate(server, prompt, max_new_tokens=60) for _ in range(2))
                self.assertIn("Pip", first.text)
                self.assertGreater(again.usage.cached_tokens, 0)  # reads what the first one wrote
                self.assertEqual(first.token_ids, again.token_ids)


class BadRequests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server())

    def refused(self, code, field, **fields):
        with expect_status(self, code) as caught:
            generate(self.server, **fields)
        self.assertIn(field, caught.exception.details())

    def test_every_range_names_its_field(self):
        nan, inf = float("nan"), float("inf")
        for field, values in {"temperature": [-0.1, nan, inf], "top_p": [0.0, -1.0, 1.01, nan], "min_p": [-0.1, 1.1, nan],
                              "repetition_penalty": [0.0, -1.0, nan], "presence_penalty": [-2.1, 2.1, nan],
                              "frequency_penalty": [-2.1, 2.1, inf], "num_sequences": [0, 129],
                              "logit_bias": [{4096: 1.0}, {1: nan}], "allowed_token_ids": [[4096]]}.items():
            for value in values:
                with self.subTest(field=field, value=value):
                    self.refused(INVALID, field, temperature=None, sampling=pb.SamplingParams(**{field: value}))

    def test_prompts_and_limits_are_checked(self):
        self.refused(INVALID, "prompt", prompt=[])
        self.refused(INVALID, "prompt", prompt="")
        self.refused(INVALID, "token_ids", prompt=[4096])
        self.refused(INVALID, "context", prompt=[1] * 2049)
        self.refused(INVALID, "max_new_tokens", prompt=[1] * 10, max_new_tokens=2040)
        self.refused(INVALID, "logprobs", output=pb.OutputOptions(logprobs=21))
        self.refused(INVALID, "stop_token_ids", stopping=pb.StoppingCriteria(stop_token_ids=[4096]))
        self.refused(INVALID, "stop_strings", stopping=pb.StoppingCriteria(stop_strings=[""]))
        self.refused(INVALID, "priority", priority=11)
        self.refused(INVALID, "min_new_tokens", stopping=pb.StoppingCriteria(min_new_tokens=9, max_new_tokens=8))
        with expect_status(self, INVALID):
            list(self.server.stub.Generate(pb.GenerateRequest(), timeout=CALL_SECONDS))
        with expect_status(self, grpc.StatusCode.NOT_FOUND):
            generate(self.server, model="another")

    def test_what_is_not_built_yet_is_named(self):
        for field, value in {"json_schema": "{}", "regex": "a", "grammar": "a", "choice": pb.StringList(values=["a"])}.items():
            with self.subTest(field=field):
                self.refused(UNIMPLEMENTED, field, sampling=pb.SamplingParams(**{field: value}))
        self.refused(UNIMPLEMENTED, "prompt_logprobs", output=pb.OutputOptions(prompt_logprobs=1))
        with expect_status(self, UNIMPLEMENTED):
            list(self.server.stub.Resume(pb.ResumeRequest(request_id="x")))

    def test_bytes_that_are_no_message_do_not_hurt_the_server(self):
        call = self.server.channel.unary_stream("/millrace.v1.GenerationService/Generate")
        rng = random.Random(7)
        for _ in range(50):
            with expect_status(self, INVALID, UNIMPLEMENTED):
                list(call(b"\xff" + rng.randbytes(rng.randrange(1, 200)), timeout=CALL_SECONDS))
        self.assertTrue(generate(self.server).token_ids)


class Pressure(unittest.TestCase):
    def test_a_full_queue_refuses_and_recovers(self):
        with Server("--max-num-seqs", 1, "--max-queue", 2) as server:
            stopping = pb.StoppingCriteria(max_new_tokens=1500, ignore_eos=True)
            running = server.stub.Generate(request(stopping=stopping), timeout=CALL_SECONDS)
            next(m for m in running if m.token_ids)  # it has the only place
            waiting = [server.stub.Generate(request(), timeout=CALL_SECONDS) for _ in range(6)]
            codes = []
            refused_first = threading.Event()

            def collect(call):
                try:
                    list(call)
                    codes.append(grpc.StatusCode.OK)
                except grpc.RpcError as error:
                    codes.append(error.code())
                    refused_first.set()

            threads = [threading.Thread(target=collect, args=(call,)) for call in waiting]
            for thread in threads:
                thread.start()
            self.assertTrue(refused_first.wait(CALL_SECONDS))
            running.cancel()
            for thread in threads:
                thread.join()
            self.assertEqual(codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED), 4)
            self.assertEqual(codes.count(grpc.StatusCode.OK), 2)
            self.assertTrue(generate(server).token_ids)

    def test_a_reader_that_never_reads_harms_only_itself(self):
        # A tiny window, so that flow control stops the stream after a few messages.
        options = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]
        with Server() as server, grpc.insecure_channel(server.target, options) as channel:
            stopping = pb.StoppingCriteria(max_new_tokens=1900, ignore_eos=True)
            slow = type(server.stub)(channel).Generate(request(stopping=stopping), timeout=CALL_SECONDS)
            done = [generate(server, chat("Tell me a story."), max_new_tokens=64) for _ in range(5)]
            self.assertTrue(all(d.token_ids == done[0].token_ids for d in done))
            slow.cancel()
            assert_blocks_free(self, server)

    def test_five_hundred_random_cancels_leave_nothing(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        rng = random.Random(seed)
        with Server("--max-queue", 1000) as server:
            statuses = []
            lock = threading.Lock()

            def one(after):
                stopping = pb.StoppingCriteria(max_new_tokens=24, ignore_eos=True)
                call = server.stub.Generate(request(chat("Tell me a story."), stopping=stopping), timeout=CALL_SECONDS)
                try:
                    for count, _ in enumerate(call):
                        if count == after:
                            call.cancel()
                    code = grpc.StatusCode.OK
                except grpc.RpcError as error:
                    code = error.code()
                with lock:
                    statuses.append(code)

            # The promise is twenty rounds; the short suite has time for one.
            for _ in range(20 if LONG else 1):
                plans = [rng.randrange(24) if rng.random() < 0.3 else None for _ in range(500)]
                for begin in range(0, len(plans), 50):
                    threads = [threading.Thread(target=one, args=(plan,)) for plan in plans[begin:begin + 50]]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
                self.assertEqual(len(statuses), 500)
                self.assertLessEqual(set(statuses), {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED})
                statuses.clear()
                assert_blocks_free(self, server)
                metrics = server.metrics()
                assert_conserved(self, metrics)
                self.assertEqual(metrics['millrace_requests_in_flight{method="Generate"}'], 0)


if __name__ == "__main__":
    main()
