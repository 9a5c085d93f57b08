// The scatter of two rewards, or the strip of one.
const NARROW = matchMedia("(max-width: 559px)"); // a phone gets a smaller drawing, so that its words stay readable
const KINDS = Object.keys(KIND_WORDS).filter((kind) => POINTS.some((point) => point.kind === kind));
let view = null; // [x low, x high, y low, y high] of the plot, in scores

function frontBox() {
  const box = NARROW.matches
    ? { width: 380, height: 350, left: 54, right: 12, top: 10, bottom: 44 }
    : { width: 640, height: 480, left: 62, right: 18, top: 14, bottom: 46 };
  return ONE ? { ...box, left: box.right, height: 70 + 36 * KINDS.length } : fitted(box, view[2], view[3]);
}
// One reward has no other to stand against: each kind of points gets a line of its own.
const placeOf = (point) => [point.scores[state.x].mean, ONE ? -KINDS.indexOf(point.kind) : point.scores[state.y].mean];
const fullView = () => [...extent(state.x), ...(ONE ? [0.5 - KINDS.length, 0.5] : extent(state.y))];

function drawFront() {
  view ??= fullView();
  const box = frontBox();
  const held = document.activeElement?.dataset?.limit;
  const focused = BY_ID.get(document.activeElement?.dataset?.point), told = !$("tip").hidden;
  const clip = shape("clipPath", { id: "inside" }, shape("rect", {
    x: box.left, y: box.top, width: box.width - box.left - box.right, height: box.height - box.top - box.bottom }));
  const plot = shape("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "group", "aria-labelledby": "front-title" },
    shape("title", { id: "front-title" }, `${(ONE ? [state.x] : [state.y, state.x]).map((name) => name + wayWords(name)).join(" against ")}, one mark for each measured model`), shape("defs", {}, clip));
  const [x, y] = axesOf(plot, box, view, state.x, ONE ? null : state.y);
  const inside = shape("g", { "clip-path": "url(#inside)" });
  const px = (point) => x(placeOf(point)[0]), py = (point) => y(placeOf(point)[1]);
  inside.append(...limitMarks(box, x, y));
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
  plot.append(inside, ...limitHandles(box, x, y));
  $("front").replaceChildren(plot);
  $("front").classList.toggle("zoomed", zoomedIn());
  if (held) document.querySelector(`#front [data-limit="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  if (!focused) return;
  markOf(focused).focus({ preventScroll: true });
  if (!told) hideTip();
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
  const gain = SIGN[REWARDS[k]] * state.mu[k];
  return state.scale === "scaled" ? gain / (high - low || 1) : gain;
}
function errorBars(point, x, y, cx, cy, now) {
  if (POINTS.length > 60 && point !== now) return [];
  const across = spread(point.scores[state.x]), up = ONE ? null : spread(point.scores[state.y]);
  const look = { class: `error ${point.kind}${within(point) ? "" : " out"}` };
  return [
    across && shape("line", { ...look, x1: x(across[0]), x2: x(across[1]), y1: cy, y2: cy }),
    up && shape("line", { ...look, x1: cx, x2: cx, y1: y(up[0]), y2: y(up[1]) }),
  ].filter(Boolean);
}
function startFront() {
  startZoom();
  startPointer();
  NARROW.addEventListener("change", drawFront);
  if (REWARDS.length > 2) {
    $("axes").append(axisChoice("x", "across"), " ", axisChoice("y", "up"));
  }
  $("legend").append(...KINDS.map((kind) => legendEntry({ kind, on_front: true }, KIND_WORDS[kind])));
  const hollow = KINDS.find((kind) => !["mod", "checkpoint"].includes(kind) && POINTS.some((point) => point.kind === kind && !point.on_front));
  if (hollow) $("legend").append(legendEntry({ kind: hollow, on_front: false }, "hollow: beaten by another"));
  if (REWARDS.length === 2 && lineOf().length) {
    $("plot-lines").textContent = " Dashed: the line between the experts. Dotted: all scores worth as much, for the preference, as the ringed point's.";
  }
  onChange(drawFront);
}
function axisChoice(axis, word) {
  const select = element("select", { "aria-label": `Reward ${word}`, id: `axis-${axis}`, dir: "auto" }, ...REWARDS.map((name) => element("option", { value: name }, name)));
  const other = axis === "x" ? "y" : "x";
  select.addEventListener("change", () => {
    view = null;
    const swapped = select.value === state[other] ? { [other]: state[axis] } : {};
    change({ [axis]: select.value, ...swapped });
  });
  onChange(() => { select.value = state[axis]; });
  return element("label", { class: "small" }, `${word} `, select);
}
function legendEntry(point, words) {
  return element("span", {}, shape("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" }, glyph(point, 0, 0)), words);
}
