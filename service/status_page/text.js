// Numbers as text, in English.

const DASH = "–";

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
