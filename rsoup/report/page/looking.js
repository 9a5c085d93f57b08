// Choices between two answers whose origin is hidden, and the preference that they show.
const MIXES = SOUPS.length ? SOUPS : MODELS;
const ABOUT = report.made_from[0].about;
const ORIGIN = { rewards: REWARDS, prompts: ABOUT.prompts?.sha256 ?? null, seed: ABOUT.seed ?? null, adapters: ABOUT.adapters ?? {} };
const STORE = `rsoup choices ${JSON.stringify(ORIGIN)}`;
const LIKED = { left: 1, right: 0, tie: 0.5 };
const MOST_PAIRS = 120, TASTES = 40, FIRST_CHOICES = 5;
let clicks = []; // { prompt, left, right, chosen }
let offered = null; // the pair on show
let foundPreference = null; // what the clicks say

const SHARES = MIXES.map((point) => REWARDS.map((name) => share(name, point.scores[name].mean)));
const rowOfMix = new Map(MIXES.map((point, k) => [point.id, k]));
function startLooking() {
  $("looking").hidden = ONE || MIXES.length < 2 || !texts || MIXES.some((point) => !(point.id in texts.points));
  if ($("looking").hidden) return;
  $("look-least").textContent = LEAST;
  clicks = stored();
  for (const [id, act] of [["look-tie", () => choose("tie")], ["look-skip", () => choose("skip")], ["look-undo", undo], ["clicks-clear", () => setClicks([])], ["clicks-out", exportClicks]]) {
    $(id).addEventListener("click", act);
  }
  $("clicks-in").addEventListener("click", () => $("clicks-file").click());
  $("clicks-file").addEventListener("change", importClicks);
  $("looking").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { 1: () => choose("left"), 2: () => choose("right"), 0: () => choose("tie"), s: () => choose("skip"), u: undo }[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
    $("looking").focus({ preventScroll: true });
  });
  drawLooking();
}
function stored() {
  try {
    return checkedClicks(JSON.parse(localStorage.getItem(STORE)) ?? []);
  } catch {
    return []; // storage is not allowed here, or holds something else
  }
}
function setClicks(update) {
  clicks = update;
  try {
    localStorage.setItem(STORE, JSON.stringify(clicks));
  } catch {
    // kept as long as the page is open, and in what is exported
  }
  drawLooking();
}
function choose(chosen) {
  if (offered) setClicks([...clicks, { prompt: offered.prompt, left: offered.left, right: offered.right, chosen }]);
}
function undo() {
  if (clicks.length) setClicks(clicks.slice(0, -1));
}

