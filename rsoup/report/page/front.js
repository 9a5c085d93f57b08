// The scatter of two rewards: hover, click, zoom, keyboard.
const NARROW = innerWidth < 560; // a phone gets a smaller drawing, so that its words stay readable
const FRONT = NARROW
  ? { width: 380, height: 350, left: 54, right: 12, top: 10, bottom: 44 }
  : { width: 640, height: 480, left: 62, right: 18, top: 14, bottom: 46 };
let view = null; // [x low, x high, y low, y high] of the plot, in scores

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
function axisChoice(axis, word) {
  const select = element("select", { "aria-label": `Reward ${word}`, id: `axis-${axis}` }, ...REWARDS.map((name) => element("option", { value: name }, name)));
  select.value = state[axis];
  select.addEventListener("change", () => { view = null; change({ [axis]: select.value }); });
  return element("label", { class: "small" }, `${word} `, select);
}
function legendEntry(point, words) {
  return element("span", {}, shape("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" }, glyph(point, 0, 0)), words);
}
