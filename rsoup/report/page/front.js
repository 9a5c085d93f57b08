// The scatter of two rewards: hover, click, zoom, keyboard.
const NARROW = innerWidth < 560; // a phone gets a smaller drawing, so that its words stay readable
const FRONT = NARROW
  ? { width: 380, height: 350, left: 54, right: 12, top: 10, bottom: 44 }
  : { width: 640, height: 480, left: 62, right: 18, top: 14, bottom: 46 };
let view = null; // [x low, x high, y low, y high] of the plot, in scores

function extent(name) {
  const values = POINTS.flatMap((point) => {
    const score = point.scores[name];
    return score.interval ?? [score.mean];
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
  const look = { class: `mark ${point.kind} ${point.on_front ? "front" : "beaten"}`, transform: place };
  if (point.kind === "morl") return shape("path", { ...look, d: `M0 ${-size - 1}L${size + 0.5} ${size - 0.5}H${-size - 0.5}Z` });
  if (point.kind === "expert") return shape("path", { ...look, d: `M0 ${-size - 1.5}L${size + 1.5} 0L0 ${size + 1.5}L${-size - 1.5} 0Z` });
  if (point.kind === "base") return shape("rect", { ...look, x: -size + 0.5, y: -size + 0.5, width: 2 * size - 1, height: 2 * size - 1 });
  if (point.kind === "ensemble") return shape("path", { ...look, d: `M0 ${size + 1}L${size + 0.5} ${-size + 0.5}H${-size - 0.5}Z` });
  if (point.kind === "mod") return shape("path", { ...look, d: `M${-size} 0H${size}M0 ${-size}V${size}` });
  if (point.kind === "checkpoint") return shape("path", { ...look, d: `M${-size} ${-size}L${size} ${size}M${size} ${-size}L${-size} ${size}` });
  return shape("circle", { ...look, r: size });
}
function describe(point) {
  const scores = REWARDS.map((name) => `${name} ${scoreWords(point, name)}`).join(", ");
  const place = point.on_front ? "on the front" : `beaten by ${point.dominated_by}`;
  return `${point.id}, ${KIND_WORDS[point.kind]}, ${place}: ${scores}`;
}

function axesOf(plot, box, [xLow, xHigh, yLow, yHigh], xName, yName) {
  const x = scaler(xLow, xHigh, box.left, box.width - box.right);
  const y = scaler(yLow, yHigh, box.height - box.bottom, box.top);
  for (const [value, text] of ticks(xLow, xHigh, box.width > 500 ? 8 : 6)) {
    plot.append(shape("line", { class: "grid", x1: x(value), x2: x(value), y1: box.top, y2: box.height - box.bottom }),
      shape("text", { x: x(value), y: box.height - box.bottom + 18, "text-anchor": "middle" }, text));
  }
  for (const [value, text] of ticks(yLow, yHigh)) {
    plot.append(shape("line", { class: "grid", x1: box.left, x2: box.width - box.right, y1: y(value), y2: y(value) }),
      shape("text", { x: box.left - 8, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  const middle = (box.top + box.height - box.bottom) / 2;
  plot.append(
    shape("text", { class: "name", x: (box.left + box.width - box.right) / 2, y: box.height - 8, "text-anchor": "middle" }, xName),
    shape("text", { class: "name", x: 15, y: middle, "text-anchor": "middle", transform: `rotate(-90 15 ${middle})` }, yName),
  );
  return [x, y];
}
function lineOf() {
  const line = SOUPS.filter((point) => point.lambda !== null && point.lambda >= 0 && point.lambda <= 1);
  line.sort((a, b) => a.lambda - b.lambda);
  return line.length > 1 && line[0].lambda === 0 && line.at(-1).lambda === 1 ? line : [];
}
const pathThrough = (points, x, y) => points.map((p, k) => `${k ? "L" : "M"}${x(p)} ${y(p)}`).join("");

function drawFront() {
  view ??= [...extent(state.x), ...extent(state.y)];
  const focused = document.activeElement?.dataset?.point;
  const clip = shape("clipPath", { id: "inside" }, shape("rect", {
    x: FRONT.left, y: FRONT.top, width: FRONT.width - FRONT.left - FRONT.right, height: FRONT.height - FRONT.top - FRONT.bottom }));
  const plot = shape("svg", { viewBox: `0 0 ${FRONT.width} ${FRONT.height}`, role: "group", "aria-labelledby": "front-title" },
    shape("title", { id: "front-title" }, `${state.y} against ${state.x}, one mark for each measured model`), shape("defs", {}, clip));
  const [x, y] = axesOf(plot, FRONT, view, state.x, state.y);
  const inside = shape("g", { "clip-path": "url(#inside)" });
  const px = (point) => x(point.scores[state.x].mean), py = (point) => y(point.scores[state.y].mean);
  const line = lineOf();
  if (line.length && REWARDS.length === 2) {
    inside.append(shape("path", { class: "chord", d: pathThrough([line[0], line.at(-1)], px, py) }),
      shape("path", { class: "path", d: pathThrough(line, px, py) }));
  }
  const now = chosen();
  if (!state.picked && state.rule === "best" && REWARDS.length === 2) inside.append(isoLine(now, x, y));
  for (const point of POINTS) inside.append(...errorBars(point, x, y, px(point), py(point), now));
  for (const point of POINTS) inside.append(interactive(glyph(point, px(point), py(point)), point, now));
  inside.append(shape("circle", { class: "ring", r: 11, transform: `translate(${px(now)} ${py(now)})` }));
  plot.append(inside);
  $("front").replaceChildren(plot);
  if (focused) plot.querySelector(`[data-point="${CSS.escape(focused)}"]`)?.focus();
}
function isoLine(point, x, y) {
  // all scores worth the same as the chosen point's: mu . R is constant along it
  const slope = state.mu[1] > 1e-9 ? -(weight(0) / weight(1)) : null;
  const [x0, y0] = [point.scores[state.x].mean, point.scores[state.y].mean];
  const [low, high, bottom, top] = view;
  const ends = slope === null ? [[x0, bottom], [x0, top]] : [[low, y0 + slope * (low - x0)], [high, y0 + slope * (high - x0)]];
  return shape("line", { class: "iso", x1: x(ends[0][0]), y1: y(ends[0][1]), x2: x(ends[1][0]), y2: y(ends[1][1]) });
}
function weight(k) {
  const [low, high] = RANGES[REWARDS[k]];
  return state.scale === "scaled" ? state.mu[k] / (high - low || 1) : state.mu[k];
}
function errorBars(point, x, y, cx, cy, now) {
  if (POINTS.length > 60 && point !== now) return [];
  const [across, up] = [point.scores[state.x].interval, point.scores[state.y].interval];
  const look = { class: `error ${point.kind}` };
  return [
    across && shape("line", { ...look, x1: x(across[0]), x2: x(across[1]), y1: cy, y2: cy }),
    up && shape("line", { ...look, x1: cx, x2: cx, y1: y(up[0]), y2: y(up[1]) }),
  ].filter(Boolean);
}
function interactive(mark, point, now) {
  filled(mark, { "data-point": point.id, tabindex: point === now ? 0 : -1, role: "button",
    "aria-label": describe(point), "aria-pressed": String(point === now) }, []);
  mark.addEventListener("pointerenter", (event) => showTip(point, event.clientX, event.clientY));
  mark.addEventListener("pointerleave", hideTip);
  mark.addEventListener("focus", () => {
    const box = mark.getBoundingClientRect();
    showTip(point, box.right, box.bottom);
  });
  mark.addEventListener("blur", hideTip);
  mark.addEventListener("click", () => pick(point));
  mark.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") pick(point);
    else if (!moveFocus(point, event.key)) return;
    event.preventDefault();
  });
  return mark;
}
function moveFocus(point, key) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key];
  if (!step) return false;
  const order = [...POINTS].sort((a, b) => a.scores[state.x].mean - b.scores[state.x].mean);
  const next = order[(order.indexOf(point) + step + order.length) % order.length];
  document.querySelector(`#front [data-point="${CSS.escape(next.id)}"]`).focus();
  return true;
}

function showTip(point, x, y) {
  const tip = $("tip");
  const rows = REWARDS.map((name) => element("div", {}, `${name} ${scoreWords(point, name)}`));
  const place = point.on_front ? "on the front" : `beaten by ${point.dominated_by}`;
  const sure = point.front_probability === null ? "" : ` (on the front in ${percent(point.front_probability)} of resamples)`;
  tip.replaceChildren(element("b", {}, point.id), element("div", { class: "quiet" }, `${KIND_WORDS[point.kind]}, ${place}${sure}`), ...rows);
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - tip.offsetHeight - 8))}px`;
}
const hideTip = () => { $("tip").hidden = true; };

function zoom(factor, cx = 0.5, cy = 0.5) {
  const [xLow, xHigh, yLow, yHigh] = view;
  const x = xLow + cx * (xHigh - xLow), y = yLow + cy * (yHigh - yLow);
  view = [x - (x - xLow) * factor, x + (xHigh - x) * factor, y - (y - yLow) * factor, y + (yHigh - y) * factor];
  drawFront();
}
function fractions(event) {
  const box = $("front").firstChild.getBoundingClientRect();
  const inX = ((event.clientX - box.left) / box.width) * FRONT.width, inY = ((event.clientY - box.top) / box.height) * FRONT.height;
  return [(inX - FRONT.left) / (FRONT.width - FRONT.left - FRONT.right),
    1 - (inY - FRONT.top) / (FRONT.height - FRONT.top - FRONT.bottom)];
}
function startFront() {
  $("zoom-in").addEventListener("click", () => zoom(0.7));
  $("zoom-out").addEventListener("click", () => zoom(1 / 0.7));
  $("zoom-reset").addEventListener("click", () => { view = null; drawFront(); });
  $("front").addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey && !event.metaKey) return; // a plain wheel scrolls the page
    event.preventDefault();
    zoom((event.deltaY || event.deltaX) > 0 ? 1.15 : 1 / 1.15, ...fractions(event));
  }, { passive: false });
  $("front").addEventListener("dblclick", (event) => zoom(0.6, ...fractions(event)));
  startPan();
  if (REWARDS.length > 2) {
    $("axes").append(axisChoice("x", "across"), " ", axisChoice("y", "up"));
  }
  $("legend").append(...Object.keys(KIND_WORDS).filter((kind) => POINTS.some((point) => point.kind === kind)).map((kind) =>
    legendEntry({ kind, on_front: true }, KIND_WORDS[kind])), legendEntry({ kind: "soup", on_front: false }, "hollow: beaten by another"));
  if (REWARDS.length === 2 && lineOf().length) {
    $("plot-lines").textContent = " Dashed: the line between the experts. Dotted: all scores worth as much as the recommended point's.";
  }
  onChange(drawFront);
}
function startPan() {
  let last = null;
  const area = $("front");
  area.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0 && !event.target.dataset.point) last = fractions(event);
  });
  addEventListener("pointermove", (event) => {
    if (!last) return;
    const [cx, cy] = fractions(event);
    const dx = (last[0] - cx) * (view[1] - view[0]), dy = (last[1] - cy) * (view[3] - view[2]);
    view = [view[0] + dx, view[1] + dx, view[2] + dy, view[3] + dy];
    last = [cx, cy];
    drawFront();
  });
  addEventListener("pointerup", () => { last = null; });
}
function axisChoice(axis, word) {
  const select = element("select", { "aria-label": `Reward ${word}`, id: `axis-${axis}` }, ...REWARDS.map((name) => element("option", { value: name }, name)));
  select.value = state[axis];
  select.addEventListener("change", () => { view = null; change({ [axis]: select.value }); });
  return element("label", { class: "small" }, `${word} `, select);
}
function legendEntry(point, words) {
  return element("span", {}, shape("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" }, glyph(point, 0, 0)), words);
}