// The next pair follows from the choices so far: one of those whose answer would tell most, on a prompt seldom seen.
function nextPair(found) {
  const random = randomFrom(clicks.length);
  let pairs = MIXES.flatMap((_, a) => MIXES.slice(a + 1).map((_, k) => [a, a + 1 + k]));
  if (pairs.length > MOST_PAIRS) pairs = shuffled(pairs, random).slice(0, MOST_PAIRS);
  const tastes = tastesOf(found);
  const told = pairs.map(([a, b]) => {
    const step = SHARES[a].map((value, k) => value - SHARES[b][k]);
    const odds = tastes.map(([mu, s]) => 1 / (1 + Math.exp(-s * dot(mu, step))));
    return entropy(odds.reduce((sum, p) => sum + p, 0) / odds.length) - odds.reduce((sum, p) => sum + entropy(p), 0) / odds.length;
  });
  const order = [...pairs.keys()].sort((x, y) => told[y] - told[x]);
  for (let from = 0; from < order.length; from += FIRST_CHOICES) {
    for (const k of shuffled(order.slice(from, from + FIRST_CHOICES), random)) {
      const [a, b] = pairs[k].map((row) => MIXES[row].id), prompt = promptFor(a, b, random);
      if (prompt === null) continue;
      return random() < 0.5 ? { prompt, left: a, right: b } : { prompt, left: b, right: a };
    }
  }
  return null;
}
const entropy = (p) => (p <= 0 || p >= 1 ? 0 : -p * Math.log(p) - (1 - p) * Math.log(1 - p));
function shuffled(list, random) {
  const own = [...list];
  for (let k = own.length - 1; k > 0; k--) {
    const other = Math.floor(random() * (k + 1));
    [own[k], own[other]] = [own[other], own[k]];
  }
  return own;
}
// Evenly spaced draws of preferences and sharpness from what the choices leave possible.
function tastesOf(found) {
  const whole = found.joint.reduce((sum, row) => sum + row.reduce((a, b) => a + b, 0), 0);
  const drawn = [];
  let below = 0;
  found.joint.forEach((row, h) => row.forEach((weight, s) => {
    below += weight / whole;
    while (drawn.length < TASTES && (drawn.length + 0.5) / TASTES <= below) drawn.push([found.mus[h], SHARPNESS[s]]);
  }));
  return drawn;
}
function promptFor(a, b, random) {
  const seen = (row) => clicks.filter((click) => click.prompt === row).length;
  const again = (row) => clicks.some((click) => click.prompt === row && [a, b].every((id) => id === click.left || id === click.right));
  const differs = (row) => texts.points[a].completions[row].trim() !== texts.points[b].completions[row].trim();
  const rows = [...texts.prompts.keys()].filter((row) => differs(row) && !again(row));
  const least = Math.min(...rows.map(seen)), fresh = rows.filter((row) => seen(row) === least);
  return fresh.length ? fresh[Math.floor(random() * fresh.length)] : null;
}

