// Two points against each other, prompt by prompt: wins and losses, parts of the prompts, the worst first.
const duel = { one: "", other: "", parts: "length", part: null, by: "", row: null, drawn: "" };
const TEXTED = texts ? POINTS.filter((point) => point.id in texts.points) : [];
const MOST_PARTS = 12, MOST_LISTED = 200;

function startCompare() {
  $("versus").hidden = TEXTED.length < 2 || !SCORED.length;
  if ($("versus").hidden) return;
  const base = TEXTED.find((point) => point.kind === "base");
  duel.other = (base ?? TEXTED.at(-1)).id;
  duel.by = SCORED[0];
  $("one").append(element("option", { value: "" }, "the chosen point"), ...optionsOf(TEXTED.map((point) => point.id)));
  $("other").append(...optionsOf(TEXTED.map((point) => point.id)));
  $("parts").append(element("option", { value: "length" }, "length of the prompt"), ...Object.keys(texts.columns).filter((name) => partsBy(name).length > 1).map((name) => element("option", { value: `:${name}` }, name)));
  $("lost-by").append(...optionsOf(SCORED));
  for (const [id, key] of [["one", "one"], ["other", "other"], ["parts", "parts"], ["lost-by", "by"]]) {
    $(id).addEventListener("change", () => setDuel({ [key]: $(id).value, row: null, ...(key === "parts" ? { part: null } : {}) }));
  }
  $("swap").addEventListener("click", () => setDuel({ one: duel.other, other: sides()[0].id, row: null }));
  $("lost").addEventListener("keydown", moveLost);
  onChange(drawDuel);
}
const optionsOf = (names) => names.map((name) => element("option", { value: name }, name));
function setDuel(update) {
  Object.assign(duel, update);
  drawDuel();
}
function sides() {
  const one = duel.one || (TEXTED.includes(chosen()) ? chosen().id : TEXTED[0].id);
  return [BY_ID.get(one), BY_ID.get(duel.other)];
}
// A minus B on a reward, null where either has no score.
function differencesOf(name) {
  const [a, b] = sides().map((point) => texts.points[point.id].scores[name]);
  return a.map((value, row) => (value === null || b[row] === null ? null : Number((value - b[row]).toFixed(12))));
}
const ofRows = (values, rows) => rows.map((row) => values[row]).filter((value) => value !== null);
function countsOf(name, values) {
  const wins = values.filter((value) => SIGN[name] * value > 0).length, ties = values.filter((value) => value === 0).length;
  return { wins, ties, losses: values.length - wins - ties };
}
function difference(found, digits) {
  if (!found) return "–";
  const sign = (value) => (value > 0 ? "+" : "") + number(value, digits);
  return sign(found.value) + (found.interval ? ` [${found.interval.map(sign).join(", ")}]` : "");
}
// Better, worse or neither: what an interval leaves open is neither.
function tone(name, found) {
  if (!found?.interval || found.interval[0] * found.interval[1] <= 0) return "";
  return SIGN[name] * found.value > 0 ? "holds" : "fails";
}
function head(...names) {
  return element("thead", {}, element("tr", {}, ...names.map((name, k) => element("th", { scope: "col", class: k ? "number" : "" }, name))));
}

function drawDuel() {
  const [a, b] = sides(), all = [...texts.prompts.keys()];
  if (duel.drawn !== `${a.id} ${b.id}`) Object.assign(duel, { drawn: `${a.id} ${b.id}`, row: null }); // begin at the worst again
  $("one").value = duel.one;
  $("other").value = duel.other;
  const part = texts.prompts.length < texts.total ? `the first ${texts.prompts.length} of ${texts.total} prompts` : `${texts.total} prompts`;
  const seeds = report.made_from.length > 1 ? ` of seed ${report.made_from[0].about.seed} alone` : "";
  $("versus-note").textContent = a === b ? "A and B are the same point: choose another." : `A is ${a.id}, B is ${b.id}, on ${part}${seeds}. Wins are prompts on which A is better. Brackets: 95 % intervals, Student's of the paired differences, Wilson's of the share of wins.`;
  $("duel").replaceChildren(head("reward", "A − B", "wins", "ties", "losses", "share of wins"), element("tbody", {}, ...SCORED.map((name) => {
    const values = ofRows(differencesOf(name), all), { wins, ties, losses } = countsOf(name, values), share = winShare(wins, losses), mean = meanOf(values);
    const won = share ? `${percent(share.value)} [${share.interval.map(percent).join(", ")}]` : "–";
    return rowOf([element("span", {}, named(name), element("small", { class: "quiet" }, wayWords(name))), toned(difference(mean, DIGITS[name]), tone(name, mean)), wins, ties, losses, won], { "data-duel": name });
  })));
  drawParts();
  drawLost();
}
function rowOf([first, ...rest], look) {
  return element("tr", look, element("th", { scope: "row" }, first), ...rest.map((words) => element("td", { class: "number" }, typeof words === "object" ? words : String(words))));
}
const toned = (words, kind) => element("span", { class: kind }, words);

