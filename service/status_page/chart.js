// A chart of what was scraped, with its legend.

const CHART_SECONDS = 300;  // what the charts show at most; less, in whole minutes, while less is known
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
