// Data, state and small helpers. Texts reach the page through textContent only.
const DATA = JSON.parse(document.getElementById("data").textContent);
const { report, texts } = DATA;
const REWARDS = report.rewards;
const ONE = REWARDS.length === 1;
const MINIMIZED = new Set(REWARDS.filter((name) => report.directions[name] === "minimize"));
const SIGN = Object.fromEntries(REWARDS.map((name) => [name, MINIMIZED.has(name) ? -1 : 1])); // turns a score into a gain
// Which way a reward is better: said of every one as soon as lower is better for some.
const wayWords = (name) => (MINIMIZED.size && REWARDS.includes(name) ? ` (${MINIMIZED.has(name) ? "lower" : "higher"} is better)` : "");
const arrowOf = (name) => (MINIMIZED.size && REWARDS.includes(name) ? (MINIMIZED.has(name) ? " ↓" : " ↑") : "");
const POINTS = report.points;
const BY_ID = new Map(POINTS.map((point) => [point.id, point]));
const SOUPS = POINTS.filter((point) => point.kind === "soup" || point.kind === "expert");
const ADAPTERS = [...new Set(POINTS.flatMap((point) => Object.keys(point.weights)))];
const MODELS = POINTS.filter((point) => point.kind === "model");
const CANDIDATES = [SOUPS, MODELS, POINTS].find((points) => points.length);
const KIND_WORDS = { soup: "soup", expert: "expert", morl: "MORL run", base: "base model", ensemble: "ensemble of predictions", mod: "MOD (mixed logits)", mix: "point of another front", checkpoint: "checkpoint", model: "model" };
// What points are compared on: the rewards, and measures that differ between points.
const valueOf = (point, name) => point.scores[name]?.mean ?? point.measures[name] ?? null;
const knownOf = (name) => POINTS.map((point) => valueOf(point, name)).filter((value) => value !== null);
const MEASURES = [...new Set(POINTS.flatMap((point) => Object.keys(point.measures)))].filter((name) => !(name in SIGN) && new Set(knownOf(name)).size > 1);
const AXES = [...REWARDS, ...MEASURES];
const COSTS = new Set(["completion_tokens", "kl", "surprise", "base_perplexity", "passes_per_token"]); // more of these is dearer
for (const name of MEASURES) SIGN[name] = COSTS.has(name) ? -1 : 1;
const RANGES = Object.fromEntries(AXES.map((name) => [name, [Math.min(...knownOf(name)), Math.max(...knownOf(name))]]));

const state = {
  mu: REWARDS.map(() => 1 / REWARDS.length),
  rule: "best",
  scale: "raw",
  picked: null, // a point chosen by hand, which the preference then does not move
  choice: null, // the asked-for choice that it was picked by, if one
  x: REWARDS[0],
  y: REWARDS[1] ?? REWARDS[0],
  prompt: 0,
  beside: "",
  marks: true,
  limits: {}, // name -> [low, high] that points have to lie within; null where it is open
  order: AXES, // of the parallel axes
  flipped: [], // axes whose worse end is up
};
const listeners = [];
const onChange = (listener) => listeners.push(listener);
function change(update) {
  Object.assign(state, update);
  for (const listener of listeners) listener();
}

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}
function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const named = (name) => element("bdi", {}, name);

// Digits that tell 1/500 of a range apart.
const digitsFor = (range) => (range > 0 ? Math.max(0, Math.min(8, 2 - Math.floor(Math.log10(range)))) : 3);
const DIGITS = Object.fromEntries(AXES.map((name) => [name, digitsFor(RANGES[name][1] - RANGES[name][0])]));

function number(value, digits) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  return Number(text) ? text.replace("-", "−") : (0).toFixed(digits > 4 ? 0 : digits);
}
function withInterval(estimate, digits = digitsFor(Math.max(...[estimate.mean ?? estimate.value ?? estimate.gap, ...(estimate.interval ?? [])].map(Math.abs)))) {
  const mean = number(estimate.mean ?? estimate.value ?? estimate.gap, digits);
  if (estimate.interval) return `${mean} [${number(estimate.interval[0], digits)}, ${number(estimate.interval[1], digits)}]`;
  if (!estimate.stderr) return mean;
  const error = estimate.stderr.toFixed(digits);
  return `${mean} ± ${Number(error) ? error : estimate.stderr.toPrecision(1)}`;
}
// What a bar or a band spans: the interval, or one standard error on both sides where there is none.
const spread = (score) => score.interval ?? (score.stderr ? [score.mean - score.stderr, score.mean + score.stderr] : null);
const spreadWords = report.bootstrap ? "95 % intervals" : "± standard error";
const scoreWords = (point, name) => withInterval(point.scores[name], DIGITS[name]);
const standing = (point) => (point.on_front ? "on the front" : `beaten by ${point.dominated_by}`);
const percent = (share) => `${Math.round(share * 100)} %`;
// Whole per cents that sum to 100: the largest remainders are rounded up.
function percents(mu) {
  const exact = mu.map((value) => Number((100 * value).toFixed(9)));
  const whole = exact.map(Math.floor);
  const order = [...mu.keys()].sort((a, b) => exact[b] - whole[b] - (exact[a] - whole[a]));
  const missing = 100 - whole.reduce((a, b) => a + b, 0);
  for (const k of order.slice(0, missing)) whole[k] += 1;
  return whole;
}
// The part of the way from the worst measured score to the best.
const share = (name, value) => {
  const [low, high] = RANGES[name];
  return high > low ? (SIGN[name] > 0 ? value - low : high - value) / (high - low) : 0;
};

// The point a preference recommends: the largest mu . R, minimised rewards taken negative, or the one whose weights are nearest to the preference.
function recommended() {
  return state.rule === "weights" ? nearestTo(weightsOf(state.mu)) : bestFor(state.mu);
}
// What scores, a function of a reward's name, are worth.
const worth = (mu, score) => REWARDS.reduce((sum, name, k) => sum + mu[k] * (state.scale === "scaled" ? share(name, score(name)) : SIGN[name] * score(name)), 0);
function bestFor(mu) {
  const value = (point) => worth(mu, (name) => point.scores[name].mean);
  return allowed().reduce((best, point) => (value(point) > value(best) ? point : best));
}
function weightsOf(mu) {
  const weights = new Map(REWARDS.map((name, k) => [report.experts[name], mu[k]]));
  return Object.fromEntries(ADAPTERS.filter((name) => weights.has(name)).map((name) => [name, weights.get(name)]));
}
function nearestTo(weights) {
  const names = Object.keys(weights);
  const distance = (point) => names.reduce((sum, name) => sum + Math.abs((point.weights[name] ?? 0) - weights[name]), 0);
  const made = allowed().filter((point) => Object.keys(point.weights).length);
  return (made.length ? made : allowed()).reduce((best, point) => (distance(point) < distance(best) - 1e-9 ? point : best));
}
const canUseWeights = REWARDS.every((name) => name in report.experts);
const chosen = () => (state.picked ? BY_ID.get(state.picked) : recommended());
const pick = (point) => change({ picked: point.id, choice: null });
