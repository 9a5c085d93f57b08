// Prompts, and what the chosen point, the base and the experts wrote to each.
const SCORED = REWARDS.filter((name) => texts && name in texts.ranges); // not those known by their means alone
function startTexts() {
  if (!texts) {
    $("reader").hidden = true;
    $("texts-note").textContent = "The input holds no completions.";
    return;
  }
  const { shown, total } = { shown: texts.prompts.length, total: texts.total };
  $("texts-note").textContent = shown < total ? `The first ${shown} of ${total} prompts, so that the page stays small.` : `${total} prompts.`;
  if (report.made_from.length > 1) $("texts-note").textContent += ` Completions of seed ${report.made_from[0].about.seed}.`;
  const orders = [["", "as evaluated"], ...SCORED.flatMap((name) => [
    [`+${name}`, MINIMIZED.has(name) ? `${name}: most lowered, which is better` : `${name}: most gained on the base`],
    [`-${name}`, MINIMIZED.has(name) ? `${name}: most raised` : `${name}: most lost`]])];
  const base = POINTS.find((point) => point.kind === "base");
  $("order").append(...(base ? orders : orders.slice(0, 1)).map(([value, words]) => element("option", { value }, words)));
  $("beside").append(element("option", { value: "" }, "nothing more"), ...POINTS.map((point) => element("option", { value: point.id }, point.id)));
  const names = Object.keys(texts.columns);
  if (names.length) $("search-label").textContent = `Search the prompts and their columns (${names[0]}:...)`;
  $("search").addEventListener("input", drawPrompts);
  $("order").addEventListener("change", drawPrompts);
  $("beside").addEventListener("change", () => change({ beside: $("beside").value }));
  $("marks").addEventListener("change", () => change({ marks: $("marks").checked }));
  $("marks").parentNode.hidden = !base;
  $("prompts").addEventListener("keydown", movePrompt);
  listPrompts();
  onChange(drawReading);
  addEventListener("resize", () => $("reading").querySelectorAll(".text").forEach(letScroll));
}
// What a prompt is found by: its words and those of its row's columns, each value after name:.
function haystack(row) {
  const columns = Object.entries(texts.columns).map(([name, values]) => `${name}:${values[row]}`);
  return [texts.prompts[row], ...columns].join("\n").toLowerCase();
}
const haystacks = texts ? [...texts.prompts.keys()].map(haystack) : [];
function ordered() {
  const wanted = $("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...texts.prompts.keys()].filter((row) => wanted.every((word) => haystacks[row].includes(word)));
  const order = $("order").value;
  if (!order) return rows;
  const name = order.slice(1), sign = (order[0] === "+" ? -1 : 1) * SIGN[name];
  const ours = texts.points[chosen().id].scores[name];
  const base = texts.points[POINTS.find((point) => point.kind === "base").id].scores[name];
  const gain = (row) => (ours[row] === null || base[row] === null ? null : ours[row] - base[row]);
  return rows.sort((a, b) => {
    const [one, other] = [gain(a), gain(b)]; // prompts that the reward does not apply to come last
    return one === null || other === null ? (one === null) - (other === null) : sign * (one - other);
  });
}
let listed = []; // rows of the prompts in the list
let listedFor = null; // the point whose gains they are ordered by
let read = null; // the prompt that was shown last
function listPrompts() {
  listed = ordered();
  listedFor = chosen().id;
  $("found").textContent = `${listed.length} of ${texts.prompts.length} prompts`;
  $("prompts").replaceChildren(...listed.map((row) => {
    const option = element("div", { role: "option", id: `prompt-${row}`, "data-row": row, dir: "auto" }, wordsOrEmpty(texts.prompts[row]));
    option.addEventListener("click", () => change({ prompt: row }));
    return option;
  }));
}
function drawPrompts() {
  listPrompts();
  if (listed.length && !listed.includes(state.prompt)) change({ prompt: listed[0] });
  else drawReading();
}
// Means over the prompts that were found, where these are a part of all.
function drawSlice() {
  const point = chosen(), part = listed.length > 1 && listed.length < texts.prompts.length;
  const mean = (values) => {
    const known = listed.map((row) => values[row]).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };
  const scores = SCORED.map((name) => `${name} ${number(mean(texts.points[point.id].scores[name]), DIGITS[name])}`);
  $("slice").textContent = part ? `Means of ${point.id} over them: ${scores.join(", ")}` : "";
}
function drawColumns() {
  const values = Object.entries(texts.columns).map(([name, own]) => [name, own[state.prompt]]).filter(([, value]) => value);
  $("columns").replaceChildren(...values.flatMap(([name, value]) => [element("dt", {}, named(name)), element("dd", { dir: "auto" }, value)]));
}
function markPrompt() {
  for (const option of $("prompts").children) option.setAttribute("aria-selected", String(Number(option.dataset.row) === state.prompt));
  if (listed.length) $("prompts").setAttribute("aria-activedescendant", `prompt-${state.prompt}`);
  else $("prompts").removeAttribute("aria-activedescendant");
}
function movePrompt(event) {
  const list = $("prompts"), last = listed.length - 1;
  if (last < 0) return;
  const page = Math.max(1, Math.floor(list.clientHeight / list.firstChild.offsetHeight) - 1);
  const at = listed.indexOf(state.prompt);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: last }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  const row = listed[Math.max(0, Math.min(last, next))];
  change({ prompt: row });
  $(`prompt-${row}`).scrollIntoView({ block: "nearest" });
}

