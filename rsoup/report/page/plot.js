// Marks, axes and scales, for every chart.
function extent(name) {
  const values = POINTS.flatMap((point) => {
    const score = point.scores[name], value = valueOf(point, name);
    return (score && spread(score)) ?? (value === null ? [] : [value]);
  });
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low || Math.abs(high) || 1) * 0.07;
  return [low - margin, high + margin];
}
function ticks(low, high, count = 6) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const first = Math.ceil(low / step);
  const values = Array.from({ length: Math.floor(high / step) - first + 1 }, (_, k) => (first + k) * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  return values.map((value) => [value, value.toFixed(Math.min(digits, 12)).replace("-", "−")]);
}
const scaler = (low, high, from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);

const MARK = POINTS.length > 200 ? 3.2 : 5.5;

function glyph(point, x, y, size = MARK) {
  const place = `translate(${x} ${y})`;
  const look = { class: `mark ${point.kind} ${point.on_front ? "front" : "beaten"}${point.scores && !within(point) ? " out" : ""}`, transform: place };
  if (point.kind === "morl") return shape("path", { ...look, d: `M0 ${-size - 1}L${size + 0.5} ${size - 0.5}H${-size - 0.5}Z` });
  if (point.kind === "expert") return shape("path", { ...look, d: `M0 ${-size - 1.5}L${size + 1.5} 0L0 ${size + 1.5}L${-size - 1.5} 0Z` });
  if (point.kind === "base") return shape("rect", { ...look, x: -size + 0.5, y: -size + 0.5, width: 2 * size - 1, height: 2 * size - 1 });
  if (point.kind === "ensemble") return shape("path", { ...look, d: `M0 ${size + 1}L${size + 0.5} ${-size + 0.5}H${-size - 0.5}Z` });
  if (point.kind === "mod") return shape("path", { ...look, d: `M${-size} 0H${size}M0 ${-size}V${size}` });
  if (point.kind === "mix") return shape("path", { ...look, d: `M${[0, 1, 2].map((k) => [Math.sin(2.0944 * k + 1.5708), -Math.cos(2.0944 * k + 1.5708)].map((part) => ((size + 1) * part).toFixed(2)).join(" ")).join("L")}Z` });
  if (point.kind === "checkpoint") return shape("path", { ...look, d: `M${-size} ${-size}L${size} ${size}M${size} ${-size}L${-size} ${size}` });
  if (point.kind === "model") return shape("path", { ...look, d: `M${[0, 1, 2, 3, 4].map((k) => [Math.sin(1.2566 * k), -Math.cos(1.2566 * k)].map((part) => ((size + 0.8) * part).toFixed(2)).join(" ")).join("L")}Z` });
  return shape("circle", { ...look, r: size });
}
function describe(point) {
  const scores = REWARDS.map((name) => `${name} ${scoreWords(point, name)}`).join(", ");
  return `${point.id}, ${KIND_WORDS[point.kind]}, ${standing(point)}: ${scores}`;
}

function axesOf(plot, box, [xLow, xHigh, yLow, yHigh], xName, yName) {
  const x = scaler(xLow, xHigh, box.left, box.width - box.right);
  const y = scaler(yLow, yHigh, box.height - box.bottom, box.top);
  for (const [value, text] of ticks(xLow, xHigh, box.width > 500 ? 8 : 6)) {
    plot.append(shape("line", { class: "grid", x1: x(value), x2: x(value), y1: box.top, y2: box.height - box.bottom }),
      shape("text", { x: x(value), y: box.height - box.bottom + 18, "text-anchor": "middle" }, text));
  }
  plot.append(axisTitle(xName, box.width - box.left - box.right, { x: (box.left + box.width - box.right) / 2, y: box.height - 8 }));
  if (yName === null) return [x, y];
  for (const [value, text] of ticks(yLow, yHigh)) {
    plot.append(shape("line", { class: "grid", x1: box.left, x2: box.width - box.right, y1: y(value), y2: y(value) }),
      shape("text", { x: box.left - 8, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  const middle = (box.top + box.height - box.bottom) / 2;
  plot.append(axisTitle(yName, box.height - box.top - box.bottom, { x: 15, y: middle, transform: `rotate(-90 15 ${middle})` }));
  return [x, y];
}
const ruler = document.createElement("canvas").getContext("2d");
function widthOf(words) {
  ruler.font = `600 13px ${getComputedStyle(document.body).fontFamily}`;
  return ruler.measureText(words).width;
}
// The box with room for the words of its upward axis.
function fitted(box, low, high) {
  const words = Math.max(...ticks(low, high).map(([, text]) => widthOf(text)));
  return { ...box, left: Math.max(box.left, Math.min(32 + words, box.width / 3)) };
}
function axisTitle(name, room, place) {
  const fits = (words, way) => widthOf(words + way) <= room;
  const letters = [...name];
  const way = [wayWords(name), arrowOf(name)].find((words) => fits(name, words)) ?? arrowOf(name);
  while (letters.length > 1 && !fits(`${letters.join("")}…`, way)) letters.pop();
  const words = fits(name, way) ? name : `${letters.join("")}…`;
  return shape("text", { class: "name", "text-anchor": "middle", ...place }, words + way, words === name ? null : shape("title", {}, name + wayWords(name)));
}
function lineOf() {
  const line = SOUPS.filter((point) => point.lambda !== null && point.lambda >= 0 && point.lambda <= 1);
  line.sort((a, b) => a.lambda - b.lambda);
  return line.length > 1 && line[0].lambda === 0 && line.at(-1).lambda === 1 ? line : [];
}
const pathThrough = (points, x, y) => points.map((p, k) => `${k ? "L" : "M"}${x(p)} ${y(p)}`).join("");
