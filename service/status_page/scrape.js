// What a scrape of /metrics says, and what two say together.

const GAP_SECONDS = 4;  // two scrapes further apart are not joined by a line

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
