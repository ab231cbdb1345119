// The text exposition format of metrics, version 0.0.4.

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
