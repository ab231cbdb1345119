"use strict";
// Reads /metrics once a second and draws it. Whatever comes from the network is set as text, never as markup: the
// page's policy forbids the latter too.

const SCRAPE_MS = 1000;
const TIMEOUT_MS = 3000;    // for an answer; a server that is alive needs milliseconds
const CHART_SECONDS = 300;  // what the charts show at most; less, in whole minutes, while less is known
const WINDOW_SECONDS = 60;  // what quantiles and "last minute" are of
const GAP_SECONDS = 4;      // two scrapes further apart are not joined by a line
const DASH = "–";

// ---- The text exposition format, version 0.0.4

// {name: [{labels: {name: value}, value}]}, both without a prototype. Throws for a line that is none.
function parseExposition(text) {
  const samples = Object.create(null);
  for (const line of text.split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const sample = parseSample(line);
    (samples[sample.name] ??= []).push(sample);
  }
  return samples;
}

function parseSample(line) {
  const bad = () => new Error("not a sample: " + line.slice(0, 200));
  const name = /^[a-zA-Z_:][\w:]*/.exec(line)?.[0];
  if (name === undefined) throw bad();
  const labels = Object.create(null);
  let at = name.length;
  if (line[at] === "{") {
    const label = /[\s,]*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"/y;
    for (label.lastIndex = ++at; ; at = label.lastIndex) {
      const found = label.exec(line);
      if (found === null) break;
      labels[found[1]] = found[2].replace(/\\([n"\\])/g, (_, c) => c === "n" ? "\n" : c);
    }
    const end = /[\s,]*\}/y;
    end.lastIndex = at;
    if (!end.test(line)) throw bad();
    at = end.lastIndex;
  }
  // A value, and perhaps a timestamp that nobody needs here.
  const rest = line.slice(at).trim().split(/\s+/);
  if (rest[0] === "" || rest.length > 2) throw bad();
  return { name, labels, value: parseNumber(rest[0], bad) };
}

function parseNumber(text, bad) {
  const special = { "+Inf": Infinity, "Inf": Infinity, "-Inf": -Infinity, "NaN": NaN };
  if (Object.hasOwn(special, text)) return special[text];
  const value = Number(text);
  if (Number.isNaN(value)) throw bad();
  return value;
}

// ---- What a scrape says

// The sum over all samples of a name that pass; null when there are none.
function total(samples, name, pass = () => true) {
  const found = (samples[name] ?? []).filter((sample) => pass(sample.labels));
  return found.length ? found.reduce((sum, sample) => sum + sample.value, 0) : null;
}

// [[upper bound, observations up to it]] in order, over all series of the histogram.
function buckets(samples, name) {
  const counts = new Map();
  for (const { labels, value } of samples[name + "_bucket"] ?? []) {
    const bound = parseNumber(labels.le, () => new Error(name + ": a bound that is no number"));
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].sort((a, b) => a[0] - b[0]);
}

function errorsByCode(samples) {
  const codes = new Map();
  for (const { labels, value } of samples["millrace_requests_total"] ?? []) {
    if (labels.code !== "OK") codes.set(labels.code, (codes.get(labels.code) ?? 0) + value);
  }
  return codes;
}

function readScrape(samples, at, serverSeconds) {
  const blocks = (state) => total(samples, "millrace_kv_blocks", (labels) => labels.state === state);
  const started = total(samples, "process_start_time_seconds");
  return {
    at,
    started,
    uptime: started === null || serverSeconds === null ? null : Math.max(0, serverSeconds - started),
    version: samples["millrace_build_info"]?.[0].labels.version ?? null,
    model: samples["millrace_model_info"]?.[0].labels ?? null,
    tokensIn: total(samples, "millrace_prompt_tokens_total"),
    tokensOut: total(samples, "millrace_generated_tokens_total"),
    running: total(samples, "millrace_requests_running"),
    waiting: total(samples, "millrace_requests_waiting"),
    used: blocks("used"),
    cached: blocks("cached"),
    free: blocks("free"),
    answered: total(samples, "millrace_requests_total", (labels) => labels.code === "OK"),
    errors: errorsByCode(samples),
    first: buckets(samples, "millrace_time_to_first_token_seconds"),
    between: buckets(samples, "millrace_inter_token_latency_seconds"),
    expertsSum: total(samples, "millrace_moe_active_experts_sum"),
    expertsCount: total(samples, "millrace_moe_active_experts_count"),
  };
}

// ---- What two scrapes say together

// Of the observations between two scrapes, as Prometheus's histogram_quantile: linear within a bucket, and the last
// finite bound above it. Null without observations.
function quantile(q, before, now) {
  const old = new Map(before);
  const delta = now.map(([bound, count]) => [bound, count - (old.get(bound) ?? 0)]);
  const count = delta.at(-1)?.[1] ?? 0;
  if (!(count > 0)) return null;
  const rank = q * count;
  const index = delta.findIndex((bucket) => bucket[1] >= rank);
  const [bound, upTo] = delta[index];
  const [below, upToBelow] = index > 0 ? delta[index - 1] : [0, 0];
  if (bound === Infinity) return below;
  return below + (bound - below) * (rank - upToBelow) / (upTo - upToBelow);
}

function rate(before, now, key) {
  if (before[key] === null || now[key] === null) return null;
  return (now[key] - before[key]) / (now.at - before.at);
}

// A point of the charts: `last` is the scrape before, `base` the oldest of the last minute; both are null at first.
function makePoint(now, last, base) {
  const { at, running, waiting, used, cached, free } = now;
  const joined = last !== null && at - last.at < GAP_SECONDS;
  const point = { at, running, waiting, used, cached, free, joined, errors: new Map() };
  if (last === null) return point;
  point.in = rate(last, now, "tokensIn");
  point.out = rate(last, now, "tokensOut");
  const steps = now.expertsCount - last.expertsCount;
  point.experts = steps > 0 ? (now.expertsSum - last.expertsSum) / steps : null;
  for (const [code, count] of now.errors) {
    point.errors.set(code, (count - (last.errors.get(code) ?? 0)) / (now.at - last.at));
  }
  for (const name of ["first", "between"]) {
    point[name + "50"] = quantile(0.5, base[name], now[name]);
    point[name + "95"] = quantile(0.95, base[name], now[name]);
  }
  return point;
}

// ---- Numbers as text

const whole = (value) => value === null ? DASH : value.toLocaleString("en-US", { maximumFractionDigits: 0 });
const number = (value) =>
  value.toLocaleString("en-US", value < 100 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 });
const optional = (format) => (value) => Number.isFinite(value) ? format(value) : DASH;
const plain = optional(number);
const seconds = optional((value) => value < 1 ? number(value * 1000) + " ms" : number(value) + " s");
const share = optional((value) => (value * 100).toFixed(1) + " %");

function duration(value) {
  if (value === null) return DASH;
  const s = Math.floor(value);
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"],
                 [s % 60, "s"]];
  const first = parts.findIndex(([count]) => count > 0);
  return parts.slice(first < 0 ? 3 : first).slice(0, 2).map(([count, unit]) => count + " " + unit).join(" ");
}

