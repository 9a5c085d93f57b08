// What the front answers: the tip, zoom, pan, and the keys that go from point to point.
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
