// Limits on rewards and measures, and what a little more of one costs in the others.
const limited = () => Object.keys(state.limits).length > 0;
const keeps = ([low, high], value) => value !== null && (low === null || value >= low) && (high === null || value <= high);
const within = (point) => Object.entries(state.limits).every(([name, limit]) => keeps(limit, valueOf(point, name)));
function allowed() {
  const kept = CANDIDATES.filter(within);
  return kept.length ? kept : [nearestMiss()];
}
// The candidate whose worst lack, in parts of the range, is least.
function nearestMiss() {
  const lack = (point) => Math.max(...Object.entries(state.limits).map(([name, [low, high]]) => {
    const value = valueOf(point, name), [least, most] = RANGES[name];
    return value === null ? Infinity : Math.max((low ?? value) - value, value - (high ?? value), 0) / (most - least || 1);
  }));
  return CANDIDATES.reduce((best, point) => (lack(point) < lack(best) ? point : best));
}
function setLimit(name, low, high) {
  const { [name]: old, ...others } = state.limits;
  change({ limits: low === null && high === null ? others : { ...others, [name]: [low, high] } });
}
// The end of a reward's limit that keeps out worse scores: 0 the lower, 1 the upper one.
const sideOf = (name) => (SIGN[name] > 0 ? 0 : 1);
const limitOf = (name, side) => state.limits[name]?.[side] ?? null;
function setSide(name, side, value) {
  const own = [...(state.limits[name] ?? [null, null])];
  own[side] = value;
  setLimit(name, ...own);
}

// Neighbours among the mixes: no third one lies within the ball over the two (Gabriel and Sokal 1969).
const EDGES = neighbours(CANDIDATES.filter((point) => Object.keys(point.weights).length));
function neighbours(points) {
  if (points.length > 150) return [];
  const far = (a, b) => ADAPTERS.reduce((sum, name) => sum + ((a.weights[name] ?? 0) - (b.weights[name] ?? 0)) ** 2, 0);
  const alone = (a, b) => !points.some((c) => c !== a && c !== b && far(a, c) + far(b, c) < far(a, b) - 1e-9);
  return points.flatMap((a, k) => points.slice(k + 1).filter((b) => far(a, b) > 1e-12 && alone(a, b)).map((b) => [a, b]));
}
// The best scores within limits, on straight lines between neighbouring mixes and at every mix.
function bestWithin(limits) {
  let best = null;
  for (const [a, b] of [...EDGES, ...CANDIDATES.map((point) => [point, point])]) {
    let [from, to] = [0, 1];
    for (const [name, [low, high]] of Object.entries(limits)) {
      const start = valueOf(a, name), slope = valueOf(b, name) - start;
      if (start === null || valueOf(b, name) === null) [from, to] = [1, 0];
      for (const [bound, sign] of [[low, 1], [high, -1]]) {
        if (bound === null) continue;
        const lack = sign * (bound - start), rise = sign * slope;
        if (rise > 0) from = Math.max(from, lack / rise);
        else if (rise < 0) to = Math.min(to, lack / rise);
        else if (lack > 1e-12) [from, to] = [1, 0];
      }
    }
    if (from > to + 1e-12) continue;
    for (const part of [from, to]) {
      const at = (name) => (valueOf(a, name) === null || valueOf(b, name) === null ? null : valueOf(a, name) + part * (valueOf(b, name) - valueOf(a, name)));
      const value = worth(state.mu, at);
      if (!best || value > best.value + 1e-12) best = { value, at };
    }
  }
  return best;
}
// A twentieth where that is a sensible part of the range, else a round part of it.
function stepOf(name) {
  const range = RANGES[name][1] - RANGES[name][0];
  if (range >= 0.15 && range <= 3) return 0.05;
  const power = 10 ** Math.floor(Math.log10(range / 15 || 1));
  return [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= range / 15) ?? power;
}
function costOf(name) {
  const here = chosen(), start = valueOf(here, name), step = SIGN[name] * stepOf(name);
  if (start === null || RANGES[name][0] === RANGES[name][1]) return "";
  const digits = Math.max(DIGITS[name], 2), own = [...(state.limits[name] ?? [null, null])];
  own[sideOf(name)] = start + step;
  const more = `${number(Math.abs(step), Math.max(0, Math.ceil(-Math.log10(Math.abs(step)) - 1e-9)))} ${step > 0 ? "more" : "less"} (to ${number(start + step, digits)})`;
  const found = bestWithin({ ...state.limits, [name]: own });
  const beside = Object.keys(state.limits).some((other) => other !== name) ? " within the other limits" : "";
  if (!found) return `${more}: no mix reaches it${beside}`;
  const others = (ONE || !REWARDS.includes(name) ? AXES : REWARDS).filter((other) => other !== name && (REWARDS.includes(other) || ONE));
  const changes = others.map((other) => {
    const change = Number((found.at(other) - valueOf(here, other)).toFixed(Math.max(2, DIGITS[other])));
    return [SIGN[other] * change < 0, change === 0 ? null : `${other} ${change > 0 ? "+" : ""}${number(change, Math.max(2, DIGITS[other]))}`];
  }).filter(([, words]) => words);
  return changes.some(([lost]) => lost) ? `${more} costs: ${changes.map(([, words]) => words).join(", ")}` : `${more} costs nothing`;
}

