// Fronts against what their trainings took: a chart and a table.
const FRONTS = report.fronts ?? [];
const PAID = {
  steps: { title: "optimiser steps", of: (cost) => cost.optimizer_steps, show: (value) => number(value, 0) },
  tokens: { title: "sampled tokens", of: (cost) => cost.tokens, show: (value) => number(value, 0) },
  minutes: { title: "minutes of training", of: (cost) => (cost.seconds === null ? null : cost.seconds / 60), show: (value) => number(value, 1) },
};
const isMorl = (front) => front.name === "MORL" || front.name.startsWith("MORL, ");
const frontKind = (front) => ({ soups: "soup", ensemble: "ensemble", mod: "mod" })[front.name] ?? (isMorl(front) ? "morl" : "mix");

function drawCosts() {
  const known = FRONTS.filter((front) => front.cost);
  $("costs").hidden = known.length < 2;
  if (known.length < 2) return;
  $("cost-charts").replaceChildren(...Object.values(PAID).filter((paid) => known.every((front) => paid.of(front.cost) !== null)).map((paid) => costChart(known, paid)));
  const digits = digitsFor(Math.max(...FRONTS.map((front) => front.hypervolume.value)));
  const heads = ["front", "trainings", ...Object.values(PAID).map((paid) => paid.title), "passes a token", "hypervolume", "soups' lead"];
  const rows = FRONTS.map((front) => [
    front.name,
    String(front.trainings.length),
    ...Object.values(PAID).map((paid) => (front.cost ? paid.show(paid.of(front.cost)) : "–")),
    String(front.passes),
    withInterval(front.hypervolume, digits),
    front.soups_lead ? withInterval(front.soups_lead, digits) : "",
  ]);
  $("cost-table").replaceChildren(
    element("thead", {}, element("tr", {}, ...heads.map((head, k) => element("th", { scope: "col", class: k ? "number" : "" }, head)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((words, k) =>
      k ? element("td", { class: "number" }, words) : element("th", { scope: "row" }, named(words)))))),
  );
}
function costChart(fronts, paid) {
  const ends = fronts.flatMap((front) => front.hypervolume.interval ?? [front.hypervolume.value]);
  const low = Math.min(...ends), high = Math.max(...ends), room = (high - low || high || 1) * 0.07;
  const most = Math.max(...fronts.map((front) => paid.of(front.cost))) || 1;
  const box = fitted({ width: 440, height: 270, left: 58, right: 16, top: 10, bottom: 42 }, low - room, high + room);
  const plot = shape("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "img", "aria-label": `hypervolume over ${paid.title}` });
  const [x, y] = axesOf(plot, box, [0, 1.08 * most, low - room, high + room], paid.title, "hypervolume");
  const px = (front) => x(paid.of(front.cost)), py = (front) => y(front.hypervolume.value);
  plot.append(shape("path", { class: "path morl", d: pathThrough(fronts.filter(isMorl), px, py) }));
  for (const front of fronts) {
    const kind = frontKind(front), words = `${front.name}: ${withInterval(front.hypervolume)}, ${paid.show(paid.of(front.cost))} ${paid.title}`;
    if (front.hypervolume.interval) {
      const [from, to] = front.hypervolume.interval.map(y);
      plot.append(shape("line", { class: `error ${kind}`, x1: px(front), x2: px(front), y1: from, y2: to }));
    }
    const mark = glyph({ kind, on_front: kind !== "mix" }, px(front), py(front), 4.5);
    mark.append(shape("title", {}, words));
    plot.append(mark);
    if (kind === "mix") plot.append(shape("text", { x: px(front) + 7, y: py(front) - 6 }, front.name));
  }
  return plot;
}
