"""Headless Chromium, driven through its DevTools protocol over a pipe: no port, and no package for it."""
import fcntl
import itertools
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading

# For an answer of the browser, or what a page does; a busy machine. Nothing waits this long when things work.
SECONDS = 60
# What a browser says by itself to its maker's servers is turned off, so that a test sees only what the page does.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-first-run",
         "--no-default-browser-check", "--hide-scrollbars",
         "--disable-features=Translate,OptimizationHints,MediaRouter", "--remote-debugging-pipe")


def _high(descriptor):
    """The same file under a number that is not 3 or 4, which Chromium wants for itself."""
    other = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return other


class Browser:
    """A context manager; one thread of it reads what the browser sends."""

    def __init__(self, width=1100, height=900):
        if shutil.which("chromium") is None:
            raise RuntimeError("chromium is missing (tools/setup --tests)")
        self.profile = tempfile.TemporaryDirectory(prefix="millrace-chromium-", ignore_cleanup_errors=True)
        (from_us, to_browser), (from_browser, to_us) = ([_high(end) for end in os.pipe()] for _ in range(2))
        # Chromium reads from 3 and writes to 4.
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{from_us} 4>&{to_us} {from_us}<&- {to_us}>&-', "bash", "chromium", *FLAGS,
             f"--user-data-dir={self.profile.name}", f"--window-size={width},{height}", "about:blank"],
            pass_fds=(from_us, to_us), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(from_us)
        os.close(to_us)
        self._out, self._in = os.fdopen(to_browser, "wb", buffering=0), os.fdopen(from_browser, "rb")
        self._ids, self._answers, self._handlers = itertools.count(1), {}, {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        rest = b""
        while part := self._in.read1(1 << 16):
            *messages, rest = (rest + part).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.pop(message["id"]).put(message)
                else:
                    handler = self._handlers.get(message.get("sessionId"))
                    if handler:
                        handler(message["method"], message["params"])

    def send(self, method, session=None, **params):
        """The queue in which the answer will be; it may be called by a handler too."""
        message, answer = {"id": next(self._ids), "method": method, "params": params}, queue.SimpleQueue()
        if session:
            message["sessionId"] = session
        with self._lock:
            self._answers[message["id"]] = answer
            self._out.write(json.dumps(message).encode() + b"\0")
        return answer

    def call(self, method, session=None, **params):
        answer = self.send(method, session, **params).get(timeout=SECONDS)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def page(self, handler=None):
        """A new tab in front; `handler` gets (method, params) of its events, on the thread that reads: it must not
        wait for the browser."""
        return Page(self, handler)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        try:
            self.call("Browser.close")
            self.process.wait(SECONDS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self._reader.join()
            self._out.close()
            self._in.close()
            self.profile.cleanup()


class Page:
    def __init__(self, browser, handler):
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        self._loaded, self._handler = queue.SimpleQueue(), handler
        browser._handlers[self.session] = self._event
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _event(self, method, params):
        if method == "Page.loadEventFired":
            self._loaded.put(None)
        if self._handler:
            self._handler(method, params)

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def go(self, url):
        """Once the page has loaded and its script has run."""
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise RuntimeError(f"{url}: {answer['errorText']}")
        self._loaded.get(timeout=SECONDS)

    def evaluate(self, expression):
        """The value of a JavaScript expression; of a promise, what it comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition):
        """Until a JavaScript expression is true."""
        return self.evaluate(f"""new Promise((resolve, reject) => {{
            const end = Date.now() + {SECONDS * 1000};
            const look = () => {{
                let found = null;
                try {{ found = {condition}; }} catch (error) {{ reject(error); }}
                if (found) resolve(found);
                else if (Date.now() > end) reject(new Error("never true"));
                else setTimeout(look, 20);
            }};
            look();
        }})""")

    def front(self):
        self.call("Page.bringToFront")

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)
