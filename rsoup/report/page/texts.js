// Prompts, and what the chosen point, the base and the experts wrote to each.
function startTexts() {
  if (!texts) {
    $("reader").hidden = true;
    $("texts-note").textContent = "The input holds no completions.";
    return;
  }
  const { shown, total } = { shown: texts.prompts.length, total: texts.total };
  $("texts-note").textContent = shown < total ? `The first ${shown} of ${total} prompts, so that the page stays small.` : `${total} prompts`;
  if (report.made_from.length > 1) $("texts-note").textContent += ` Completions of seed ${report.made_from[0].about.seed}.`;
  const orders = [["", "as evaluated"], ...REWARDS.flatMap((name) => [[`+${name}`, `${name}: most gained on the base`], [`-${name}`, `${name}: most lost`]])];
  const base = POINTS.find((point) => point.kind === "base");
  $("order").append(...(base ? orders : orders.slice(0, 1)).map(([value, words]) => element("option", { value }, words)));
  $("beside").append(element("option", { value: "" }, "nothing more"), ...POINTS.map((point) => element("option", { value: point.id }, point.id)));
  $("search").addEventListener("input", drawPrompts);
  $("order").addEventListener("change", drawPrompts);
  $("beside").addEventListener("change", () => change({ beside: $("beside").value }));
  $("marks").addEventListener("change", () => change({ marks: $("marks").checked }));
  $("marks").parentNode.hidden = !base;
  $("prompts").addEventListener("keydown", movePrompt);
  drawPrompts();
  onChange(drawReading);
}
function ordered() {
  const wanted = $("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...texts.prompts.keys()].filter((row) => {
    const text = texts.prompts[row].toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  const order = $("order").value;
  if (!order) return rows;
  const name = order.slice(1), sign = order[0] === "+" ? -1 : 1;
  const ours = texts.points[chosen().id].scores[name];
  const base = texts.points[POINTS.find((point) => point.kind === "base").id].scores[name];
  return rows.sort((a, b) => sign * (ours[a] - base[a] - (ours[b] - base[b])));
}
function drawPrompts() {
  const rows = ordered();
  $("found").textContent = `${rows.length} of ${texts.prompts.length} prompts`;
  $("prompts").replaceChildren(...rows.map((row) => {
    const option = element("div", { role: "option", id: `prompt-${row}`, "data-row": row }, texts.prompts[row]);
    option.addEventListener("click", () => change({ prompt: row }));
    return option;
  }));
  if (rows.length && !rows.includes(state.prompt)) change({ prompt: rows[0] });
  else markPrompt();
}
function markPrompt() {
  for (const option of $("prompts").children) option.setAttribute("aria-selected", String(Number(option.dataset.row) === state.prompt));
  $("prompts").setAttribute("aria-activedescendant", `prompt-${state.prompt}`);
}
function movePrompt(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const options = [...$("prompts").children];
  const at = options.findIndex((option) => Number(option.dataset.row) === state.prompt);
  const next = options[Math.max(0, Math.min(options.length - 1, at + step))];
  if (!next) return;
  change({ prompt: Number(next.dataset.row) });
  next.scrollIntoView({ block: "nearest" });
}

function drawReading() {
  markPrompt();
  $("prompt").textContent = texts.prompts[state.prompt];
  const base = POINTS.find((point) => point.kind === "base");
  const now = chosen();
  const experts = POINTS.filter((point) => point.kind === "expert");
  const beside = state.beside ? [BY_ID.get(state.beside)] : [];
  const shown = [...new Set([now, base, ...experts, ...beside].filter(Boolean))];
  $("cards").replaceChildren(...shown.map((point) => answer(point, point === now, base)));
}
function answer(point, isChosen, base) {
  const own = texts.points[point.id];
  const written = own.completions[state.prompt];
  const before = base && point !== base && state.marks ? texts.points[base.id].completions[state.prompt] : null;
  const scores = REWARDS.map((name) => {
    const value = own.scores[name][state.prompt];
    const [low, high] = texts.ranges[name];
    return gauge(name, number(value, DIGITS[name]), [["range", 0, high > low ? (value - low) / (high - low) : 0]]);
  });
  const kind = isChosen ? `${point.kind} chosen` : point.kind;
  return element("article", { class: `answer ${kind}`, "data-answer": point.id },
    element("h4", {}, point.id, " ", element("small", {}, isChosen ? "the chosen point" : KIND_WORDS[point.kind])),
    marked(written, before), ...scores);
}
function marked(text, before) {
  const paragraph = element("p", { class: "text" });
  if (before === null) {
    paragraph.textContent = text;
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
