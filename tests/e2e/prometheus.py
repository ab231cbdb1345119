"""Real Prometheus and Alertmanager processes on the files of deploy/prometheus, hurried up for tests.

What is hurried: scrapes and evaluations several times a second, `for` and the windows of the rules cut to seconds, and
Alertmanager sends at once. Names, expressions, labels, annotations and routes are those of the files.
"""
import http.server
import json
import pathlib
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import yaml

from harness import CALL_SECONDS, ROOT

DEPLOY = ROOT / "deploy/prometheus"
SCRAPE_SECONDS = 0.2
# Ten scrapes: rates are steady and come soon.
WINDOW = "2s"


class Tool:
    """A process that says on stderr where it listens; a context manager that ends it."""

    def __init__(self, *command):
        if shutil.which(command[0]) is None:
            raise RuntimeError(f"{command[0]} is missing: tools/setup --tests installs it")
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        lines, self.address = [], None
        for line in self.process.stderr:
            lines.append(line)
            match = re.search(r'msg="Listening on" address=(\S+)', line)
            if match:
                self.address = match.group(1)
                break
        if self.address is None:
            raise RuntimeError(f"{command[0]} ended:\n" + "".join(lines))
        # Its pipe must not fill.
        self._reader = threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True)
        self._reader.start()
        self.wait(lambda: self.get("/-/ready") is not None, f"{command[0]} to be ready")

    def get(self, path, **query):
        """The body of the answer, or None when it is an error."""
        url = f"http://{self.address}{path}" + ("?" + urllib.parse.urlencode(query, doseq=True) if query else "")
        try:
            with urllib.request.urlopen(url, timeout=CALL_SECONDS) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 400:
                raise RuntimeError(f"{url}: {error.read().decode()}") from error
            return None

    @staticmethod
    def wait(condition, what):
        """What `condition` returns, once it is something; it asks the process each time."""
        give_up = time.monotonic() + CALL_SECONDS
        while time.monotonic() < give_up:
            value = condition()
            if value:
                return value
            time.sleep(SCRAPE_SECONDS / 4)  # nothing changes sooner
        raise RuntimeError(f"waited in vain for {what}")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()


class Prometheus(Tool):
    """Scrapes `targets`, a list of HOST:PORT, as deploy/prometheus/prometheus.yml says."""

    def __init__(self, targets, alertmanager=None, hurry=True):
        self.folder = tempfile.TemporaryDirectory(prefix="millrace-prometheus-")
        root = pathlib.Path(self.folder.name)
        config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        often = f"{int(SCRAPE_SECONDS * 1000)}ms"
        config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), often)
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager] if alertmanager else []
        (root / "prometheus.yml").write_text(yaml.safe_dump(config))
        (root / "rules").mkdir()
        for path in (DEPLOY / "rules").iterdir():
            (root / "rules" / path.name).write_text(hurry_rules(path.read_text()) if hurry else path.read_text())
        self.set_targets(targets)
        super().__init__("prometheus", f"--config.file={root}/prometheus.yml", f"--storage.tsdb.path={root}/data",
                         "--web.listen-address=127.0.0.1:0")

    def set_targets(self, targets):
        """Takes effect at once: Prometheus watches the file."""
        path = pathlib.Path(self.folder.name) / "targets.yml"
        fresh = path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump([{"targets": targets}]))
        fresh.rename(path)

    def query(self, expression):
        """[(labels, value)] as of now."""
        data = json.loads(self.get("/api/v1/query", query=expression))["data"]
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]

    def alerts(self):
        """[labels] of those that fire."""
        found = json.loads(self.get("/api/v1/alerts"))["data"]["alerts"]
        return [alert["labels"] for alert in found if alert["state"] == "firing"]

    def __exit__(self, *unused):
        super().__exit__(*unused)
        self.folder.cleanup()


def hurry_rules(text):
    """The rules with every window WINDOW long and without `for`."""
    text = re.sub(r"\[\w+\]", f"[{WINDOW}]", text)
    return re.sub(r"(?m)^( +for:) \w+$", r"\1 0s", text)


def substitute(expression):
    """A panel's expression as Grafana sends it when all jobs and instances are chosen."""
    for variable, value in (("$__rate_interval", WINDOW), ("$__range", "1m"), ("$job", ".+"), ("$instance", ".+")):
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression


class Receiver:
    """Where Alertmanager's webhook goes: a queue of the alerts that come in."""

    def __init__(self):
        alerts = self.alerts = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in message["alerts"]:
                    alerts.put(alert)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *unused):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/alerts"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self, name, status):
        """The next alert of this name and status ("firing" or "resolved")."""
        give_up = time.monotonic() + CALL_SECONDS
        while True:
            alert = self.alerts.get(timeout=max(0.0, give_up - time.monotonic()))
            if (alert["labels"]["alertname"], alert["status"]) == (name, status):
                return alert

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.server.shutdown()
        self.server.server_close()


class Alertmanager(Tool):
    """Sends to `url` what deploy/prometheus/alertmanager.yml routes."""

    def __init__(self, url):
        self.folder = tempfile.TemporaryDirectory(prefix="millrace-alertmanager-")
        config = yaml.safe_load((DEPLOY / "alertmanager.yml").read_text())
        config["route"].update(group_wait="0s", group_interval="500ms")
        config["receivers"][0]["webhook_configs"][0]["url"] = url
        path = pathlib.Path(self.folder.name) / "alertmanager.yml"
        path.write_text(yaml.safe_dump(config))
        super().__init__("prometheus-alertmanager", f"--config.file={path}", f"--storage.path={self.folder.name}/data",
                         "--web.listen-address=127.0.0.1:0", "--cluster.listen-address=")

    def alerts(self):
        return json.loads(self.get("/api/v2/alerts"))

    def __exit__(self, *unused):
        super().__exit__(*unused)
        self.folder.cleanup()
