// The preference, the point it recommends, and the command that makes it.
function startChoice() {
  if (REWARDS.length === 2) $("sliders").append(pairSlider());
  else if (!ONE) $("sliders").append(...REWARDS.map((name, k) => ownSlider(name, k)));
  $("rules").hidden = $("scales").hidden = ONE;
  if (ONE) $("choice-title").textContent = "The best point";
  for (const input of document.querySelectorAll("input[name=rule], input[name=scale]")) {
    input.addEventListener("change", () => change({ [input.name]: input.value, picked: null }));
  }
  $("rule-weights").disabled = !canUseWeights;
  $("copy").addEventListener("click", async () => {
    await copyText($("command").textContent);
    $("copy").textContent = "Copied";
    setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
  });
  onChange(drawChoice);
  drawAsked();
}
const RULE_WORDS = { validation: "Recommended, by validation", "lambda = mu": "For comparison, weights = preference" };
function drawAsked() {
  const preference = report.choices.find((choice) => choice.rule === "validation");
  if (preference) state.mu = REWARDS.map((name) => preference.asked[name] ?? 0);
  $("asked").hidden = !report.choices.length;
  $("asked").append(element("h3", {}, "Asked for"), ...report.choices.map((choice) => {
    const asked = Object.entries(choice.asked).map(([name, value]) => `${name} ${value}`).join(", ");
    const button = element("button", { type: "button" }, element("b", {}, [RULE_WORDS[choice.rule] ?? choice.rule, asked].filter(Boolean).join(": ")), ` ${choice.folder}. ${choice.words}`);
    button.addEventListener("click", () => change({ picked: choice.nearest, choice }));
    return button;
  }));
}
async function copyText(text) {
  if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text);
  const range = document.createRange();
  range.selectNodeContents($("command"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  return document.execCommand("copy");
}
function pairSlider() {
  const input = element("input", { type: "range", id: "mu", min: 0, max: 100, step: 1, value: 50,
    "aria-label": `Preference between ${REWARDS.map((name) => name + wayWords(name)).join(" and ")}` });
  const [left, right] = REWARDS.map((name, k) => element("output", { for: "mu", id: `mu-${k}` }));
  const show = () => {
    const shares = percents(state.mu);
    input.value = shares[1];
    [left, right].forEach((output, k) => output.replaceChildren(named(REWARDS[k]), `${arrowOf(REWARDS[k])} ${shares[k]} %`));
    input.setAttribute("aria-valuetext", `${left.textContent}, ${right.textContent}`);
  };
  input.addEventListener("input", () => change({ mu: [1 - input.value / 100, input.value / 100], picked: null }));
  onChange(show);
  return element("div", { class: "slider pair" }, left, right, input);
}
function ownSlider(name, k) {
  const input = element("input", { type: "range", id: `mu-${k}`, min: 0, max: 100, step: 1 });
  const shown = element("output", { for: `mu-${k}` });
  input.addEventListener("input", () => change({ mu: withShare(k, input.value / 100), picked: null }));
  onChange(() => {
    input.value = percents(state.mu)[k];
    shown.textContent = `${input.value} %`;
    input.setAttribute("aria-valuetext", `${name}${wayWords(name)} ${shown.textContent} of the whole`);
  });
  return element("div", { class: "slider" }, element("label", { for: `mu-${k}` }, named(name), arrowOf(name)), shown, input);
}
function withShare(k, value) {
  // the others share the rest as before, or equally where they had nothing
  const others = state.mu.reduce((sum, own, j) => (j === k ? sum : sum + own), 0);
  const equal = 1 / (state.mu.length - 1);
  return state.mu.map((own, j) => (j === k ? value : (1 - value) * (others > 1e-9 ? own / others : equal)));
}

let described = "";
const say = (words) => { $("spoken").textContent = words; };
function drawChoice() {
  const point = chosen();
  const choice = state.picked && state.choice;
  const asked = choice ? choice.weights : !state.picked && state.rule === "weights" && !limited() ? weightsOf(state.mu) : null;
  const weights = asked ?? point.weights;
  const exact = !asked || Object.entries(asked).every(([name, value]) => Math.abs((point.weights[name] ?? 0) - value) < 1e-6);
  const parts = [
    element("div", { class: "quiet small" }, choice ? `Asked for: ${RULE_WORDS[choice.rule] ?? choice.rule}` : state.picked ? "Chosen by hand" : limited() ? "For this preference, within the limits" : "For this preference"),
    element("div", { class: "id", id: "chosen-id" }, point.id),
    element("p", { class: "quiet small" }, placeWords(point)),
    within(point) ? null : element("p", { class: "fails small", id: "outside" }, state.picked ? "Outside the limits." : "No measured mix is within the limits; this one misses them by least."),
  ];
  if (state.picked) {
    const back = element("button", { type: "button", id: "back" }, "Back to the preference");
    back.addEventListener("click", () => change({ picked: null }));
    parts.push(back);
  }
  if (Object.keys(weights).length) {
    parts.push(element("h3", {}, "Weights"), ...Object.entries(weights).map(([name, value]) => gauge(name, number(value, 2), [["weight", 0, value]])));
  }
  parts.push(element("h3", {}, exact ? "Expected scores" : `Expected scores, of the nearest measured soup ${point.id}`));
  parts.push(...REWARDS.map((name) => scoreGauge(name, point.scores[name])));
  $("chosen").replaceChildren(...parts.filter(Boolean));
  if (described !== describe(point)) say(described = describe(point));
  $("command").textContent = choice ? choice.command : commandFor(point, weights);
  $("command").parentNode.hidden = !$("command").textContent;
}
function placeWords(point) {
  const sure = point.front_probability === null || !point.on_front ? "" : ` in ${percent(point.front_probability)} of resamples`;
  return `${KIND_WORDS[point.kind]}${point.lambda === null ? "" : `, lambda ${number(point.lambda, 2)}`}, ${standing(point)}${sure}`;
}
function gauge(name, words, spans) {
  const track = element("span", { class: "track", "aria-hidden": "true" });
  for (const [kind, from, to] of spans) {
    const span = element("span", { class: kind });
    span.style.left = `${100 * Math.max(0, Math.min(1, from))}%`;
    if (kind !== "dot") span.style.width = `${100 * Math.max(0, Math.min(1, to) - Math.max(0, from))}%`;
    track.append(span);
  }
  return element("div", { class: "gauge" }, element("b", { dir: "auto" }, name), track, element("i", {}, words));
}
function scoreGauge(name, score) {
  const [low, high] = extent(name);
  const place = scaler(low, high, 0, 1);
  const ends = spread(score);
  const range = ends ? [["range", ...ends.map(place)]] : [];
  return gauge(name + arrowOf(name), withInterval(score, DIGITS[name]), [...range, ["dot", place(score.mean)]]);
}

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\"'\"'")}'`);
// An id of two digits for each weight, or of more where two do not tell it.
function idOf(weights) {
  const short = (value) => (Math.abs(Number(value.toFixed(2)) - value) < 1e-9 ? value.toFixed(2) : String(Number(value.toPrecision(4))));
  return ADAPTERS.filter((name) => name in weights).map((name) => short(weights[name])).join("-");
}
// What makes this model; nothing for those that no mix of adapters is.
function commandFor(point, weights) {
  if (["base", "ensemble", "mod"].includes(point.kind) || !Object.keys(weights).length) return "";
  const parts = Object.entries(weights).filter(([, value]) => Math.abs(value) > 1e-9);
  const digits = (value) => String(Number(value.toFixed(10)));
  if (point.kind === "morl" || point.kind === "checkpoint") return quoted(report.adapters[parts[0][0]] ?? parts[0][0]);
  const words = ["rsoup", "mix", ...parts.map(([name]) => quoted(report.adapters[name] ?? name)), ...parts.map(([, value]) => `-w ${digits(value)}`)];
  const values = parts.map(([, value]) => value);
  let rest = 1 - values.reduce((a, b) => a + b, 0);
  if (Math.abs(rest) > 1e-6 && report.method) {
    words.push("--base-weight", digits(rest)); // an evaluation gives the base what the adapters leave
    if (rest > 0) rest = 0;
  }
  if (values.some((value) => value < 0) || Math.abs(rest) > 1e-6) words.push("--allow-extrapolation");
  if (new Set(parts.map(([name]) => report.starts[name]).filter(Boolean)).size > 1) words.push("--allow-different-starts");
  if (report.method) words.push("--method", report.method);
  return [...words, "-o", `soup-${idOf(weights)}`].join(" ");
}
