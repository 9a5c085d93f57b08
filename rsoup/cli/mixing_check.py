"""``rsoup mix --check``: what adapters or models are, how they lie to each other, what each method makes of them."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from rsoup.cli.display import out, tell, warn
from rsoup.errors import AdapterError

if TYPE_CHECKING:
    from rsoup.cli.mixing_models import Asked
    from rsoup.mixing import CheckReport
    from rsoup.mixing.advice import Advice
    from rsoup.mixing.checkpoints import Mixture, ModelsReport
    from rsoup.mixing.effects import Effect
    from rsoup.mixing.geometry import PairFacts

_MODULES_SHOWN = 3
_SENTENCES_SHOWN = 3


def check_adapters(asked: Asked, settings: Mapping[str, Any], method: str | None) -> None:
    """Compare adapters and print the report; ``method`` is the one that was asked for, if any."""
    from rsoup import mixing

    if asked.into is not None:
        raise AdapterError("--check compares adapters, and reads no base.", "Leave --into out, or leave --check out.")
    if method is not None:
        mixing.check_method(method, settings["options"])
    mixing.check_dtype(settings["dtype"])
    report = mixing.check(
        asked.ingredients,
        asked.checked_weights(),
        options=settings["options"],
        base_weight=settings["base_weight"],
        allow_extrapolation=settings["allow_extrapolation"],
        allow_different_starts=settings["allow_different_starts"],
    )
    if asked.json:
        typer.echo(jsonlib.dumps(report.to_json(), indent=2))
        return
    _show_adapters(report)


def show_models(mixture: Mixture, report: ModelsReport, *, json: bool) -> None:
    """Print what the models are, and how they or what they add to their base lie to each other."""
    tensors = list(mixture.alignment.targets)
    rows: list[dict[str, Any]] = [
        {
            "model": model.source,
            "type": str(model.config.get("model_type")),
            "bytes": sum(info.end - info.start for own in model.base.shards for info in own.tensors.values()),
            "dtypes": sorted({model.info(name).dtype for name in model.base.where}),
            "tied": model.ties,
        }
        for model in mixture.ingredients
    ]
    if json:
        facts = {"schema": 1, "models": rows, "tensors": len(tensors), "warnings": mixture.warnings}
        typer.echo(jsonlib.dumps({**facts, **report.to_json()}, indent=2))
        return
    table = _table("model", "type", "GB", "dtypes", "ties embeddings", overflow="fold")
    for row in rows:
        tied = "yes" if row["tied"] else "no"
        table.add_row(
            escape(row["model"]), escape(row["type"]), f"{row['bytes'] / 1e9:.2f}", ", ".join(row["dtypes"]), tied
        )
    out.print(table)
    out.print(f"\nfits: {len(tensors)} tensors correspond")
    what = "what each adds to the base" if mixture.base else "the models themselves"
    if report.seen is not None and report.seen < 1:
        what += f", in {report.seen:.1%} of the weights"
    out.print(f"compared: {what}\n")
    _show_pairs(report.pairs, [model.name for model in mixture.models])
    of = "from the exact mix" if mixture.base else "from linear, by the models' distance"
    _show_effects(report.effects, dict.fromkeys(report.effects), of, len(report.layers))
    _show_advice(report.advice)
    warn(mixture.warnings)


def _show_adapters(report: CheckReport) -> None:
    table = _table("adapter", "weight", "rank", "scale", "modules", "dtype", "trains")
    for adapter, weight in zip(report.adapters, report.weights, strict=True):
        cells = (adapter.ranks, [f"{scale:g}" for scale in adapter.scales], [adapter.modules], adapter.dtypes)
        joined = [", ".join(map(str, cell)) for cell in cells]
        table.add_row(escape(adapter.name), f"{weight:.4g}", *joined, escape(", ".join(adapter.targets)))
    out.print(table)
    out.print(f"\nsame base: {_known(report.same_base)}   same start: {_known(report.same_start)}\n")
    _show_pairs(report.pairs, [adapter.name for adapter in report.adapters])
    _show_effects(report.effects, report.methods, "from the exact mix", len(report.layers))
    if report.factors_distance:
        apart = [layer for layer in report.layers if layer.factors_distance is not None]
        out.print("\n[bold]factors is furthest from the exact mix at[/]")
        for layer in sorted(apart, key=lambda layer: -(layer.factors_distance or 0))[:_MODULES_SHOWN]:
            out.print(f"{_percent(layer.factors_distance):>6}  {layer.module}", markup=False)
    for saved in report.saved:
        out.print(f"\n{saved.name} was trained whole; the furthest differ by {_percent(saved.distance)}", markup=False)
    _show_advice(report.advice)
    warn(report.warnings)


def _show_pairs(pairs: Sequence[PairFacts], names: Sequence[str]) -> None:
    """Print a row for each two, and what independent updates would have."""
    from rsoup.mixing.geometry import SIGNS_BY_CHANCE

    if not pairs:
        return
    directions = any(pair.outputs is not None for pair in pairs)
    table = _table("pair", overflow="fold")
    titles = ("cosine", "same signs", "by size", *(("outputs", "inputs") if directions else ()), "norms")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for pair in pairs:
        cells = [_number(pair.cosine), _percent(pair.signs), _percent(pair.signs_by_size)]
        cells += [_number(pair.outputs), _number(pair.inputs)] if directions else []
        ratio = "-" if pair.ratio is None else f"1 : {pair.ratio:.2g}"
        table.add_row(escape(f"{names[pair.a]}, {names[pair.b]}"), *cells, ratio)
    chances = [chance for pair in pairs if (chance := pair.chance) is not None]
    cells = [f"±{max(chances):.2g}" if chances else "-", *2 * [_percent(SIGNS_BY_CHANCE)]]
    if directions:
        for side in ("outputs_chance", "inputs_chance"):
            cells.append(_number(max((getattr(pair, side) or 0.0 for pair in pairs), default=0.0)))
    table.add_row("by chance", *cells, "")
    out.print(table)


def _show_effects(effects: Mapping[str, Effect], reasons: Mapping[str, str | None], title: str, modules: int) -> None:
    """Print what each method makes of the updates, then why those left cannot be used."""
    rows: list[list[str]] = []
    refused: dict[str, list[str]] = {}
    for method, effect in effects.items():
        reason = reasons[method] or effect.reason
        if reason:
            refused.setdefault(reason, []).append(method)
        if effect.reason is None:
            norm = "-" if effect.norm is None else f"{effect.norm:.2f}"
            cells = ["" if part is None else _percent(part) for part in (effect.dropped, effect.conflicts)]
            tried = "" if effect.layers == modules else f"{effect.layers} of {modules}"
            rows.append([method, _percent(effect.distance), norm, *cells, tried])
    titles = ("method", title, "norm", "dropped", "signs opposed", "tried on")
    used = [column for column in range(len(titles)) if any(row[column] for row in rows)]
    table = _table(*(titles[column] for column in used))
    for row in rows:
        table.add_row(*(row[column] for column in used))
    if table.row_count:
        out.print()
        out.print(table)
    if refused:
        out.print()
    for reason, methods in refused.items():
        tell(f"{', '.join(methods)}: {reason}")


def _show_advice(advice: Sequence[Advice]) -> None:
    """Print the sentences; of many adapters some of each kind, and how many more there are."""
    if advice:
        out.print("\n[bold]in words[/]")
    count = Counter(own.kind for own in advice)
    shown: Counter[str] = Counter()
    for own in advice:
        shown[own.kind] += 1
        if shown[own.kind] <= _SENTENCES_SHOWN:
            out.print(f"- {own.text}", markup=False)
        elif shown[own.kind] == count[own.kind]:
            out.print(f"- {count[own.kind] - _SENTENCES_SHOWN} more pairs of this kind ({own.kind}): --json has them.")


def _table(*titles: str, overflow: Any = "ellipsis") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow=overflow)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if 0.0005 <= value < 0.0995 else f"{value:.0%}"


def _known(answer: bool | None) -> str:
    return {True: "yes", False: "no", None: "not known"}[answer]