const upward = (name) => (SIGN[name] > 0) !== state.flipped.includes(name); // whether larger values are drawn higher
function startLimits() {
  $("limits").hidden = AXES.length < 2;
  $("limits-clear").addEventListener("click", () => change({ limits: {} }));
  $("limits-help").textContent = "What more costs: of all mixes that have so much more, the best for the preference above is compared with the chosen point, and what it has less of the other rewards is the cost. Between neighbouring measured mixes a straight line is taken, of means.";
  drawBounds();
  onChange(() => {
    if ([...$("bounds").children].map((row) => row.dataset.axis).join("\n") !== state.order.join("\n")) drawBounds();
    for (const row of $("bounds").children) fillBound(row, row.dataset.axis);
    $("limits-clear").disabled = !limited();
  });
}
function drawBounds() {
  const held = document.activeElement?.id;
  $("bounds").replaceChildren(...state.order.map((name) => {
    const k = AXES.indexOf(name);
    const row = element("div", { class: "bound", "data-axis": name, role: "group", "aria-label": name }, element("b", { dir: "auto" }, name, element("small", { class: "quiet" }, wayWords(name))));
    if (AXES.length > 2) row.append(element("span", { class: "moves" }, ...[[-1, "◀", "to the left"], [1, "▶", "to the right"]].map(([step, sign, words]) =>
      press(`move-${step}-${k}`, sign, `Move the axis of ${name} ${words}`, () => moveAxis(name, state.order.indexOf(name) + step))),
      press(`flip-${k}`, "⇅", `Turn the axis of ${name} round`, () => change({ flipped: state.flipped.includes(name) ? state.flipped.filter((own) => own !== name) : [...state.flipped, name] }))));
    row.append(element("span", { class: "ends" }, bound(name, 0, "at least"), bound(name, 1, "at most")), element("span", { class: "cost small", id: `cost-${k}` }));
    return row;
  }));
  if (held) $(held)?.focus();
}
function press(id, sign, words, act) {
  const button = element("button", { type: "button", id, "aria-label": words, title: words }, sign);
  button.addEventListener("click", act);
  return button;
}
function bound(name, side, words) {
  const input = element("input", { type: "number", step: "any", id: `bound-${side}-${AXES.indexOf(name)}`, "data-side": side, "aria-label": `${name} ${words}`, placeholder: "–" });
  input.addEventListener("change", () => setSide(name, side, input.value === "" || !Number.isFinite(input.valueAsNumber) ? null : input.valueAsNumber));
  return element("label", { class: "small" }, words, input);
}
function fillBound(row, name) {
  for (const input of row.querySelectorAll("input")) {
    const value = limitOf(name, Number(input.dataset.side));
    input.value = value === null ? "" : Number(value.toFixed(DIGITS[name] + 1));
  }
  row.querySelector(".cost").textContent = costOf(name);
}
function moveAxis(name, place) {
  const order = state.order.filter((own) => own !== name);
  order.splice(Math.max(0, Math.min(order.length, place)), 0, name);
  if (order.join("\n") !== state.order.join("\n")) change({ order });
}

