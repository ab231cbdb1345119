"""What the end-to-end tests share: the real server process, generated stubs, metrics read over HTTP.

The tests are plain unittest files that run by themselves: python tests/e2e/generate_test.py [-v] [Case.test].
The binary is build/release/millrace unless MILLRACE_BINARY names another.
"""
import contextlib
import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.request

import grpc
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("MILLRACE_BINARY", ROOT / "build/release/millrace"))
MODEL = ROOT / "models/story-moe-q4_k_m.gguf"
LONG = bool(os.environ.get("MILLRACE_LONG"))
# Generous: a sanitized build on a busy machine. Nothing waits this long when things work.
START_SECONDS = 120
CALL_SECONDS = 120


def _stubs():
    """Generates and imports the Python stubs of our service and of grpc.health.v1."""
    out = tempfile.TemporaryDirectory(prefix="millrace-stubs-")
    includes = [(ROOT / "proto", "millrace/v1/generation.proto"), ("/usr/share/grpc-proto", "grpc/health/v1/health.proto")]
    for include, name in includes:
        # health.proto is generated under a name of its own: a package called grpc would hide grpcio.
        if name.startswith("grpc/"):
            flat = pathlib.Path(out.name) / "proto"
            flat.mkdir()
            (flat / "health.proto").write_text((pathlib.Path(include) / name).read_text())
            include, name = flat, "health.proto"
        if protoc.main(["protoc", f"-I{include}", f"--python_out={out.name}", f"--grpc_python_out={out.name}", name]):
            raise RuntimeError(f"protoc failed on {name}")
    sys.path.insert(0, out.name)
    modules = ["millrace.v1.generation_pb2", "millrace.v1.generation_pb2_grpc", "health_pb2", "health_pb2_grpc"]
    return (out, *map(importlib.import_module, modules))


_stub_folder, pb, pb_grpc, health_pb, health_grpc = _stubs()


class Server:
    """A millrace server of its own on free ports; a context manager that stops it."""

    def __init__(self, *flags, model=MODEL, wait=True, grpc_port=0, metrics_port=0, new_session=False,
                 binary=BINARY, env=None):
        self.log_file = tempfile.NamedTemporaryFile(prefix="millrace-log-", suffix=".txt")
        command = [binary, "serve", "--model", model, "--listen", f"127.0.0.1:{grpc_port}", "--metrics",
                   f"127.0.0.1:{metrics_port}", *flags]
        self.process = subprocess.Popen([part if isinstance(part, bytes) else str(part) for part in command], stdout=subprocess.PIPE, stderr=self.log_file,
                                        text=True, start_new_session=new_session, env=env)
        self.target = self.metrics_address = None
        self._channel = None
        if wait:
            self.wait_ready()

    def wait_ready(self):
        """Reads the ready line; fails with the log when the server ends or hangs before it."""
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        match = re.fullmatch(r"millrace ready grpc=(\S+) metrics=(\S+)\n", line)
        if not match:
            self.process.wait()
            raise RuntimeError(f"no ready line but {line!r}; log:\n{self.log()}")
        self.target, self.metrics_address = match.groups()
        return line

    def log(self):
        return pathlib.Path(self.log_file.name).read_text()

    @property
    def channel(self):
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.target)
        return self._channel

    @property
    def stub(self):
        return pb_grpc.GenerationServiceStub(self.channel)

    @property
    def health(self):
        return health_grpc.HealthStub(self.channel)

    def http(self, path):
        """(status, body) of a GET on the metrics port."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics_address}{path}", timeout=CALL_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """{name{labels}: value} of a scrape."""
        status, body = self.http("/metrics")
        assert status == 200, body
        samples = {}
        for line in body.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds=START_SECONDS):
        return self.process.wait(timeout=seconds)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self._channel is not None:
            self._channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log_file.close()


def request(prompt="Once upon a time", max_new_tokens=8, temperature=0.0, **fields):
    """A greedy request on a text, a list of ids or a pb.Chat; `fields` set whole sub-messages."""
    message = pb.GenerateRequest(**fields)
    if isinstance(prompt, str):
        message.text = prompt
    elif isinstance(prompt, pb.Chat):
        message.chat.CopyFrom(prompt)
    else:
        message.token_ids.ids.extend(prompt)
    if temperature is not None and not message.sampling.HasField("temperature"):
        message.sampling.temperature = temperature
    if max_new_tokens is not None and not message.stopping.HasField("max_new_tokens"):
        message.stopping.max_new_tokens = max_new_tokens
    return message


def chat(*texts):
    roles = ["user", "assistant"]
    return pb.Chat(messages=[pb.ChatMessage(role=roles[i % 2], content=text) for i, text in enumerate(texts)])


class Collected:
    """The whole of one stream."""

    def __init__(self, stream):
        self.messages = list(stream)
        self.text = "".join(m.text for m in self.messages)
        self.token_ids = [t for m in self.messages for t in m.token_ids]
        self.logprobs = [p for m in self.messages for p in m.logprobs]
        self.finishes = [m.finish for m in self.messages if m.HasField("finish")]
        self.usage = self.messages[-1].usage if self.messages else None
        self.prompt = [m.prompt for m in self.messages if m.HasField("prompt")]


def generate(server, *args, **kwargs):
    return Collected(server.stub.Generate(request(*args, **kwargs), timeout=CALL_SECONDS))


def run_cli(*arguments, **kwargs):
    """The finished process of `millrace ARGUMENTS`."""
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=CALL_SECONDS,
                          cwd=ROOT, **kwargs)


def generate_in_process(tokens, max_new_tokens=8, model=MODEL, **flags):
    """What `millrace generate --json` makes of the same tokens."""
    extra = [part for name, value in flags.items() for part in ("--" + name.replace("_", "-"), value)]
    done = run_cli("generate", "--model", model, "--tokens", ",".join(map(str, tokens)), "--max-new-tokens",
                   max_new_tokens, "--temperature", 0, "--json", *extra)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_blocks_free(case, server):
    """No block is held and nothing runs. A cancel on its way is given more commits to arrive at."""
    names = ['millrace_kv_blocks{state="used"}', "millrace_requests_running", "millrace_requests_waiting"]
    for _ in range(100):
        held = {name: server.metrics()[name] for name in names}
        if not any(held.values()):
            return
        generate(server)
    case.fail(f"still held: {held}")


def assert_conserved(case, metrics):
    """received = answered + in flight, for every method."""
    received = {k: v for k, v in metrics.items() if k.startswith("millrace_requests_received_total{")}
    case.assertTrue(received)
    for key, value in received.items():
        method = re.search(r'method="([^"]+)"', key).group(1)
        done = sum(v for k, v in metrics.items()
                   if k.startswith("millrace_requests_total{") and f'method="{method}"' in k)
        flying = metrics[f'millrace_requests_in_flight{{method="{method}"}}']
        case.assertEqual(value, done + flying, method)


@contextlib.contextmanager
def expect_status(case, *codes):
    """The body must end with a gRPC error of one of `codes`."""
    with case.assertRaises(grpc.RpcError) as caught:
        yield caught
    case.assertIn(caught.exception.code(), codes, caught.exception.details())


def main():
    unittest.main(verbosity=2)
