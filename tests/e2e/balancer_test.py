"""The real Envoy with the configuration of deploy/envoy in front of three real servers."""
import collections
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import unittest

import grpc

from envoy import Authority, Envoy, wait_until
from harness import CALL_SECONDS, LONG, ROOT, Collected, Server, assert_conserved, expect_status, main, pb, pb_grpc, request

SERVERS = 3
# Two cores, three servers, Envoy and the callers: a thread each.
FLAGS = ["--threads", 1, "--log-level", "warning", "--gateway", "127.0.0.0/8"]
# Takes a second alone: long after its first message a stream of so many tokens still runs. (The context is 2 048.)
LONG_STREAM = 1900
# Streams open at once to see how they are shared out: 80 for each server, of which it runs 64.
WAVE = 240
METHOD = "/millrace.v1.GenerationService/"
TENANT = "x-gateway-inference-fairness-id"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def received(server, method="Generate"):
    return int(server.metrics().get(f'millrace_requests_received_total{{method="{method}"}}', 0))


def in_flight(server):
    return int(server.metrics()['millrace_requests_in_flight{method="Generate"}'])


def tokens(count):
    return pb.StoppingCriteria(max_new_tokens=count, ignore_eos=True)


def own_channel(target, credentials=None):
    """A channel with a connection of its own (Envoy's workers share out connections) that does not wait long for a balancer."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50),
               ("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)


class Cluster:
    """Three servers that can be stopped and come back on the same ports."""

    def __init__(self, *flags, servers=SERVERS):
        self.flags = [*FLAGS, *flags]
        self.servers = [Server(*self.flags) for _ in range(servers)]

    @property
    def targets(self):
        return [server.target for server in self.servers]

    def start_again(self, at):
        """The server that has ended, as a new process on its port."""
        old = self.servers[at]
        port = old.target.rpartition(":")[2]
        old.__exit__()
        self.servers[at] = Server(*self.flags, grpc_port=port)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for server in self.servers:
            server.__exit__()


class Load:
    """Callers that call without a pause until the end of the `with`, over a few connections that live as long."""

    def __init__(self, target, callers=8, channels=4, **fields):
        self.channels = [own_channel(target) for _ in range(channels)]
        self.fields = fields or {"max_new_tokens": 16}
        self.done, self.errors = 0, []
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(self.channels[i % channels], i)) for i in range(callers)]

    def _call(self, channel, seed):
        stub = pb_grpc.GenerationServiceStub(channel)
        while not self._stop.is_set():
            try:
                got = Collected(stub.Generate(request([seed + 1, 2, 3], **self.fields), timeout=CALL_SECONDS))
                error = None if got.finishes else "no finish"
            except grpc.RpcError as caught:
                error = f"{caught.code().name}: {caught.details()}"
            with self._lock:
                self.done += 1
                if error:
                    self.errors.append(error)

    def wait_more(self, calls):
        wanted = self.done + calls
        wait_until(f"{calls} more calls", lambda: self.done >= wanted)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for channel in self.channels:
            channel.close()


class Stream:
    """A Generate call that is read in a thread: `started` at its first message, `error` or `collected` at its end."""

    def __init__(self, stub, count, prompt=(1, 2, 3), **metadata):
        self.started, self.error, self.collected = threading.Event(), None, None
        self.call = stub.Generate(request(list(prompt), stopping=tokens(count)), timeout=CALL_SECONDS, **metadata)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        messages = []
        try:
            for message in self.call:
                messages.append(message)
                if message.token_ids:
                    self.started.set()
            self.collected = Collected(messages)
        except grpc.RpcError as error:
            self.error = error
        self.started.set()

    def join(self):
        self._thread.join(CALL_SECONDS)
        assert not self._thread.is_alive(), "the stream has no end"
        return self


class Balancer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.authority = Authority(cls.folder / "authority")
        certificate, key = cls.authority.sign("balancer")
        cls.cluster = cls.enterClassContext(Cluster())
        cls.envoy = cls.enterClassContext(
            Envoy(cls.cluster.targets, cert=certificate, key=key, ca=cls.authority.certificate))
        cls.channel = cls.enterClassContext(contextlib.closing(own_channel(cls.envoy.target)))
        cls.stub = pb_grpc.GenerationServiceStub(cls.channel)

    def setUp(self):
        self.envoy.wait_healthy(*self.cluster.targets)

    def received(self):
        return [received(server) for server in self.cluster.servers]

    def test_the_configuration_is_valid_and_uses_nothing_deprecated(self):
        done = self.envoy.validate()
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertNotIn("eprecated", done.stdout)

    def assert_even(self, counts):
        for count in counts:
            self.assertAlmostEqual(count, sum(counts) / SERVERS, delta=0.1 * sum(counts) / SERVERS, msg=counts)

    def test_load_is_even_within_ten_percent(self):
        """Load is what is open at once. (Calls of a closed loop also follow how fast each server happens to be.)"""
        before = self.received()
        waves = []
        with own_channel(self.envoy.target) as other:
            stubs = [self.stub, pb_grpc.GenerationServiceStub(other)]
            # Streams that wait for Envoy's first connection to a server do not count yet, so a cold burst is less even.
            for stub in stubs * 12:
                stub.GetLoad(pb.GetLoadRequest())
            for _ in range(100 if LONG else 5):
                streams = [stubs[i % 2].Generate(request([i + 1], stopping=tokens(1500))) for i in range(WAVE)]
                wait_until("all streams are open", lambda: sum(map(in_flight, self.cluster.servers)) == WAVE)
                waves.append([in_flight(server) for server in self.cluster.servers])
                for stream in streams:
                    stream.cancel()
                wait_until("all streams are gone", lambda: not any(map(in_flight, self.cluster.servers)))
        calls = [after - b for after, b in zip(self.received(), before)]
        print(f"open on each server: {waves}; calls: {calls}")
        for counts in [*waves, calls]:
            self.assert_even(counts)

    def test_a_killed_server_breaks_only_its_own_streams_and_none_is_repeated(self):
        before = self.received()
        # Two connections: both of Envoy's workers may have streams on the victim.
        with own_channel(self.envoy.target) as other:
            stubs = [self.stub, pb_grpc.GenerationServiceStub(other)]
            streams = [Stream(stubs[i % 2], 256, prompt=[i + 1, 7]) for i in range(64)]
            for stream in streams:
                self.assertTrue(stream.started.wait(CALL_SECONDS))
            on_each = [in_flight(server) for server in self.cluster.servers]
            self.assertEqual(sum(on_each), 64, "all streams are open")
            victim = max(range(SERVERS), key=lambda i: on_each[i])
            self.cluster.servers[victim].process.kill()
            broken = [s for s in streams if s.join().error]
            print(f"streams of each server: {on_each}; broken: {collections.Counter(s.error.code().name for s in broken)}")
            self.assertEqual(len(broken), on_each[victim])
            for stream in broken:
                self.assertIn(stream.error.code(), [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL], stream.error.details())
            for stream in streams:
                if not stream.error:
                    self.assertEqual(len(stream.collected.token_ids), 256)
            survivors = [i for i in range(SERVERS) if i != victim]
            for i in survivors:
                self.assertEqual(received(self.cluster.servers[i]) - before[i], on_each[i], "a started stream was repeated")
            # Its place is found empty, and everything succeeds.
            for stub in stubs * 30:
                self.assertEqual(len(Collected(stub.Generate(request([5, 6], stopping=tokens(4)))).token_ids), 4)
        target = self.cluster.servers[victim].target
        wait_until("the killed server is out", lambda: target not in self.envoy.healthy())
        self.cluster.start_again(victim)
        self.envoy.wait_healthy(target)
        # Nor did Envoy count a second attempt for any of the broken ones.
        for line in self.envoy.access_log():
            if line["server"] == target and line["flags"] not in (None, "-") and line["bytes_out"]:
                self.assertEqual(line["attempts"], 1, line)

    def test_a_rolling_restart_under_load_loses_nothing(self):
        rounds = 50 if LONG else 1
        with Load(self.envoy.target) as load:
            for _ in range(rounds):
                for at in range(SERVERS):
                    server = self.cluster.servers[at]
                    load.wait_more(20)
                    server.terminate()
                    self.assertEqual(server.wait(), 0, server.log())
                    load.wait_more(20)
                    self.cluster.start_again(at)
                    self.envoy.wait_healthy(server.target)
            load.wait_more(60)
            self.assertTrue(all(self.received()), "the new servers are used")
        retries = self.envoy.stats("cluster.millrace.upstream_rq_retry$")
        print(f"{rounds} rolling restarts, {load.done} calls, {len(load.errors)} errors, {retries}")
        self.assertEqual(load.errors, [])
        for server in self.cluster.servers:
            assert_conserved(self, server.metrics())

    def test_refusals_of_a_draining_server_are_tried_elsewhere(self):
        """With an Envoy that asks so rarely for health that it keeps choosing the draining one."""
        server = self.cluster.servers[0]
        with Envoy(self.cluster.targets, health_interval=3600) as envoy, own_channel(envoy.target) as channel:
            stub = pb_grpc.GenerationServiceStub(channel)
            held = [Stream(server.stub, 2000, prompt=[i + 1]) for i in range(8)]
            for stream in held:
                self.assertTrue(stream.started.wait(CALL_SECONDS))
            server.terminate()
            wait_until("draining", lambda: server.stub.GetLoad(pb.GetLoadRequest()).state == pb.SERVER_STATE_DRAINING)
            for _ in range(30):
                self.assertEqual(len(Collected(stub.Generate(request([5, 6], stopping=tokens(2)))).token_ids), 2)
            refused = int(server.metrics()['millrace_sheds_total{cause="draining"}'])
            retried = envoy.stats("cluster.millrace.upstream_rq_retry_success")["cluster.millrace.upstream_rq_retry_success"]
            self.assertGreater(refused, 0)
            self.assertEqual(retried, refused)
            for stream in held:
                stream.call.cancel()
                stream.join()
            self.assertEqual(server.wait(), 0, server.log())
        self.cluster.start_again(0)

    def test_a_full_queue_is_the_callers_to_hear_of_and_is_not_tried_again(self):
        with Cluster("--max-num-seqs", 1, "--max-queue", 1, servers=2) as small, Envoy(small.targets) as envoy, \
                own_channel(envoy.target) as channel:
            stub = pb_grpc.GenerationServiceStub(channel)
            streams = [Stream(stub, 200, prompt=[i + 1]) for i in range(12)]
            refused = [s.error for s in streams if s.join().error]
            self.assertGreater(len(refused), 0)
            for error in refused:
                self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED, error.details())
                self.assertGreaterEqual(int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]), 0)
            self.assertEqual(sum(received(server) for server in small.servers), 12, "a refused call was sent twice")
            self.assertEqual(envoy.stats("upstream_rq_retry$")["cluster.millrace.upstream_rq_retry"], 0)

    def test_what_callers_do_wrong_ejects_no_server(self):
        # One kind after the other: an outlier is who errs some times in a row.
        for _ in range(40):
            with expect_status(self, grpc.StatusCode.UNIMPLEMENTED):
                list(self.stub.Resume(pb.ResumeRequest(request_id="x")))
        for _ in range(20):
            with expect_status(self, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED):
                list(self.stub.Generate(request([1], stopping=tokens(2000)), timeout=0.02))
        self.assertEqual(self.envoy.healthy(), set(self.cluster.targets))
        ejected = self.envoy.stats("cluster.millrace.outlier_detection.ejections_active")
        self.assertEqual(ejected, {"cluster.millrace.outlier_detection.ejections_active": 0})

    def http(self, method, body, context=None, headers=(), raw=False):
        """The answer to a POST, and its connection, which the caller closes."""
        host = self.envoy.tls_target if context else self.envoy.target
        kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
        connection = kind(host, timeout=CALL_SECONDS, **({"context": context} if context else {}))
        connection.request("POST", METHOD + method, body if raw else json.dumps(body),
                           {"content-type": "application/json", **dict(headers)})
        return connection.getresponse(), connection

    def test_json_is_answered_in_json(self):
        answer, connection = self.http("Tokenize", {"text": "Once upon a time"})
        with contextlib.closing(connection):
            self.assertEqual(answer.status, 200)
            wanted = self.stub.Tokenize(pb.TokenizeRequest(text="Once upon a time"))
            self.assertEqual(json.load(answer)["token_ids"], list(wanted.token_ids))
        answer, connection = self.http("Generate", {"text": "Once", "sampling": {"temperature": -1}})
        with contextlib.closing(connection):
            self.assertEqual(answer.status, 400)
            error = json.load(answer)
            self.assertEqual(error["code"], grpc.StatusCode.INVALID_ARGUMENT.value[0])
            self.assertIn("temperature", error["message"])

    def test_a_stream_in_json_comes_line_by_line_while_it_is_generated(self):
        body = {"text": "Once upon a time", "sampling": {"temperature": 0},
                "stopping": {"max_new_tokens": LONG_STREAM, "ignore_eos": True}}
        answer, connection = self.http("Generate", body)
        with contextlib.closing(connection):
            self.assertEqual(answer.status, 200)
            first = json.loads(answer.readline())
            self.assertEqual(sum(in_flight(server) for server in self.cluster.servers), 1, "the first line came before the end")
            messages = [first, *map(json.loads, answer)]
        text = "".join(m.get("text", "") for m in messages)
        self.assertEqual(text, generate_through(self.stub, "Once upon a time", LONG_STREAM).text)
        self.assertEqual(messages[-1]["usage"]["completion_tokens"], LONG_STREAM)

    def test_a_caller_that_leaves_ends_its_stream_at_the_server(self):
        body = {"text": "Once", "stopping": {"max_new_tokens": 2000, "ignore_eos": True}}
        def cancelled():
            return sum(value for server in self.cluster.servers for key, value in server.metrics().items()
                       if key.startswith("millrace_requests_total{") and 'code="CANCELLED"' in key and 'method="Generate"' in key)

        before = cancelled()
        answer, connection = self.http("Generate", body)
        answer.readline()
        connection.sock.close()
        answer.close()
        connection.close()
        wait_until("the server has heard of it", lambda: cancelled() == before + 1)

    def test_a_browser_speaks_grpc_web(self):
        message = request("Once upon a time", max_new_tokens=8).SerializeToString()
        headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "https://chat.example.com"}
        answer, connection = self.http("Generate", struct.pack(">BI", 0, len(message)) + message, headers=headers, raw=True)
        with contextlib.closing(connection):
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.getheader("access-control-allow-origin"), "https://chat.example.com")
            body = answer.read()
        messages, trailers = [], None
        while body:
            kind, size = struct.unpack(">BI", body[:5])
            frame, body = body[5:5 + size], body[5 + size:]
            if kind & 0x80:
                trailers = frame.decode()
            else:
                messages.append(pb.GenerateResponse.FromString(frame))
        self.assertRegex(trailers, r"(?m)^grpc-status: ?0\r?$")
        self.assertEqual(Collected(messages).text, generate_through(self.stub, "Once upon a time", 8).text)

    def test_a_web_page_of_elsewhere_is_not_allowed(self):
        for origin, allowed in [("https://chat.example.com", "https://chat.example.com"), ("https://elsewhere.example", None)]:
            connection = http.client.HTTPConnection(self.envoy.target, timeout=CALL_SECONDS)
            with contextlib.closing(connection):
                connection.request("OPTIONS", METHOD + "Generate", headers={
                    "origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "x-grpc-web"})
                self.assertEqual(connection.getresponse().getheader("access-control-allow-origin"), allowed)

    def credentials(self, authority, name):
        certificate, key = authority.sign(name)
        return grpc.ssl_channel_credentials(self.authority.certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())

    def test_only_a_caller_with_a_certificate_of_the_authority_is_served_and_it_is_the_tenant(self):
        with own_channel(self.envoy.tls_target, self.credentials(self.authority, "alice")) as channel:
            stub = pb_grpc.GenerationServiceStub(channel)
            forged = [(TENANT, "bob")]
            self.assertEqual(len(Collected(stub.Generate(request([1, 2], stopping=tokens(3)), metadata=forged)).token_ids), 3)
        line = self.envoy.wait_logged(1, tenant="CN=alice")[0]
        self.assertEqual((line["grpc_status"], line["path"]), ("OK", METHOD + "Generate"))
        stranger = Authority(self.folder / "stranger", "somebody else")
        nobody = grpc.ssl_channel_credentials(self.authority.certificate.read_bytes())
        for credentials in [nobody, self.credentials(stranger, "mallory")]:
            with own_channel(self.envoy.tls_target, credentials) as channel, expect_status(self, grpc.StatusCode.UNAVAILABLE):
                pb_grpc.GenerationServiceStub(channel).GetLoad(pb.GetLoadRequest())
        # And over HTTP/1.1 with JSON.
        context = ssl.create_default_context(cafile=self.authority.certificate)
        with self.assertRaises(OSError):
            self.http("GetLoad", {}, context)
        context.load_cert_chain(*self.authority.sign("carol"))
        answer, connection = self.http("GetLoad", {}, context)
        with contextlib.closing(connection):
            self.assertEqual((answer.status, json.load(answer)["state"]), (200, "SERVER_STATE_SERVING"))

    def test_old_connections_move_to_a_new_balancer_and_their_streams_end_in_peace(self):
        """Two Envoys on one port share its connections as those behind an L4 balancer do, and only a new connection can choose."""
        channels = []
        with Envoy(self.cluster.targets, connection_age=0.5) as old, contextlib.ExitStack() as stack:
            for _ in range(16):
                channels.append(stack.enter_context(own_channel(old.target)))
            stubs = [pb_grpc.GenerationServiceStub(channel) for channel in channels]
            calls = 0
            for stub in stubs:
                stub.GetLoad(pb.GetLoadRequest(), timeout=CALL_SECONDS)  # they connect while there is one
            with Envoy(self.cluster.targets, plain=old.target, connection_age=3600) as new:
                streams = [Stream(stub, 1000, prompt=[1 + i]) for i, stub in enumerate(stubs[:2])]

                def moved():
                    nonlocal calls
                    for stub in stubs:
                        stub.GetLoad(pb.GetLoadRequest(), timeout=CALL_SECONDS)
                        calls += 1
                    return new.stats("http.clients.downstream_cx_active")["http.clients.downstream_cx_active"] >= 4
                wait_until("connections have moved", moved)
                aged = old.stats("http.clients.downstream_cx_max_duration_reached")
                self.assertGreater(sum(aged.values()), 0)
                for stream in streams:
                    self.assertIsNone(stream.join().error)
                    self.assertEqual(len(stream.collected.token_ids), 1000)
                print(f"{calls} calls over 16 channels, none failed; {aged}")


class OtherBalancers(unittest.TestCase):
    """nginx and HAProxy with the configurations of deploy/: valid, and they pass on calls and streams."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.authority = Authority(cls.folder / "authority")
        cls.certificate, cls.key = cls.authority.sign("balancer")
        cls.cluster = cls.enterClassContext(Cluster())
        cls.port = free_port()

    def configure(self, name, replacements):
        """A copy of deploy/NAME, with what must be another here; every text that is replaced is there, once."""
        text = (ROOT / "deploy" / name).read_text()
        for old, new in replacements.items():
            self.assertEqual(text.count(old), 1, old)
            text = text.replace(old, str(new))
        path = self.folder / pathlib.Path(name).name
        path.write_text(text)
        return path

    def program(self, name):
        found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
        if not found:
            self.skipTest(f"the package {name} is not installed; run tools/setup --tests")
        return found

    def check_calls(self, *command):
        """Runs the balancer, which stays in the foreground, and calls through it."""
        certificate, key = self.authority.sign("alice")
        credentials = grpc.ssl_channel_credentials(self.authority.certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with own_channel(f"127.0.0.1:{self.port}", credentials) as channel:
                stub = pb_grpc.GenerationServiceStub(channel)
                info = stub.GetModelInfo(pb.GetModelInfoRequest(), wait_for_ready=True, timeout=CALL_SECONDS)
                self.assertEqual(info.vocab_size, self.cluster.servers[0].stub.GetModelInfo(pb.GetModelInfoRequest()).vocab_size)
                stream = stub.Generate(request([1, 2], stopping=tokens(LONG_STREAM)), timeout=CALL_SECONDS)
                first = next(stream)
                self.assertEqual(sum(in_flight(server) for server in self.cluster.servers), 1, "the first message came before the end")
                self.assertEqual(sum(len(m.token_ids) for m in [first, *stream]), LONG_STREAM)
            with own_channel(f"127.0.0.1:{self.port}", grpc.ssl_channel_credentials(self.authority.certificate.read_bytes())) as channel:
                with self.assertRaises(grpc.RpcError):
                    pb_grpc.GenerationServiceStub(channel).GetLoad(pb.GetLoadRequest(), timeout=CALL_SECONDS)
        finally:
            process.terminate()
            process.wait()

    def test_nginx_passes_on_calls_and_streams_of_callers_with_a_certificate(self):
        nginx = self.program("nginx")
        paths = "".join(f"\n    {kind}_temp_path {self.folder}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        config = self.configure("nginx/nginx.conf", {
            "http {": "http {" + paths, "listen 8443 ": f"listen 127.0.0.1:{self.port} ",
            "/etc/nginx/tls/tls.crt": self.certificate, "/etc/nginx/tls/tls.key": self.key,
            "/etc/nginx/tls/ca.crt": self.authority.certificate, "/var/log/nginx/millrace.log": self.folder / "nginx.log",
            **{f"127.0.0.1:{50051 + i}": target for i, target in enumerate(self.cluster.targets)}})
        flags = ["-c", config, "-e", "stderr", "-g", f"daemon off; pid {self.folder}/nginx.pid;"]
        done = subprocess.run([nginx, "-t", *flags], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check_calls(nginx, *flags)

    def test_haproxy_passes_on_calls_and_streams_of_callers_with_a_certificate(self):
        haproxy = self.program("haproxy")
        both = self.folder / "server.pem"
        both.write_text(self.certificate.read_text() + self.key.read_text())
        servers = {f"127.0.0.1:{50051 + i} port {9401 + i}": f"{server.target} port {server.metrics_address.rpartition(':')[2]}"
                   for i, server in enumerate(self.cluster.servers)}
        config = self.configure("haproxy/haproxy.cfg", {
            "0.0.0.0:8443": f"127.0.0.1:{self.port}", "/etc/haproxy/tls/server.pem": both,
            "/etc/haproxy/tls/ca.crt": self.authority.certificate, **servers})
        done = subprocess.run([haproxy, "-c", "-f", config], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("WARNING", done.stderr)
        self.check_calls(haproxy, "-db", "-f", config)


def generate_through(stub, prompt, count):
    return Collected(stub.Generate(request(prompt, stopping=tokens(count)), timeout=CALL_SECONDS))


if __name__ == "__main__":
    main()