const CORNER = 16; // pixels that a handle without a limit keeps from the end of its axis, where another one may be
// In the front: what lies outside, and a handle on each axis.
function limitMarks(box, x, y) {
  const marks = [];
  const outside = (name, side, scale, across) => {
    const limit = limitOf(name, side);
    if (limit === null) return;
    const at = scale(limit), [left, right, top, bottom] = [box.left, box.width - box.right, box.top, box.height - box.bottom];
    const held = (low, high, value) => Math.max(low, Math.min(high, value));
    const [x0, x1] = across ? [left, right] : side === 0 ? [left, held(left, right, at)] : [held(left, right, at), right];
    const [y0, y1] = !across ? [top, bottom] : side === 0 ? [held(top, bottom, at), bottom] : [top, held(top, bottom, at)];
    marks.push(shape("rect", { class: "outside", x: x0, y: y0, width: x1 - x0, height: y1 - y0 }),
      shape("line", { class: "limit", x1: across ? left : at, x2: across ? right : at, y1: across ? at : top, y2: across ? at : bottom }));
  };
  for (const side of [0, 1]) {
    outside(state.x, side, x, false);
    if (!ONE) outside(state.y, side, y, true);
  }
  return marks;
}
function limitHandles(box, x, y) {
  if (AXES.length < 2 || ONE) return [];
  const handle = (name, scale, low, high, place) => {
    const side = sideOf(name), limit = limitOf(name, side), words = side === 0 ? "at least" : "at most";
    const open = (name === state.x) === (side === 0) ? low + CORNER : high - CORNER;
    const at = limit === null ? open : Math.max(low, Math.min(high, scale(limit)));
    const mark = shape("path", { class: "handle", d: "M0 -9L7 0L0 9L-7 0Z", transform: place(at), tabindex: 0, role: "slider", "data-limit": name,
      "aria-label": `Limit: ${name} ${words}`, "aria-valuemin": RANGES[name][0], "aria-valuemax": RANGES[name][1], "aria-valuenow": limit ?? RANGES[name][side],
      "aria-valuetext": limit === null ? "no limit" : `${words} ${number(limit, DIGITS[name])}` }, shape("title", {}, `Drag for a limit: ${name} ${words} …`));
    mark.addEventListener("keydown", (event) => stepLimit(name, side, event));
    return mark;
  };
  return [handle(state.x, x, box.left, box.width - box.right, (at) => `translate(${at} ${box.height - box.bottom})`),
    handle(state.y, y, box.top, box.height - box.bottom, (at) => `translate(${box.left} ${at})`)];
}
function stepLimit(name, side, event) {
  const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[event.key];
  const [low, high] = RANGES[name];
  if (["Delete", "Backspace", "Escape"].includes(event.key)) setSide(name, side, null);
  else if (way) setSide(name, side, beyond(name, side, (limitOf(name, side) ?? RANGES[name][side]) + (way * (high - low)) / 50));
  else return;
  event.preventDefault();
}
// A limit that leaves nothing out is none.
function beyond(name, side, value) {
  const [low, high] = RANGES[name], rounded = Number(value.toFixed(DIGITS[name]));
  return (side === 0 ? rounded <= low : rounded >= high) ? null : Math.max(low, Math.min(high, rounded));
}
function dragLimit(name, [fx, fy]) {
  const across = name === state.x, [low, high] = across ? view.slice(0, 2) : view.slice(2);
  const value = low + Math.max(0, Math.min(1, across ? fx : fy)) * (high - low);
  setSide(name, sideOf(name), beyond(name, sideOf(name), value));
}