function drawReading() {
  if ($("order").value && listedFor !== chosen().id) {
    const scrolled = $("prompts").scrollTop;
    listPrompts();
    $("prompts").scrollTop = scrolled;
  }
  markPrompt();
  drawSlice();
  $("reading").hidden = !listed.length;
  $("no-match").hidden = listed.length > 0;
  if (!listed.length) return;
  const prompt = texts.prompts[state.prompt];
  $("prompt").replaceChildren(wordsOrEmpty(prompt));
  drawColumns();
  if (read !== null && read !== state.prompt) say(`Prompt: ${prompt.length > 80 ? `${prompt.slice(0, 80)}…` : prompt || "(empty)"}`);
  read = state.prompt;
  const base = POINTS.find((point) => point.kind === "base");
  const now = chosen();
  const experts = POINTS.filter((point) => point.kind === "expert");
  const beside = state.beside ? [BY_ID.get(state.beside)] : [];
  const shown = [...new Set([now, base, ...experts, ...beside].filter(Boolean))];
  $("cards").replaceChildren(...shown.map((point) => answer(point, point === now, base)));
  for (const box of $("reading").querySelectorAll(".text")) letScroll(box);
}
const wordsOrEmpty = (text) => (text.trim() ? text : element("span", { class: "quiet" }, "(empty)"));
function letScroll(box) {
  // a text that is longer than its box is reached by the keyboard
  if (box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
}
function answer(point, isChosen, base) {
  const own = texts.points[point.id];
  const written = own.completions[state.prompt];
  const before = base && point !== base && state.marks ? texts.points[base.id].completions[state.prompt] : null;
  const scores = SCORED.map((name) => {
    const value = own.scores[name][state.prompt];
    const [low, high] = texts.ranges[name];
    const part = value !== null && high > low ? (value - low) / (high - low) : 0;
    return gauge(name + arrowOf(name), number(value, DIGITS[name]), [["range", 0, part]]);
  });
  const kind = isChosen ? `${point.kind} chosen` : point.kind;
  return element("article", { class: `answer ${kind}`, "data-answer": point.id },
    element("h4", {}, point.id, " ", element("small", {}, isChosen ? "the chosen point" : KIND_WORDS[point.kind])),
    ...scores, marked(written, before));
}
function marked(text, before) {
  const paragraph = element("p", { class: "text", dir: "auto" });
  if (before === null || !text.trim()) {
    paragraph.append(wordsOrEmpty(text));
    return paragraph;
  }
  const words = text.split(/(\s+)/);
  const kept = commonWords(words.filter((_, k) => k % 2 === 0), before.split(/\s+/));
  words.forEach((word, k) => {
    const changed = k % 2 === 0 && word && !kept.has(k / 2);
    paragraph.append(changed ? element("mark", {}, word) : word);
  });
  return paragraph;
}
function commonWords(words, before) {
  // places of the words that belong to a longest common subsequence with the base's words
  const [a, b] = [words.slice(0, 400), before.slice(0, 400)];
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const kept = new Set();
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { kept.add(i); i++; j++; } else if (best[i + 1][j] >= best[i][j + 1]) i++; else j++;
  }
  return kept;
}
