// Reads /metrics once a second and shows it. Whatever comes from the network is set as text, never as markup: the
// page's policy forbids the latter too.

const SCRAPE_MS = 1000;
const TIMEOUT_MS = 3000;    // for an answer; a server that is alive needs milliseconds
const WINDOW_SECONDS = 60;  // what quantiles and "last minute" are of

// ---- The charts

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
