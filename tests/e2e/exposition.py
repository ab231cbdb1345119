"""A page of /metrics, taken apart: families with their types, samples by labels, histograms."""
import importlib.machinery
import importlib.util
import math
import re

from harness import ROOT


def _load_generator():
    """tools/generate_dashboards as a module: what it makes of a page is what the dashboards are made of."""
    loader = importlib.machinery.SourceFileLoader("generate_dashboards", str(ROOT / "tools/generate_dashboards"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


generate_dashboards = _load_generator()


class Histogram:
    def __init__(self, buckets, total, count):
        self.buckets, self.sum, self.count = buckets, total, count  # buckets: {upper bound: observations up to it}


class Scrape:
    """Names in this class are of families; samples of histograms are reached by histogram()."""

    def __init__(self, text):
        self.text = text
        self.families = generate_dashboards.parse_exposition(text)
        self.samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, labels, value = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line).groups()
                key = (name, frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")))
                assert key not in self.samples, f"twice: {line}"
                self.samples[key] = float(value)

    def all(self, name, **labels):
        """{the other labels: value} of the samples called `name` that have `labels`."""
        wanted = set(labels.items())
        return {frozenset(have - wanted): value for (n, have), value in self.samples.items()
                if n == name and wanted <= have}

    def total(self, name, **labels):
        return sum(self.all(name, **labels).values())

    def value(self, name, **labels):
        """The one sample with exactly these labels; 0 when it has not appeared yet."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def labels(self, name):
        """Of the one sample of an info metric."""
        found = [dict(have) for n, have in self.samples if n == name]
        assert len(found) == 1, (name, found)
        return found[0]

    def histogram(self, name, **labels):
        buckets = {}
        for rest, value in self.all(f"{name}_bucket", **labels).items():
            buckets[float(dict(rest)["le"].replace("+Inf", "inf"))] = value
        assert math.inf in buckets, name
        return Histogram(dict(sorted(buckets.items())), self.value(f"{name}_sum", **labels),
                         self.value(f"{name}_count", **labels))


def scrape(server):
    status, text = server.http("/metrics")
    assert status == 200, text
    return Scrape(text)