// Groups of prompts: [words, rows]. Numbers and lengths of many values in thirds, the rarest words together.
function partsBy(name) {
  const rows = [...texts.prompts.keys()];
  const values = name === null ? texts.prompts.map((prompt) => prompt.split(/\s+/).filter(Boolean).length) : texts.columns[name];
  const groups = new Map();
  for (const row of rows) groups.set(values[row], [...(groups.get(values[row]) ?? []), row]);
  const numeric = [...groups.keys()].every((value) => value === "" || Number.isFinite(Number(value))) && [...groups.keys()].some((value) => value !== "");
  if (numeric && groups.size > (name === null ? 1 : 6)) return thirds(rows, values, name === null ? " words" : "");
  const found = [...groups].sort((x, y) => (numeric ? Number(x[0]) - Number(y[0]) : y[1].length - x[1].length));
  const named = found.map(([value, own]) => [value === "" ? "(empty)" : `${value}${name === null ? " words" : ""}`, own]);
  if (named.length <= MOST_PARTS) return named;
  const rest = named.slice(MOST_PARTS - 1).flatMap(([, own]) => own);
  return named[MOST_PARTS - 2][1].length < 2 ? [] : [...named.slice(0, MOST_PARTS - 1), [`${named.length - MOST_PARTS + 1} others`, rest]];
}
function thirds(rows, values, unit) {
  const known = rows.filter((row) => values[row] !== "").sort((a, b) => values[a] - values[b]);
  const cuts = [1, 2].map((k) => Number(values[known[Math.floor((k * known.length) / 3)]]));
  const bins = [[], [], []];
  for (const row of known) bins[Number(values[row]) < cuts[0] ? 0 : Number(values[row]) < cuts[1] ? 1 : 2].push(row);
  const parts = bins.filter((bin) => bin.length).map((bin) => {
    const [low, high] = [values[bin[0]], values[bin.at(-1)]].map(Number);
    return [(low === high ? `${low}` : `${low} to ${high}`) + unit, bin];
  });
  const empty = rows.filter((row) => values[row] === "");
  return empty.length ? [...parts, ["(empty)", empty]] : parts;
}
const currentParts = () => partsBy(duel.parts === "length" ? null : duel.parts.slice(1));
function drawParts() {
  const parts = currentParts(), together = Math.max(1, parts.length);
  $("slices").replaceChildren(head("prompts", "number", ...SCORED.map((name) => named(name))), element("tbody", {}, ...parts.map(([words, rows]) => {
    const button = element("button", { type: "button", "aria-pressed": String(duel.part === words) }, words);
    button.addEventListener("click", () => setDuel({ part: duel.part === words ? null : words, row: null }));
    return rowOf([button, rows.length, ...SCORED.map((name) => {
      const values = ofRows(differencesOf(name), rows), mean = meanOf(values, together), { wins, ties, losses } = countsOf(name, values);
      return element("span", {}, toned(difference(mean, DIGITS[name]), tone(name, mean)), element("small", { class: "quiet" }, ` ${wins}/${ties}/${losses}`));
    })], { class: duel.part === words ? "chosen" : "" });
  })));
  $("slices-note").textContent = `A − B with an interval, and wins/ties/losses. ${parts.length > 1 ? `The ${parts.length} intervals of a reward hold all at once (95 %, Bonferroni). ` : ""}A click on a part lists its prompts below.`;
}

let losing = [];
function drawLost() {
  const values = differencesOf(duel.by), own = duel.part === null ? null : currentParts().find(([words]) => words === duel.part)?.[1];
  const rows = (own ?? [...texts.prompts.keys()]).filter((row) => values[row] !== null);
  losing = rows.sort((x, y) => SIGN[duel.by] * (values[x] - values[y])).slice(0, MOST_LISTED);
  if (!losing.includes(duel.row)) duel.row = losing[0] ?? null;
  $("lost-by").value = duel.by;
  $("lost-note").textContent = `${rows.length} prompts${own ? `: ${duel.part}` : ""}${rows.length > losing.length ? `, the worst ${losing.length} listed` : ""}.`;
  $("lost").replaceChildren(...losing.map((row) => {
    const option = element("div", { role: "option", id: `lost-${row}`, "data-lost": row, dir: "auto", "aria-selected": String(row === duel.row) },
      element("b", { class: SIGN[duel.by] * values[row] < 0 ? "fails" : "quiet" }, difference({ value: values[row] }, DIGITS[duel.by])), " ", wordsOrEmpty(texts.prompts[row]));
    option.addEventListener("click", () => showLost(row));
    return option;
  }));
  drawSide();
}
function showLost(row) {
  duel.row = row;
  for (const option of $("lost").children) option.setAttribute("aria-selected", String(Number(option.dataset.lost) === row));
  drawSide();
}
function moveLost(event) {
  const at = losing.indexOf(duel.row), next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: losing.length - 1 }[event.key];
  if (next === undefined || !losing.length) return;
  event.preventDefault();
  showLost(losing[Math.max(0, Math.min(losing.length - 1, next))]);
  $(`lost-${duel.row}`).scrollIntoView({ block: "nearest" });
}
function drawSide() {
  const [a, b] = sides();
  if (duel.row === null) return $("side").replaceChildren(element("p", { class: "quiet" }, "No prompt has both scores."));
  $("lost").setAttribute("aria-activedescendant", `lost-${duel.row}`);
  $("side").replaceChildren(element("h3", {}, "Prompt"), element("p", { class: "text", dir: "auto" }, wordsOrEmpty(texts.prompts[duel.row])),
    element("div", { class: "cards two" }, sideCard("A", a, b), sideCard("B", b, a)));
  for (const box of $("side").querySelectorAll(".text")) letScroll(box);
}
function sideCard(letter, point, other) {
  const own = texts.points[point.id];
  const scores = SCORED.map((name) => {
    const value = own.scores[name][duel.row], [low, high] = texts.ranges[name];
    return gauge(name + arrowOf(name), number(value, DIGITS[name]), [["range", 0, value !== null && high > low ? (value - low) / (high - low) : 0]]);
  });
  return element("article", { class: `answer ${point.kind}`, "data-side": letter }, element("h4", {}, `${letter}: ${point.id}`), ...scores,
    marked(own.completions[duel.row], state.marks ? texts.points[other.id].completions[duel.row] : null));
}
