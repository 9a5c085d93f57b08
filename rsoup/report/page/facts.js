// The table of all points, the claims, and how the report was made.
const COLUMNS = [
  { name: "point", value: (point) => point.id },
  { name: "kind", value: (point) => point.kind },
  ...(POINTS.some((point) => point.lambda !== null)
    ? [{ name: "lambda", numeric: true, value: (point) => point.lambda }]
    : [{ name: "weights", value: (point) => Object.values(point.weights).map((value) => number(value, 2)).join(" / ") || null }]),
  ...REWARDS.map((name) => ({ name, reward: true, numeric: true, value: (point) => point.scores[name].mean, show: (point) => scoreWords(point, name) })),
  { name: "on the front", value: (point) => (point.on_front ? "yes" : "no"), show: (point) => frontWords(point) },
  { name: "beaten by", value: (point) => point.dominated_by },
  ...MEASURES.map((name) => ({ name, numeric: true, value: (point) => valueOf(point, name), show: (point) => number(valueOf(point, name), DIGITS[name]) })),
];
const sorting = { column: null, down: false };

function frontWords(point) {
  const sure = point.front_probability === null ? "" : ` (${percent(point.front_probability)})`;
  return `${point.on_front ? "yes" : "no"}${sure}`;
}
function startTable() {
  const heads = COLUMNS.map((column) => {
    const button = element("button", { type: "button" }, named(column.name), column.reward ? element("small", { class: "quiet" }, wayWords(column.name)) : null, element("span", { class: "arrow", "aria-hidden": "true" }));
    const look = [column.numeric && "number", column.reward && "reward"].filter(Boolean).join(" ");
    const head = element("th", { scope: "col", class: look, "data-column": column.name }, button);
    button.addEventListener("click", () => {
      sorting.down = sorting.column === column && !sorting.down;
      sorting.column = column;
      drawTable();
    });
    return head;
  });
  $("table").append(element("thead", {}, element("tr", {}, ...heads)), element("tbody", { id: "rows" }));
  $("csv").addEventListener("click", () => download("points.csv", csv()));
  onChange(drawTable);
  $("limited-clear").addEventListener("click", () => change({ limits: {} }));
  drawTable();
}
function drawTable() {
  const { column, down } = sorting;
  const rows = POINTS.filter(within);
  $("limited").hidden = !limited();
  $("limited-note").textContent = `${rows.length} of ${POINTS.length} points are within the limits.`;
  if (column) rows.sort((a, b) => compare(column.value(a), column.value(b), down ? -1 : 1));
  for (const head of $("table").querySelectorAll("thead th")) {
    const way = head.dataset.column !== column?.name ? "none" : down ? "descending" : "ascending";
    head.setAttribute("aria-sort", way);
    head.querySelector(".arrow").textContent = { none: "", ascending: " ▲", descending: " ▼" }[way];
  }
  $("rows").replaceChildren(...rows.map((point) => {
    const row = element("tr", { "data-row": point.id }, ...COLUMNS.map((column, k) => cell(point, column, k)));
    row.addEventListener("click", () => pick(point));
    return row;
  }));
  markRow();
}
function cell(point, column, k) {
  const words = column.show ? column.show(point) : column.numeric ? number(column.value(point), 2) : column.value(point) ?? "";
  return k === 0 ? element("th", { scope: "row" }, words) : element("td", { class: column.numeric ? "number" : "" }, words);
}
function compare(a, b, way) {
  if (a === null || b === null) return (a === null) - (b === null); // without a value: last both ways
  return way * (a < b ? -1 : a > b ? 1 : 0);
}
function markRow() {
  const id = chosen().id;
  for (const row of $("rows").children) {
    row.classList.toggle("chosen", row.dataset.row === id);
    if (row.dataset.row === id) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}
function csv() {
  const head = ["id", "kind", "lambda", ...ADAPTERS.map((name) => `weight:${name}`), ...REWARDS.map((name) => `mu:${name}`),
    ...REWARDS.flatMap((name) => [`score:${name}${MINIMIZED.has(name) ? " (min)" : ""}`, `stderr:${name}`, `low:${name}`, `high:${name}`]), "on_front", "front_probability"];
  const rows = POINTS.map((point) => [point.id, point.kind, point.lambda, ...ADAPTERS.map((name) => point.weights[name]), ...REWARDS.map((name) => point.mu?.[name]),
    ...REWARDS.flatMap((name) => {
      const score = point.scores[name];
      return [score.mean, score.stderr, ...(score.interval ?? [null, null])];
    }), point.on_front, point.front_probability]);
  const safe = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [head, ...rows].map((row) => row.map(safe).join(",")).join("\n") + "\n";
}
function download(name, text, type = "text/csv") {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const verdictClass = (verdict) => ({ holds: "holds", "holds within error": "within", fails: "fails" })[verdict] ?? "unknown";

const CLAIM_WORDS = { lmc: "Linear mode connectivity", coverage: "Pareto coverage", equal_cost: "Pareto coverage at equal cost" };
function drawHead() {
  const about = report.made_from[0].about;
  const ran = [about.recipe, about.task].filter(Boolean).join(", ");
  $("title").append(...REWARDS.flatMap((name, k) => [k === 0 ? "" : REWARDS.length === 2 ? " against " : ", ", named(name)]));
  const counts = Object.entries(KIND_WORDS).map(([kind, word]) => [POINTS.filter((point) => point.kind === kind).length, word]).filter(([count]) => count);
  $("subtitle").textContent = [ran, counts.map(([count, word]) => `${count} ${word}${count > 1 ? "s" : ""}`).join(", "),
    `${report.front.length} on the front`].filter(Boolean).join(" · ");
  const told = Object.entries(report.hypotheses).filter(([, claim]) => claim.verdict !== "unknown");
  $("verdicts-title").hidden = !told.length;
  $("verdicts").replaceChildren(...told.map(([name, claim]) =>
    element("li", { title: claim.claim }, element("span", { class: `chip ${verdictClass(claim.verdict)}` }, claim.verdict),
      element("span", {}, element("b", {}, `${CLAIM_WORDS[name] ?? name}: `), claim.words))));
  const errors = POINTS.some((point) => REWARDS.some((name) => point.scores[name].stderr));
  $("spread").hidden = !report.bootstrap && !errors;
  $("spread").textContent = report.bootstrap ? "Numbers in brackets are 95 % intervals; ± is one standard error." : "± is one standard error.";
}
function drawClaims() {
  $("claims").append(...Object.values(report.hypotheses).map((claim) => element("div", { class: "claim" },
    element("p", {}, element("b", {}, claim.claim)),
    element("p", {}, element("span", { class: `chip ${verdictClass(claim.verdict)}` }, claim.verdict), " ", claim.words))));
  $("claims").append(figures());
}
function figures() {
  const list = element("dl", {});
  const add = (term, words) => list.append(element("dt", {}, term), element("dd", {}, words));
  for (const [kind, volume] of Object.entries(report.hypervolume)) {
    add(`hypervolume, ${{ soup: "soups and experts", morl: "MORL runs alone", "morl+experts": "MORL runs and experts" }[kind] ?? kind}`, withInterval(volume));
  }
  const reference = Object.values(report.hypervolume)[0].reference_point;
  add("reference point", `${Object.entries(reference).map(([name, value]) => `${name} ${number(value, DIGITS[name] + 1)}`).join(", ")} (${report.reference_rule})`);
  const soups = report.hypervolume.soup;
  if (soups) {
    add("area over the curve", `${number(soups.area_over_curve, 3)}: the share of the box from the reference point to the best scores that no soup or expert dominates`);
    if (soups.sparsity !== null) add("soups' front", `sparsity ${number(soups.sparsity, 4)}, spacing ${number(soups.spacing, 4)}, on scaled rewards`);
  }
  if (report.mean_inner_product !== null) add("mean inner product", `${number(report.mean_inner_product, 4)}, of the weights, read as a preference, with the scores${MINIMIZED.size ? ", of which minimised ones count as negative" : ""}`);
  for (const [name, own] of Object.entries(report.lmc)) {
    if (own.minimum) add(`${MINIMIZED.size ? "worst" : "smallest"} gap, ${name}${wayWords(name)}`, `${withInterval(own.minimum)} at ${own.minimum.id}`);
  }
  const comparison = report.comparison;
  if (comparison) {
    const corners = comparison.corners.length > 0;
    for (const [figures, whom] of corners ? [[comparison, "MORL with the experts"], [comparison.runs_alone, "MORL runs alone"]] : [[comparison, "MORL runs"]]) {
      if (figures.hypervolume_ratio) add(`hypervolume, soups / ${whom}`, withInterval(figures.hypervolume_ratio));
      add(`coverage, ${whom}`, `soups cover ${percent(figures.coverage_of_morl_by_soup)} of them, they ${percent(figures.coverage_of_soup_by_morl)} of the soups`);
      add(`additive epsilon, ${whom}`, `soups lack ${number(figures.epsilon_soup_covers_morl, 3)} to cover them, they ${number(figures.epsilon_morl_covers_soup, 3)} to cover the soups, on scaled rewards`);
    }
    for (const run of comparison.runs) {
      if (run.difference) add(run.id, `on its own preference the best soup, ${run.best_soup}, differs from it by ${signed(run.difference)}`);
    }
  }
  for (const [name, value] of Object.entries(report.controllability)) {
    if (value !== null) add(`controllability, ${name}`, `${number(value, 2)}, the rank correlation of weight and score${MINIMIZED.has(name) ? ", turned round: 1 is best" : ""}`);
  }
  return list;
}
const signed = (estimate) => (estimate.value > 0 ? `+${withInterval(estimate)}` : withInterval(estimate));
function drawMade() {
  const list = element("dl", {});
  const add = (term, words) => list.append(element("dt", {}, term), element("dd", {}, words));
  for (const note of report.notes) add("note", note);
  if (report.bootstrap) {
    const own = report.bootstrap;
    add("intervals", `${percent(own.level)}, bias-corrected bootstrap, ${own.draws} draws, seed ${own.seed}, paired across points`);
  }
  for (const made of report.made_from) {
    add("file", `${made.path} (sha256 ${made.sha256})`);
    for (const [name, value] of Object.entries(made.about)) {
      const words = value !== null && typeof value === "object" ? wordsOf(value) : String(value ?? "");
      if (words) add(name, words);
    }
  }
  add("made with", `rsoup ${report.rsoup}`);
  $("made").append(list);
}
function wordsOf(value) {
  return Object.entries(value).map(([name, own]) => `${name} ${own === null ? "unknown" : own}`).join(", ");
}

function drawLines() {
  const line = lineOf();
  $("along").hidden = !line.length;
  if (!line.length) return;
  const size = { width: 440, height: 270, left: 58, right: 12, top: 10, bottom: 42 };
  const banded = line.every((point) => REWARDS.every((name) => spread(point.scores[name])));
  const based = POINTS.some((point) => point.kind === "base");
  $("lines-help").textContent = `Dashed: the line between the experts${based ? "; dotted: the base model" : ""}${banded ? `; band: ${spreadWords}` : ""}.`;
  $("lines").replaceChildren(...REWARDS.map((name) => {
    const box = fitted(size, ...extent(name));
    const plot = shape("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "img", "aria-label": `${name} along lambda` });
    const [x, y] = axesOf(plot, box, [-0.03, 1.03, ...extent(name)], "lambda", name);
    const px = (point) => x(point.lambda), py = (point) => y(point.scores[name].mean);
    const ends = line.map((point) => spread(point.scores[name]));
    if (ends.every(Boolean)) {
      const low = line.map((point, k) => `${px(point)} ${y(ends[k][0])}`);
      const high = line.map((point, k) => `${px(point)} ${y(ends[k][1])}`).reverse();
      plot.append(shape("path", { class: "band", d: `M${[...low, ...high].join("L")}Z` }));
    }
    for (const point of POINTS.filter((own) => own.kind === "base")) {
      plot.append(shape("line", { class: "level", x1: box.left, x2: box.width - box.right, y1: py(point), y2: py(point) }));
    }
    plot.append(shape("path", { class: "chord", d: pathThrough([line[0], line.at(-1)], px, py) }), shape("path", { class: "path", d: pathThrough(line, px, py) }));
    plot.append(...line.map((point) => glyph(point, px(point), py(point), 4)));
    const now = chosen();
    if (line.includes(now)) plot.append(shape("circle", { class: "ring", r: 9, transform: `translate(${px(now)} ${py(now)})` }));
    return plot;
  }));
}
