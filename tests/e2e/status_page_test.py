"""The status page at / of the metrics port, in a real browser: what it shows, and when it tells that it cannot."""
import contextlib
import http.client
import itertools
import json
import math
import queue
import re
import signal
import subprocess
import unittest
import urllib.request

from browser import SECONDS, Browser
from exposition import Scrape, scrape
from harness import BINARY, Server, generate, main

# All that can go wrong in a label and in a page.
NAME = 'a "b" \\ \\n <img src=x onerror=alert(1)> {c="d"} é\nnew line'
# Two run and one waits; a load of more is refused in part.
SERVER = ("--max-num-seqs", 2, "--max-queue", 1, "--kv-cache-bytes", "4M", "--ctx", 640, "--model-name", NAME)
CHARTS = {"tokens": 2, "requests": 2, "kv": 3, "first": 2, "between": 2, "experts": 1, "failures": None}
SHOWN = """({
    scrapes: Number(document.body.dataset.scrapes ?? 0), at: state.scrapes.map((s) => s.at),
    model: document.getElementById("model").textContent, about: document.getElementById("about").textContent,
    title: document.title, state: document.getElementById("state").textContent,
    gone: document.getElementById("gone").hidden ? null : document.getElementById("gone").textContent,
    tiles: Object.fromEntries([...document.querySelectorAll("#tiles dd")].map((d) => [d.id.slice(5), d.textContent])),
    errors: [...document.querySelectorAll("#errors tr")].map((row) => [...row.children].map((c) => c.textContent)),
    legends: Object.fromEntries([...document.querySelectorAll("figure")].map(
        (f) => [f.id, [...f.querySelectorAll(".legend span")].map((s) => s.textContent)])),
    points: Object.fromEntries([...document.querySelectorAll("figure")].map(
        (f) => [f.id, [...f.querySelectorAll("path")].map((p) => [p.getAttribute("class"), Number(p.dataset.points),
                                                                  p.getAttribute("d")])])),
})"""