// ---- Charts

const SVG = "http://www.w3.org/2000/svg";

function element(parent, name, attributes = {}, namespace = null) {
  const made = namespace ? document.createElementNS(namespace, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

// The least of 1, 2, 5, 10, 20 ... (and 0.1, 0.2, 0.5 ...) that is not below.
function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? 10 * power;
}

class Chart {
  // series: [{name, of: point => value or null}], or a function that makes it of the points, as for statuses.
  constructor(parent, id, title, series, { format = plain, stacked = false } = {}) {
    this.title = title;
    this.series = typeof series === "function" ? series : () => series;
    this.format = format;
    this.stacked = stacked;
    const figure = element(parent, "figure", { id });
    element(figure, "figcaption").textContent = title;
    this.svg = element(figure, "svg", { role: "img" }, SVG);
    this.legend = element(figure, "div", { class: "legend" });
  }

  draw(points, now) {
    const series = this.series(points);
    // Each value is drawn from the sum of those before it when stacked, from 0 otherwise.
    const rows = points.map((point) => {
      let sum = 0;
      return series.map(({ of }) => {
        const value = of(point) ?? null;
        if (value === null || !this.stacked) return [0, value];
        sum += value;
        return [sum - value, sum];
      });
    });
    const top = niceCeiling(Math.max(0, ...rows.flat().map(([, value]) => value ?? 0)));
    const minutes = Math.min(CHART_SECONDS / 60, Math.max(1, Math.ceil((now - (points[0]?.at ?? now)) / 60)));
    const box = this.frame(top, minutes);
    const x = (at) => box.left + (box.right - box.left) * (1 - (now - at) / (60 * minutes));
    const y = (value) => box.bottom - (box.bottom - box.top) * value / top;
    series.forEach((one, index) => {
      for (const run of this.runs(points, rows, index)) this.drawRun(run, index, x, y);
    });
    this.describe(series, points);
  }

  // Points in a row that are joined: [[at, low, high]].
  *runs(points, rows, index) {
    let run = [];
    for (let i = 0; i < points.length; ++i) {
      const [low, high] = rows[i][index];
      if (run.length && (high === null || !points[i].joined)) {
        yield run;
        run = [];
      }
      if (high !== null) run.push([points[i].at, low, high]);
    }
    if (run.length) yield run;
  }

  drawRun(run, index, x, y) {
    const step = ([at, value]) => x(at).toFixed(1) + " " + y(value).toFixed(1);
    const upper = run.map(([at, , high]) => step([at, high])).join("L");
    const lower = run.toReversed().map(([at, low]) => step([at, low])).join("L");
    const kind = this.stacked ? "area" : "line";
    // "h0": a run of one point shows as a dot.
    const d = this.stacked ? "M" + upper + "L" + lower + "Z" : "M" + upper + "h0";
    element(this.svg, "path", { class: kind + " c" + (index % 6 + 1), d, "data-points": run.length }, SVG);
  }

  // The empty chart in the size that it has now, with what its axes say.
  frame(top, minutes) {
    const width = this.svg.clientWidth || 400, height = this.svg.clientHeight || 150;
    this.svg.setAttribute("viewBox", "0 0 " + width + " " + height);
    this.svg.replaceChildren();
    const box = { left: 52, right: width - 4, top: 10, bottom: height - 18 };
    for (const part of [0, 0.5, 1]) {
      const y = box.bottom - (box.bottom - box.top) * part;
      element(this.svg, "line", { class: "grid", x1: box.left, x2: box.right, y1: y, y2: y }, SVG);
      const label = element(this.svg, "text", { x: box.left - 5, y: y + 4, "text-anchor": "end" }, SVG);
      label.textContent = this.format(top * part);
    }
    element(this.svg, "text", { x: box.left, y: height - 4 }, SVG).textContent = minutes + " min ago";
    element(this.svg, "text", { x: box.right, y: height - 4, "text-anchor": "end" }, SVG).textContent = "now";
    return box;
  }

  describe(series, points) {
    this.legend.replaceChildren();
    const newest = points.at(-1);
    series.forEach(({ name, of }, index) => {
      const entry = element(this.legend, "span", { class: "c" + (index % 6 + 1) });
      entry.textContent = name + " " + this.format(newest === undefined ? null : of(newest));
    });
    this.svg.setAttribute("aria-label", this.title + ": " + this.legend.textContent);
  }
}

function statusSeries(points) {
  const codes = new Set(points.flatMap((point) => [...point.errors.keys()]));
  return [...codes].sort().map((code) => ({ name: code, of: (point) => point.errors.get(code) ?? 0 }));
}

const field = (key, name) => ({ name, of: (point) => point[key] });
const charts = document.getElementById("charts");
const CHARTS = [
  new Chart(charts, "tokens", "Tokens a second", [field("out", "out"), field("in", "in")]),
  new Chart(charts, "requests", "Requests", [field("running", "running"), field("waiting", "waiting")]),
  new Chart(charts, "kv", "Blocks of the KV cache",
            [field("used", "used"), field("cached", "cached"), field("free", "free")], { stacked: true }),
  new Chart(charts, "first", "Time to the first token", [field("first50", "p50"), field("first95", "p95")],
            { format: seconds }),
  new Chart(charts, "between", "Time between two tokens", [field("between50", "p50"), field("between95", "p95")],
            { format: seconds }),
  new Chart(charts, "experts", "Experts that a step uses, mean over layers", [field("experts", "experts")]),
  new Chart(charts, "failures", "Calls that ended badly, a second", statusSeries),
];

// ---- Tiles, of the newest scrape and its point

const kvShare = (now) => now.used === null ? null : now.used / (now.used + now.cached + now.free);
const TILES = [
  ["running", "running", (now) => whole(now.running)],
  ["waiting", "waiting", (now) => whole(now.waiting)],
  ["out", "tokens/s out", (now, point) => plain(point.out)],
  ["in", "tokens/s in", (now, point) => plain(point.in)],
  ["kv-share", "KV cache in use", (now) => share(kvShare(now))],
  ["first50", "first token, p50", (now, point) => seconds(point.first50)],
  ["first95", "first token, p95", (now, point) => seconds(point.first95)],
  ["between50", "next token, p50", (now, point) => seconds(point.between50)],
  ["between95", "next token, p95", (now, point) => seconds(point.between95)],
  ["experts-mean", "experts a step", (now, point) => plain(point.experts)],
  ["generated", "tokens generated", (now) => whole(now.tokensOut)],
  ["prompts", "tokens of prompts", (now) => whole(now.tokensIn)],
  ["answered", "calls answered", (now) => whole(now.answered)],
  ["failed", "calls ended badly", (now) => whole([...now.errors.values()].reduce((a, b) => a + b, 0))],
].map(([id, name, text]) => {
  const tile = element(document.getElementById("tiles"), "div");
  element(tile, "dt").textContent = name;
  return { shown: element(tile, "dd", { id: "tile-" + id }), text };
});
for (const { shown } of TILES) shown.textContent = DASH;

function showErrors(now, base) {
  const body = document.getElementById("errors");
  body.replaceChildren();
  for (const [code, count] of [...now.errors].sort()) {
    const row = element(body, "tr");
    element(row, "td").textContent = code;
    element(row, "td").textContent = base === null ? DASH : whole(count - (base.errors.get(code) ?? 0));
    element(row, "td").textContent = whole(count);
  }
  if (now.errors.size === 0) element(element(body, "tr"), "td", { colspan: 3 }).textContent = "none";
}

function showAbout(now) {
  const name = now.model === null ? "the model is being loaded" : now.model.name;
  document.getElementById("model").textContent = name;
  document.title = name + " · millrace";
  const parts = now.model === null ? [] : [now.model.architecture, now.model.quantisation, now.model.device];
  parts.push("millrace " + (now.version ?? DASH), "up " + duration(now.uptime), location.host);
  document.getElementById("about").textContent = parts.join(" · ");
}

// ---- The loop

const clock = () => performance.now() / 1000;
const state = {
  scrapes: [],     // of the last minute and of one run of the server
  points: [],      // of the charts
  count: 0,        // of the answers so far
  lostSince: null, // a Date
  busy: false,
  timer: null,
};

async function scrape() {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), TIMEOUT_MS);
  try {
    // "close": this answer ends its connection, for the server has few threads and an idle connection holds one.
    const answer = await fetch("metrics?close",
                               { cache: "no-store", credentials: "omit", redirect: "error", signal: abort.signal });
    if (!answer.ok) throw new Error("/metrics answers with status " + answer.status);
    const text = await answer.text();
    // The server's clock, not this machine's.
    const date = Date.parse(answer.headers.get("Date") ?? "");
    return readScrape(parseExposition(text), clock(), Number.isNaN(date) ? null : date / 1000);
  } catch (error) {
    if (abort.signal.aborted) throw new Error("no answer within " + TIMEOUT_MS / 1000 + " s");
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function take(now) {
  const last = state.scrapes.at(-1) ?? null;
  // Another run of the server counts from 0 again: nothing is compared with the run before.
  if (last !== null && (now.started !== last.started || now.tokensOut < last.tokensOut)) state.scrapes = [];
  state.scrapes = state.scrapes.filter((scrape) => now.at - scrape.at <= WINDOW_SECONDS);
  const before = state.scrapes.at(-1) ?? null, base = state.scrapes[0] ?? null;
  const point = makePoint(now, before, base);
  state.scrapes.push(now);
  state.points.push(point);
  state.points = state.points.filter((old) => now.at - old.at <= CHART_SECONDS);
  state.lostSince = null;
  showAbout(now);
  for (const { shown, text } of TILES) shown.textContent = text(now, point);
  showErrors(now, base);
  document.getElementById("state").textContent = "live";
  document.getElementById("gone").hidden = true;
  document.body.className = "live";
  document.body.dataset.scrapes = ++state.count;
}

function tellLoss(error) {
  state.lostSince ??= new Date();
  const gone = document.getElementById("gone");
  const since = state.lostSince.toLocaleTimeString();
  // A TypeError is fetch's, and its own words say less.
  const why = error instanceof TypeError ? "it cannot be reached" : error.message;
  gone.textContent =
    "The server does not answer since " + since + " (" + why + "). What is below is old. Asking again every second.";
  gone.hidden = false;
  document.getElementById("state").textContent = "no answer";
  document.body.className = "lost";
}

function drawAll() {
  const now = clock();
  for (const chart of CHARTS) chart.draw(state.points, now);
}

async function tick() {
  clearTimeout(state.timer);
  if (state.busy || document.hidden) return;
  state.busy = true;
  const began = performance.now();
  try {
    take(await scrape());
  } catch (error) {
    tellLoss(error);
  }
  state.busy = false;
  drawAll();
  // A page that nobody sees asks nothing; visibilitychange begins anew.
  if (!document.hidden) state.timer = setTimeout(tick, Math.max(0, SCRAPE_MS - (performance.now() - began)));
}

document.addEventListener("visibilitychange", tick);
addEventListener("resize", drawAll);
drawAll();
tick();
