// Parallel coordinates: an axis for each reward and measure, a line for each point.
const EDGE = 9; // pixels around the end of a brush that still mean it
let brushing = null; // { name, mode, from, moved }

function parallelBox() {
  const narrow = NARROW.matches;
  const least = narrow ? 62 : 110, width = Math.max(narrow ? 380 : 1180, least * AXES.length + 40);
  return { width, height: narrow ? 280 : 300, left: narrow ? 34 : 60, right: narrow ? 34 : 60, top: 50, bottom: 26 };
}
function parallelScales(box) {
  const gap = (box.width - box.left - box.right) / Math.max(1, state.order.length - 1);
  const places = new Map(state.order.map((name, k) => [name, box.left + k * gap]));
  const scales = new Map(state.order.map((name) => {
    const [low, high] = RANGES[name], margin = (high - low || 1) * 0.02;
    const ends = upward(name) ? [box.height - box.bottom, box.top] : [box.top, box.height - box.bottom];
    return [name, scaler(low - margin, high + margin, ...ends)];
  }));
  return { gap, places, scales };
}
function startParallel() {
  $("parallel").hidden = $("parallel-help").hidden = AXES.length < 3;
  if (AXES.length < 3) return;
  NARROW.addEventListener("change", drawParallel);
  onChange(drawParallel);
  const area = $("parallel");
  area.addEventListener("pointerdown", startBrush);
  area.addEventListener("pointermove", moveBrush);
  for (const end of ["pointerup", "pointercancel"]) area.addEventListener(end, endBrush);
  area.addEventListener("pointerleave", unhover);
}
function drawParallel() {
  const box = parallelBox(), { gap, places, scales } = parallelScales(box), now = chosen();
  const plot = shape("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "group", "aria-label": `Parallel coordinates of ${state.order.join(", ")}; the limits below do what dragging does` });
  plot.style.minWidth = NARROW.matches ? `${Math.max(300, AXES.length * 52)}px` : "";
  const route = (point) => {
    let word = "M";
    return state.order.map((name) => {
      const value = valueOf(point, name);
      const step = value === null ? "" : `${word}${places.get(name).toFixed(1)} ${scales.get(name)(value).toFixed(1)}`;
      word = value === null ? "M" : "L";
      return step;
    }).join("");
  };
  const order = [...POINTS].sort((a, b) => (a === now) - (b === now) || within(a) - within(b));
  for (const point of order) {
    const look = `thread ${point.kind}${within(point) ? "" : " out"}${point === now ? " chosen" : ""}`;
    const hit = shape("path", { class: "hit", d: route(point), "data-thread": point.id });
    hit.addEventListener("pointermove", (event) => {
      if (brushing || event.pointerType !== "mouse") return;
      showTip(point, event.clientX, event.clientY);
      hovered = true;
    });
    hit.addEventListener("click", () => pick(point));
    plot.append(shape("path", { class: look, d: route(point), "data-id": point.id }), hit);
  }
  for (const name of state.order) plot.append(...axisMarks(box, name, places.get(name), scales.get(name), gap));
  $("parallel").replaceChildren(plot);
}
function axisMarks(box, name, x, y, gap) {
  const top = box.top, bottom = box.height - box.bottom, [low, high] = RANGES[name];
  const [up, down] = upward(name) ? [high, low] : [low, high];
  const way = SIGN[name] > 0 === upward(name) ? "" : " (worse end up)";
  const title = axisTitle(name, Math.min(gap - 6, 2 * Math.min(x, box.width - x)), { x, y: 16 });
  title.setAttribute("data-move", name);
  title.classList.add("move");
  const marks = [
    shape("line", { class: "axis", x1: x, x2: x, y1: top, y2: bottom }),
    title,
    shape("text", { x, y: top - 10, "text-anchor": "middle" }, number(up, DIGITS[name])),
    shape("text", { x, y: bottom + 16, "text-anchor": "middle" }, number(down, DIGITS[name])),
  ];
  if (state.limits[name]) {
    const ends = brushEnds(name, y, top, bottom);
    marks.push(shape("rect", { class: "brush", x: x - 7, width: 14, y: ends[0], height: Math.max(2, ends[1] - ends[0]), rx: 3 }));
  }
  marks.push(shape("rect", { class: "grip", x: x - 15, width: 30, y: top, height: bottom - top, "data-axis": name }, shape("title", {}, `${name}${way}: drag for limits`)));
  return marks;
}
function brushEnds(name, y, top, bottom) {
  const [low, high] = state.limits[name];
  const own = [low, high].map((value, side) => (value === null ? (upward(name) === (side === 0) ? bottom : top) : y(value)));
  return [Math.max(top, Math.min(...own)), Math.min(bottom, Math.max(...own))];
}
function placeIn(event) {
  const box = parallelBox(), drawn = $("parallel").firstChild.getBoundingClientRect(), scale = box.width / drawn.width;
  return [(event.clientX - drawn.left) * scale, (event.clientY - drawn.top) * scale];
}
function startBrush(event) {
  const { axis, move } = event.target.dataset;
  if (event.button !== 0 || !(axis || move)) return;
  event.preventDefault();
  hideTip();
  $("parallel").setPointerCapture(event.pointerId);
  const [, y] = placeIn(event), box = parallelBox();
  brushing = { name: axis ?? move, mode: axis ? "brush" : "move", from: y, moved: false, at: [event.clientX, event.clientY] };
  if (!axis || !state.limits[axis]) return;
  const ends = brushEnds(axis, parallelScales(box).scales.get(axis), box.top, box.height - box.bottom);
  const near = ends.findIndex((end) => Math.abs(end - y) <= EDGE);
  if (near >= 0) brushing.from = ends[1 - near]; // the other end stays
}
function moveBrush(event) {
  if (!brushing) return;
  if (!brushing.moved && Math.hypot(event.clientX - brushing.at[0], event.clientY - brushing.at[1]) < 4) return;
  brushing.moved = true;
  const [x, y] = placeIn(event), box = parallelBox(), { gap, scales } = parallelScales(box), { name } = brushing;
  if (brushing.mode === "move") return moveAxis(name, Math.round((x - box.left) / gap));
  const scale = scales.get(name), top = box.top, bottom = box.height - box.bottom;
  const [low, high] = RANGES[name], margin = (high - low || 1) * 0.02;
  const back = (place) => {
    const part = (bottom - Math.max(top, Math.min(bottom, place))) / (bottom - top), own = upward(name) ? part : 1 - part;
    return Number((low - margin + own * (high - low + 2 * margin)).toFixed(DIGITS[name]));
  };
  const ends = [back(brushing.from), back(y)].sort((a, b) => a - b);
  setLimit(name, ends[0] <= low ? null : ends[0], ends[1] >= high ? null : ends[1]);
}
function endBrush() {
  if (brushing && !brushing.moved && brushing.mode === "brush") setLimit(brushing.name, null, null);
  brushing = null;
}