function drawLooking() {
  const told = clicks.filter((click) => click.chosen !== "skip").map((click) => [rowOfMix.get(click.left), rowOfMix.get(click.right), LIKED[click.chosen]]);
  foundPreference = preferred(SHARES, told);
  offered = nextPair(foundPreference);
  $("look-undo").disabled = $("clicks-clear").disabled = $("clicks-out").disabled = !clicks.length;
  $("look-tie").disabled = $("look-skip").disabled = !offered;
  const skipped = clicks.length - told.length;
  $("look-note").textContent = `${told.length} choices${skipped ? `, ${skipped} skipped` : ""}.`;
  if (offered) {
    $("look-prompt").replaceChildren(wordsOrEmpty(texts.prompts[offered.prompt]));
    $("pair").replaceChildren(...["left", "right"].map(lookCard));
  } else {
    $("look-prompt").textContent = "";
    $("pair").replaceChildren(element("p", { class: "quiet" }, "There is no other pair of answers that differ."));
  }
  drawFound(foundPreference);
  for (const box of $("looking").querySelectorAll(".text")) letScroll(box);
}
function lookCard(side, k) {
  const button = element("button", { type: "button", id: `look-${side}` }, `This one (${k + 1})`);
  button.addEventListener("click", () => {
    choose(side);
    $(`look-${side}`)?.focus({ preventScroll: true });
  });
  return element("article", { class: "answer blind", "aria-label": `Answer ${k + 1}` }, element("p", { class: "text", dir: "auto" }, wordsOrEmpty(texts.points[offered[side]].completions[offered.prompt])), button);
}
function drawFound(found) {
  if (!found.choices) {
    $("look-found").replaceChildren(element("p", { class: "quiet small" }, "Nothing is known of your preference yet: it will stand here."));
    return;
  }
  const best = MIXES[found.best], parts = [];
  const missing = found.choices < LEAST ? `at least ${LEAST} choices are needed` : `several mixes may still be the best for you (${percent(found.sure)} sure of one; known from ${percent(SURE)} on)`;
  parts.push(element("p", { id: "look-verdict" }, element("span", { class: `chip ${found.known ? "holds" : "unknown"}` }, found.known ? "known" : "not known yet"), " ",
    found.known ? `The mix for you is ${best.id}: with probability ${percent(found.sure)} no other ${SOUPS.length ? "soup" : "model"} is better for you by more than ${NEAR} of the whole range.` : `Choose on: ${missing}.`));
  parts.push(element("h3", {}, `How much each reward counts for you${found.known ? "" : ", so far"} (shares of 1, with 95 % intervals)`));
  parts.push(...REWARDS.map((name, k) => {
    const [low, high] = found.interval[k];
    return gauge(name + arrowOf(name), `${number(found.mu[k], 2)} [${number(low, 2)}, ${number(high, 2)}]`, [["range", low, high], ["dot", found.mu[k]]]);
  }));
  parts.push(element("p", { class: "quiet small" }, `It agrees with ${found.agreeing} of the ${found.decided} choices in which you liked one better. A mix that you like for something that no reward measures is not found this way.`));
  if (found.known) {
    const use = element("button", { type: "button", id: "look-use" }, "Set the sliders above to it");
    use.addEventListener("click", () => change({ mu: found.mu, scale: "scaled", rule: "best", picked: null }));
    parts.push(element("div", { class: "command" }, element("code", { id: "look-command" }, commandFor(best, best.weights))), use);
  }
  const rows = clicks.map((click, k) => element("li", {}, `${k + 1}. ${lookWords(click)}`));
  const reveal = element("details", { id: "look-reveal" }, element("summary", {}, "Which mixes the answers came from (you then know what you choose)"), element("ol", { class: "plain small" }, ...rows));
  reveal.open = $("look-reveal")?.open ?? false;
  const how = element("details", { id: "look-how" }, element("summary", {}, "How the preference is read"), element("p", { class: "small" }, "The chance that you like an answer of A better than one of B grows with how much better A's mean scores are for your preference, each reward scaled to 0–1 over all points (the model of Bradley and Terry, with a flat prior)."));
  how.open = $("look-how")?.open ?? false;
  $("look-found").replaceChildren(...parts, how, reveal);
}
function lookWords({ prompt, left, right, chosen }) {
  const other = chosen === "left" ? right : left, liked = chosen === "left" ? left : right;
  const scores = (id) => SCORED.map((name) => number(texts.points[id].scores[name][prompt], DIGITS[name])).join(" / ");
  const pair = (a, b) => `${a} (${scores(a)}) `.concat(chosen === "tie" ? `and ${b} (${scores(b)}): cannot tell` : chosen === "skip" ? `and ${b} (${scores(b)}): skipped` : `rather than ${b} (${scores(b)})`);
  return pair(liked, other);
}

function exportClicks() {
  download("choices.json", JSON.stringify({ schema: 1, ...ORIGIN, choices: clicks }, null, 1) + "\n", "application/json");
}
async function importClicks() {
  const file = $("clicks-file").files[0];
  $("clicks-file").value = "";
  if (!file) return;
  try {
    const own = JSON.parse(await file.text());
    const same = own.schema === 1 && ["rewards", "prompts", "seed"].every((key) => JSON.stringify(own[key]) === JSON.stringify(ORIGIN[key])) &&
      Object.entries(own.adapters).every(([name, sha]) => !(name in ORIGIN.adapters) || ORIGIN.adapters[name] === sha);
    if (!same) throw new Error("it was made on another evaluation");
    setClicks(checkedClicks(own.choices));
  } catch (problem) {
    $("look-note").textContent = `${file.name} was not read: ${problem.message}.`;
  }
}
function checkedClicks(list) {
  const fits = ({ prompt, left, right, chosen }) => Number.isInteger(prompt) && prompt >= 0 && prompt < texts.prompts.length &&
    rowOfMix.has(left) && rowOfMix.has(right) && left !== right && ["left", "right", "tie", "skip"].includes(chosen);
  if (!Array.isArray(list) || !list.every(fits)) throw new Error("it holds choices between answers that are not here");
  return list.map(({ prompt, left, right, chosen }) => ({ prompt, left, right, chosen }));
}