@contextlib.contextmanager
def load(server):
    """`millrace loadgen`: more than the server takes, and some calls cancelled."""
    process = subprocess.Popen([str(BINARY), "loadgen", "--target", server.target, "--rate", "60",
                                "--requests", "1000000", "--prompt-tokens", "uniform:4:40",
                                "--output-tokens", "uniform:200:400", "--cancel-fraction", "0.1"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Watched:
    """A tab on the status page, with every request that it made and every page of /metrics that it got, in order."""

    def __init__(self, browser, server):
        self.origin = f"http://{server.metrics_address}"
        self.urls, self.bodies, self.logged = [], queue.SimpleQueue(), []
        self.asked = []  # when each request for /metrics was sent, in seconds
        self.answers = {}  # headers of /metrics by request
        self.seen = []
        self.page = browser.page(self.event)
        self.page.go(self.origin + "/")

    def event(self, method, params):
        if method == "Network.requestWillBeSent":
            self.urls.append(params["request"]["url"])
            if "/metrics" in self.urls[-1]:
                self.asked.append(params["timestamp"])
        elif method == "Network.responseReceived" and "/metrics" in params["response"]["url"]:
            self.answers[params["requestId"]] = params["response"]["headers"]
        elif method == "Network.loadingFinished" and params["requestId"] in self.answers:
            body = self.page.send("Network.getResponseBody", requestId=params["requestId"])
            self.bodies.put((params["timestamp"], body))
        elif method == "Log.entryAdded" or method == "Runtime.exceptionThrown":
            self.logged.append(params)

    def shown(self):
        return self.page.evaluate(SHOWN)

    def got(self, count):
        """The first `count` pages of /metrics: [(time, Scrape)]."""
        while len(self.seen) < count:
            at, answer = self.bodies.get(timeout=SECONDS)
            self.seen.append((at, Scrape(answer.get(timeout=SECONDS)["result"]["body"])))
        return self.seen[:count]

    def wait(self, condition):
        return self.page.wait(condition)


def quantile(q, before, now):
    """Of what was observed between two histograms, as the page should say it."""
    deltas = [(bound, count - before.buckets[bound]) for bound, count in now.buckets.items()]
    rank = q * deltas[-1][1]
    below, upto = 0.0, 0
    for bound, count in deltas:
        if count >= rank:
            return below if math.isinf(bound) else below + (bound - below) * (rank - upto) / (count - upto)
        below, upto = bound, count
    raise AssertionError(deltas)


def as_number(text):
    """'1,234', '12.3 ms', '45.6 %' as numbers, seconds and shares."""
    value, unit = re.fullmatch(r"([\d,.]+) ?(ms|s|%|)", text).groups()
    return float(value.replace(",", "")) * {"ms": 1e-3, "%": 1e-2}.get(unit, 1)


class StatusPage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = cls.enterClassContext(Browser())
        cls.server = cls.enterClassContext(Server(*SERVER))

    def near(self, text, want, what, digits=3):
        """As many digits as are shown are right."""
        self.assertAlmostEqual(as_number(text), want, delta=max(abs(want) * 0.6 * 10 ** (1 - digits), 1e-9), msg=what)

    def test_under_load_it_shows_what_the_metrics_said_and_draws_it(self):
        watched = Watched(self.browser, self.server)
        with load(self.server):
            # Refused, cancelled and answered calls within what it compares, and lines with points.
            watched.wait('state.count >= 4 && state.scrapes.at(-1).errors.has("RESOURCE_EXHAUSTED") && '
                         'state.scrapes.at(-1).errors.has("CANCELLED") && state.points.at(-1).between95 > 0 && '
                         'state.points.at(-1).experts > 0')
            shown = watched.shown()
        pages = watched.got(shown["scrapes"])
        self.shows(shown, pages)
        self.draws(shown)
        # It asks once a second; how long an answer takes is the machine's affair.
        for a, b in itertools.pairwise(watched.asked[:len(pages)]):
            self.assertGreater(b - a, 0.8)
        # All that it asked for, from the first request on.
        self.assertEqual(set(watched.urls), {watched.origin + "/", watched.origin + "/metrics?close"})
        self.assertEqual(watched.logged, [])
        for headers in watched.answers.values():
            self.assertEqual({k.lower(): v for k, v in headers.items()}["connection"], "close")
        self.agrees_when_idle(watched)
        watched.page.close()

    def shows(self, shown, pages):
        tiles, newest, last, base = shown["tiles"], pages[-1][1], pages[-2][1], pages[0][1]
        for tile, name in (("running", "millrace_requests_running"), ("waiting", "millrace_requests_waiting"),
                           ("generated", "millrace_generated_tokens_total"),
                           ("prompts", "millrace_prompt_tokens_total")):
            self.assertEqual(tiles[tile], f"{newest.value(name):,.0f}", tile)
        generated = "millrace_generated_tokens_total"
        self.assertGreater(newest.value(generated), base.value(generated))
        blocks = {state: newest.value("millrace_kv_blocks", state=state) for state in ("used", "cached", "free")}
        self.assertAlmostEqual(as_number(tiles["kv-share"]), blocks["used"] / sum(blocks.values()), delta=0.00051)
        for state, entry in zip(("used", "cached", "free"), shown["legends"]["kv"]):
            self.assertEqual(entry.split(" ")[0], state)
            self.near(entry.split(" ")[1], blocks[state], f"blocks {state}")
        # The page's own times, which are those of the network, but for what a busy machine lets it wait.
        self.assertEqual(len(shown["at"]), len(pages))
        for (a, b), (c, d) in zip(itertools.pairwise(shown["at"]), itertools.pairwise(at for at, _ in pages)):
            self.assertAlmostEqual(b - a, d - c, delta=0.9)
        elapsed = shown["at"][-1] - shown["at"][-2]
        for tile, name in (("out", "millrace_generated_tokens_total"), ("in", "millrace_prompt_tokens_total")):
            self.near(tiles[tile], (newest.value(name) - last.value(name)) / elapsed, f"tokens {tile}")
        for tile, name in (("first", "millrace_time_to_first_token_seconds"),
                           ("between", "millrace_inter_token_latency_seconds")):
            for percent in (50, 95):
                want = quantile(percent / 100, base.histogram(name), newest.histogram(name))
                self.near(tiles[f"{tile}{percent}"], want, f"{tile} p{percent}")
        after, before = (page.histogram("millrace_moe_active_experts") for page in (newest, last))
        self.near(tiles["experts-mean"], (after.sum - before.sum) / (after.count - before.count), "experts")
        self.shows_errors(shown, newest, base)
        self.assertEqual(shown["model"], NAME)
        self.assertEqual(shown["title"], " ".join(f"{NAME} · millrace".split()))
        model, version = newest.labels("millrace_model_info"), newest.labels("millrace_build_info")["version"]
        about = shown["about"].split(" · ")
        self.assertEqual(about[:4], [*(model[key] for key in ("architecture", "quantisation", "device")),
                                     f"millrace {version}"])
        self.assertRegex(about[4], r"up (\d+ min )?\d+ s")
        self.assertEqual(about[5], self.server.metrics_address)
        self.assertEqual((shown["state"], shown["gone"]), ("live", None))

    def shows_errors(self, shown, newest, base):
        def by_code(page):
            counts = {}
            for labels, value in page.all("millrace_requests_total").items():
                code = dict(labels)["code"]
                counts[code] = counts.get(code, 0) + value
            return counts
        now, before = by_code(newest), by_code(base)
        self.assertEqual(shown["tiles"]["answered"], f"{now.pop('OK'):,.0f}")
        self.assertEqual(shown["tiles"]["failed"], f"{sum(now.values()):,.0f}")
        self.assertEqual(shown["errors"], [[code, f"{count - before.get(code, 0):,.0f}", f"{count:,.0f}"]
                                           for code, count in sorted(now.items())])
        self.assertEqual([entry.split(" ")[0] for entry in shown["legends"]["failures"]], sorted(now))

    def draws(self, shown):
        self.assertEqual(set(shown["points"]), set(CHARTS))
        for chart, series in CHARTS.items():
            paths = shown["points"][chart]
            classes = {cls for cls, _, _ in paths}
            self.assertEqual(len(classes), series or len(shown["legends"][chart]), chart)
            for cls in classes:
                self.assertGreaterEqual(sum(points for c, points, _ in paths if c == cls), 3, (chart, cls))
            for _, points, d in paths:
                self.assertNotRegex(d, "NaN|Infinity|undefined")
                self.assertGreaterEqual(len(re.findall("[ML]", d)), points, chart)
        # A line that moves, and each point to the right of the one before.
        d = shown["points"]["tokens"][0][2]
        places = [tuple(map(float, place.split(" "))) for place in re.findall(r"[ML]([-\d.]+ [-\d.]+)", d)]
        self.assertGreater(len({y for _, y in places}), 1)
        self.assertEqual(sorted({x for x, _ in places}), [x for x, _ in places])

    def agrees_when_idle(self, watched):
        """With nothing left to do, what it shows is what anybody reads."""
        watched.wait("state.scrapes.at(-1).running === 0 && state.scrapes.at(-1).waiting === 0 && "
                     "state.points.at(-1).out === 0")
        want, shown = scrape(self.server), watched.shown()
        self.assertEqual(shown["tiles"]["running"], "0")
        self.assertEqual(shown["tiles"]["generated"], f"{want.value('millrace_generated_tokens_total'):,.0f}")
        self.assertEqual(shown["tiles"]["prompts"], f"{want.value('millrace_prompt_tokens_total'):,.0f}")

    def test_a_server_that_hangs_or_is_gone_is_told_of_and_so_is_its_return(self):
        with Server(*SERVER) as server:
            generate(server, max_new_tokens=20)
            watched = Watched(self.browser, server)
            watched.wait("state.count >= 1")
            server.process.send_signal(signal.SIGSTOP)
            watched.wait('!document.getElementById("gone").hidden')
            self.assertIn("no answer within 3 s", watched.shown()["gone"])
            server.process.send_signal(signal.SIGCONT)
            watched.wait('document.getElementById("gone").hidden')
            server.process.kill()
            server.process.wait()
            watched.wait('!document.getElementById("gone").hidden')
            shown = watched.shown()
            self.assertRegex(shown["gone"], "^The server does not answer since .*cannot be reached.*is old")
            self.assertEqual(shown["state"], "no answer")
            self.assertEqual(shown["tiles"]["generated"], "20")  # the last that is known, and marked as old
            self.assertEqual(watched.page.evaluate("getComputedStyle(document.querySelector('main')).opacity"), "0.45")
            port = int(server.metrics_address.rsplit(":", 1)[1])
        with Server(*SERVER, metrics_port=port):
            watched.wait('document.body.className === "live"')
            shown = watched.shown()
            self.assertEqual((shown["state"], shown["gone"], shown["tiles"]["generated"]), ("live", None, "0"))
            watched.wait("state.scrapes.length >= 2")  # of the new run
            self.assertEqual(watched.shown()["tiles"]["out"], "0")  # and not 20 tokens less
        watched.page.close()

    def test_a_page_that_nobody_sees_asks_nothing(self):
        first = Watched(self.browser, self.server)
        first.wait("state.count >= 1")
        second = Watched(self.browser, self.server)  # in front of the first
        first.wait("document.hidden && !state.busy")
        before = len(first.urls)
        second.wait("state.count >= 3")  # two seconds later
        self.assertEqual(len(first.urls), before)
        second.page.close()
        first.page.front()
        first.wait(f"state.count >= {before}")
        first.page.close()

    def test_nothing_else_can_be_run_or_reached_from_the_page(self):
        watched = Watched(self.browser, self.server)
        watched.wait("state.count >= 1")
        self.assertEqual(watched.page.evaluate("document.images.length"), 0)  # the name's is text
        for attempt in ("document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
                        "Object.assign(document.createElement('script'), {text: 'window.ran = 1'})",
                        "setTimeout('ran = 1')"):
            tried = watched.page.evaluate(f"(() => {{ try {{ {attempt}; }} catch (e) {{ return e.name; }} }})()")
            self.assertEqual(tried, "TypeError", attempt)
        with Server(*SERVER) as other:
            url = f"http://{other.metrics_address}/metrics"
            asked = watched.page.evaluate(f"fetch('{url}', {{mode: 'no-cors'}}).then(() => 'got', (e) => e.name)")
            self.assertEqual(asked, "TypeError")
        watched.page.close()

    def test_the_exposition_format_is_read_as_it_is_defined(self):
        watched = Watched(self.browser, self.server)
        watched.wait("state.count >= 1")

        def parse(text):
            return watched.page.evaluate(f"""(() => {{ try {{
                return Object.entries(parseExposition({json.dumps(text)})).map(([name, samples]) =>
                    [name, samples.map((s) => [{{...s.labels}}, String(s.value)])]);
            }} catch (error) {{ return error.message; }} }})()""")
        self.assertEqual(parse('# HELP a b\n# TYPE a gauge\na 1\na{} 2\n\nb{x="1",} 3 1700000000\n'),
                         [["a", [[{}, "1"], [{}, "2"]]], ["b", [[{"x": "1"}, "3"]]]])
        self.assertEqual(parse(r'a{x="\"\\n\n\\",y="} 7{,="} -1.5e-3'),
                         [["a", [[{"x": '"\\n\n\\', "y": "} 7{,="}, "-0.0015"]]]])
        self.assertEqual(parse('a +Inf\na -Inf\na NaN\na{__proto__="x"} 0'),
                         [["a", [[{}, "Infinity"], [{}, "-Infinity"], [{}, "NaN"], [{"__proto__": "x"}, "0"]]]])
        self.assertEqual(parse('a:b{le="+Inf"} 9007199254740991\n'), [["a:b", [[{"le": "+Inf"}, "9007199254740991"]]]])
        for bad in ("a", 'a{x="1" 2', 'a{x=1} 2', "1a 2", "a b", 'a{x="1"}', "a 1 2 3", "<html>"):
            self.assertRegex(parse(bad), "not a sample", bad)
        watched.page.close()

    def test_it_fits_a_phone_and_can_be_read_in_the_light_and_in_the_dark(self):
        watched = Watched(self.browser, self.server)
        watched.wait("state.count >= 1")
        watched.page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
        self.assertEqual(watched.page.evaluate("[innerWidth, document.documentElement.scrollWidth]"), [360, 360])
        grounds = set()
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            watched.page.call("Emulation.setEmulatedMedia", features=features)
            style = watched.page.evaluate("""[getComputedStyle(document.body).backgroundColor,
                ...["body", "dt", "footer", "a"].map((s) => getComputedStyle(document.querySelector(s)).color)]""")
            ground, *texts = [luminance(colour) for colour in style]
            grounds.add(ground > 0.5)
            for text in texts:  # the contrast that WCAG asks of text
                self.assertGreaterEqual((max(ground, text) + 0.05) / (min(ground, text) + 0.05), 4.5, (scheme, style))
        self.assertEqual(grounds, {True, False})
        watched.page.close()

    def test_only_the_root_is_the_page_and_it_is_never_kept(self):
        with urllib.request.urlopen(f"http://{self.server.metrics_address}/", timeout=SECONDS) as answer:
            headers, body = answer.headers, answer.read().decode()
        self.assertEqual((headers["Content-Type"], headers["Cache-Control"], headers["X-Content-Type-Options"]),
                         ("text/html; charset=utf-8", "no-store", "nosniff"))
        policy = headers["Content-Security-Policy"]
        self.assertTrue(policy.startswith("default-src 'none';"), policy)
        self.assertNotRegex(policy, r"unsafe|\*|https?:")
        self.assertNotRegex(body, r"https?://(?!www\.w3\.org/2000/svg)")  # a name, not an address
        for path in ("/index.html", "/script.js", "/favicon.ico", "//", "/metrics/", "/x"):
            connection = http.client.HTTPConnection(self.server.metrics_address, timeout=SECONDS)
            connection.request("GET", path)
            self.assertEqual(connection.getresponse().status, 404, path)
            connection.close()


def luminance(colour):
    """Of 'rgb(r, g, b)', as WCAG defines it."""
    parts = [int(part) / 255 for part in re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour).groups()]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


if __name__ == "__main__":
    main()
