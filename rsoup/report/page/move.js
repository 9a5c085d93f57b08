// What the front answers: the tip, zoom, pan, and the keys that go from point to point.
const REACH = 14; // pixels around a mark that still mean it
let touched = false; // whether the last pointer was a finger or a pen
let hovered = false; // whether the tip is there because the mouse is: a tip of the keyboard stays when the mouse leaves

function interactive(mark, point, now) {
  filled(mark, { "data-point": point.id, tabindex: point === now ? 0 : -1, role: "button",
    "aria-label": describe(point), "aria-pressed": String(point === now) }, []);
  mark.addEventListener("focus", (event) => {
    if (event.relatedTarget && mark.matches(":focus-visible")) bringIntoView(point); // the keyboard came here
    const box = markOf(point).getBoundingClientRect();
    showTip(point, box.right, box.bottom);
  });
  mark.addEventListener("blur", hideTip);
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
  markOf(next).focus();
  return true;
}
const markOf = (point) => document.querySelector(`#front [data-point="${CSS.escape(point.id)}"]`);
function bringIntoView(point) {
  const shift = placeOf(point).map((value, k) => {
    const [low, high] = view.slice(2 * k, 2 * k + 2);
    return value < low || value > high ? value - (low + high) / 2 : 0;
  });
  if (shift[0] || shift[1]) moveView(...shift);
}

function showTip(point, x, y) {
  const tip = $("tip");
  const rows = REWARDS.map((name) => element("div", {}, named(name), `${arrowOf(name)} ${scoreWords(point, name)}`));
  const sure = point.front_probability === null ? "" : ` (on the front in ${percent(point.front_probability)} of resamples)`;
  tip.replaceChildren(element("b", {}, point.id), element("div", { class: "quiet" }, `${KIND_WORDS[point.kind]}, ${standing(point)}${sure}`), ...rows);
  tip.hidden = hovered = false;
  const [left, top] = touched ? besideChart(tip, x, y) : [besidePlace(x, tip.offsetWidth, innerWidth), besidePlace(y, tip.offsetHeight, innerHeight)];
  tip.style.left = `${Math.max(4, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8)) + scrollX}px`;
  tip.style.top = `${Math.max(4, top) + scrollY}px`;
}
const besidePlace = (place, size, room) => (place + 14 + size + 8 <= room ? place + 14 : place - 14 - size);
function besideChart(tip, x, y) {
  // below the chart, or above it, or else at its end away from the finger
  const chart = $("front").getBoundingClientRect();
  const below = chart.bottom + 4, above = chart.top - tip.offsetHeight - 4, last = innerHeight - tip.offsetHeight - 8;
  const away = y > (chart.top + chart.bottom) / 2 ? chart.top : last;
  return [x - tip.offsetWidth / 2, below <= last ? below : above >= 4 ? above : away];
}
const hideTip = () => { $("tip").hidden = true; };

function moveView(dx, dy) {
  view = [view[0] + dx, view[1] + dx, view[2] + dy, view[3] + dy];
  drawFront();
}
function zoom(factor, cx = 0.5, cy = 0.5) {
  const [xLow, xHigh, yLow, yHigh] = view;
  const x = xLow + cx * (xHigh - xLow), y = yLow + cy * (yHigh - yLow);
  const up = ONE ? 1 : factor;
  view = [x - (x - xLow) * factor, x + (xHigh - x) * factor, y - (y - yLow) * up, y + (yHigh - y) * up];
  hideTip();
  drawFront();
}
function zoomedIn() {
  const [low, high] = fullView();
  return view[1] - view[0] < 0.999 * (high - low);
}
function pixels() {
  // the plot's area inside its axes, on the screen
  const box = frontBox(), drawn = $("front").firstChild.getBoundingClientRect(), scale = drawn.width / box.width;
  return { left: drawn.left + scale * box.left, bottom: drawn.bottom - scale * box.bottom,
    width: scale * (box.width - box.left - box.right), height: scale * (box.height - box.top - box.bottom) };
}
function fractions(event) {
  const area = pixels();
  return [(event.clientX - area.left) / area.width, (area.bottom - event.clientY) / area.height];
}
function pointAt(event) {
  if (event.target.dataset.point) return BY_ID.get(event.target.dataset.point);
  const area = pixels(), [cx, cy] = fractions(event);
  const far = (point) => {
    const [x, y] = placeOf(point).map((value, k) => (value - view[2 * k]) / (view[2 * k + 1] - view[2 * k]));
    const hidden = x < 0 || x > 1 || y < 0 || y > 1;
    return hidden ? Infinity : Math.hypot((x - cx) * area.width, (y - cy) * area.height);
  };
  const best = POINTS.reduce((a, b) => (far(b) < far(a) ? b : a));
  return far(best) <= REACH ? best : null;
}
function startZoom() {
  $("zoom-in").addEventListener("click", () => zoom(0.7));
  $("zoom-out").addEventListener("click", () => zoom(1 / 0.7));
  $("zoom-reset").addEventListener("click", () => { view = null; drawFront(); });
  $("front").addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey && !event.metaKey) return; // a plain wheel scrolls the page
    event.preventDefault();
    zoom((event.deltaY || event.deltaX) > 0 ? 1.15 : 1 / 1.15, ...fractions(event));
  }, { passive: false });
  $("front").addEventListener("dblclick", (event) => zoom(0.6, ...fractions(event)));
}
function startPointer() {
  const area = $("front");
  let last = null, dragged = false, limit = null;
  const holdLimit = (event) => {
    limit = event.target.dataset.limit;
    area.setPointerCapture(event.pointerId);
    event.target.focus({ preventScroll: true });
    event.preventDefault();
  };
  area.addEventListener("pointerdown", (event) => {
    dragged = false;
    touched = event.pointerType !== "mouse";
    if (event.target.dataset.limit) return holdLimit(event);
    if (event.isPrimary && event.button === 0 && (!touched || zoomedIn())) last = event; // else a finger scrolls the page
  });
  area.addEventListener("pointermove", (event) => {
    if (limit) {
      dragged = true;
      return dragLimit(limit, fractions(event));
    }
    if (!last) return event.pointerType === "mouse" && hover(event);
    const dx = last.clientX - event.clientX, dy = event.clientY - last.clientY;
    if (!dragged && Math.hypot(dx, dy) < 4) return;
    if (!dragged) area.setPointerCapture(event.pointerId);
    [last, dragged] = [event, true];
    hideTip();
    const { width, height } = pixels();
    moveView((dx / width) * (view[1] - view[0]), ONE ? 0 : (dy / height) * (view[3] - view[2]));
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { last = limit = null; });
  area.addEventListener("pointerleave", unhover);
  area.addEventListener("click", (event) => {
    const point = dragged ? null : pointAt(event);
    dragged = false;
    if (!point) return hideTip();
    pick(point);
    markOf(point).focus({ preventScroll: true });
  });
  addEventListener("pointerdown", (event) => { if (!area.contains(event.target)) hideTip(); });
  addEventListener("keydown", (event) => {
    touched = false;
    if (event.key === "Escape") hideTip();
  });
}
function hover(event) {
  const point = pointAt(event);
  $("front").classList.toggle("near", point !== null);
  if (!point) return unhover();
  showTip(point, event.clientX, event.clientY);
  hovered = true;
}
function unhover() {
  if (hovered) hideTip();
}
