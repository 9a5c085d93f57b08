"""What a process of ``gpu_check.py`` does: python gpu_work.py FOLDER reference, or FOLDER WAY WORK [WORK ...]

Everything is compared with what ``reference`` left in FOLDER: a random model, and what float32 on the CPU made of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from benchmarks.gpu_check import REFERENCE, RESULTS, Way
from rsoup import mixing
from rsoup.errors import RsoupError, first_line
from rsoup.evaluation.applying import applied
from rsoup.evaluation.lending import lend, lends
from rsoup.evaluation.results import RESULTS as EVALUATED
from rsoup.evaluation.results import read_results, read_samples
from rsoup.evaluation.sweep import evaluate
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import load_language_model
from rsoup.models.processes import this_process
from rsoup.models.rowwise import Mix
from rsoup.progress import Silent
from rsoup.recipe_file import parse_recipe
from rsoup.resolve import Resolved, resolve
from rsoup.serving.engine import Engine
from rsoup.serving.jobs import Event, Job, Piece, Request
from rsoup.serving.served import Served
from rsoup.training.expert import train_adapter
from rsoup.training.policy import read_start
from tiny import build_tiny_model, recipe_content

EXPERTS = ("positive", "brief")
WEIGHTS = "adapter_model.safetensors"
LAMBDA = 0.3
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
}


@dataclass(frozen=True)
class Limit:
    """How far a way may be from the reference: log-probabilities (mean), gradients (cosine), equal completions."""

    gap: float
    cosine: float
    same: float


LIMITS = {
    "float32": Limit(1e-4, 0.9999, 1.0),
    "float16": Limit(0.02, 0.99, 0.8),
    "bfloat16": Limit(0.1, 0.97, 0.5),
    "4bit": Limit(0.2, 0.97, 0.0),
    "8bit": Limit(0.2, 0.95, 0.0),
}
"""4 bits are compared with 4 bits on the CPU, all others with float32."""


class Apart(Exception):
    """A way gives something else than the reference."""


Figures = dict[str, float]


def limit_of(way: Way) -> Limit:
    """Return how far a way may be off."""
    return LIMITS[way.quantization or way.dtype]


def leads() -> bool:
    """Tell whether this process writes."""
    leading: bool = this_process().is_main_process
    return leading


def resolved_for(folder: Path, way: Way, out: str, algo: str = "ppo") -> Resolved:
    """Return the small run in a way; rows and model are the reference's."""
    content = recipe_content(folder / REFERENCE, folder / REFERENCE / "model")
    content["output"] = str(folder / out)
    content["model"] |= {"dtype": way.dtype, "placement": way.placement, "quantization": way.quantization}
    content["training"] |= {"algo": algo}
    content["evaluation"] |= {"dtype": way.dtype, "prompts": 8, "batch_size": 4}
    if algo != "ppo":
        content["training"]["ppo"] = {"epochs": 2, "kl_coef": 0.05}
    return resolve(parse_recipe(content, "check"))


def expert(folder: Path, name: str) -> Path:
    """Return the folder of one of the reference's adapters."""
    return folder / REFERENCE / "ppo" / "adapters" / name


def make_reference(folder: Path) -> None:
    """Make the model, and what float32 on the CPU makes of it."""
    way, own = Way(), folder / REFERENCE
    own.mkdir(parents=True, exist_ok=True)
    build_tiny_model(own / "model", seed=0, **SHAPE)
    run = resolved_for(folder, way, f"{REFERENCE}/ppo")
    for name in EXPERTS:
        train_adapter(run, name, {name: 1.0}, "expert", Silent())
    grpo = resolved_for(folder, way, f"{REFERENCE}/grpo", "grpo")
    train_adapter(grpo, "positive", {"positive": 1.0}, "expert", Silent())
    evaluate(run, [expert(folder, name) for name in EXPERTS], own / "eval", Silent())
    np.savez(own / "passes.npz", **thoughts(folder, way))
    (own / "served.json").write_text(json.dumps(answers(folder, way)[0]))
    try:
        np.savez(own / "passes-4bit.npz", **thoughts(folder, Way("bfloat16", "4bit")))
    except Exception as problem:  # no bitsandbytes, or one that does not know CPUs
        print(f"no 4 bits on the CPU: {first_line(problem)}")


def model_in(folder: Path, way: Way, source: Path | None = None) -> LanguageModel:
    """Load the reference's model, or another one, in a way."""
    return load_language_model(
        str(source or folder / REFERENCE / "model"),
        revision=None,
        dtype=way.dtype,
        quantization=way.quantization,  # type: ignore[arg-type]
        placement=way.placement,  # type: ignore[arg-type]
    )


def rows_in(model: LanguageModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return prompts of different lengths, their mask, and completions (P, G, T)."""
    random = torch.Generator().manual_seed(1)
    prompts = [torch.randint(4, 30, (length,), generator=random).tolist() for length in (5, 9, 7, 9)]
    ids, mask = model.pad(prompts)
    return ids, mask, torch.randint(4, 30, (len(prompts), 3, 6), generator=random).to(model.device)


def thoughts(folder: Path, way: Way) -> dict[str, np.ndarray]:
    """Return log-probabilities of given completions, and the gradients of their sum, by the adapter ``positive``."""
    policy = read_start(model_in(folder, way), expert(folder, "positive"))
    found = policy.think(*rows_in(policy.language_model), 1.0)
    found.logprobs.sum().backward()
    gradients = [parameter.grad for parameter in policy.parameters if parameter.grad is not None]
    flat = torch.cat([gradient.detach().float().flatten().cpu() for gradient in gradients])
    return {"logprobs": found.logprobs.detach().float().cpu().numpy(), "gradients": flat.numpy()}


def passes(folder: Path, way: Way) -> Figures:
    """Log-probabilities and gradients of given completions."""
    own = thoughts(folder, way)
    reference = folder / REFERENCE / ("passes-4bit.npz" if way.quantization == "4bit" else "passes.npz")
    if not reference.is_file():
        raise RsoupError("there is no reference: the CPU could not load 4 bits", "")
    with np.load(reference) as other:
        gap = float(np.abs(own["logprobs"] - other["logprobs"]).mean())
        one, two = own["gradients"], other["gradients"]
    cosine = float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    figures, limit = {"gap": gap, "cosine of gradients": cosine}, limit_of(way)
    require(gap <= limit.gap and cosine >= limit.cosine, figures, f"limits {limit.gap:g}, {limit.cosine:g}")
    return figures


def trained(folder: Path, way: Way, algo: str, *, compares: bool) -> Figures:
    """Train a few steps; compare the adapter with the reference's, if that is to be expected."""
    run = resolved_for(folder, way, f"{way.name}/{algo}", algo)
    began = time.perf_counter()
    path = train_adapter(run, "positive", {"positive": 1.0}, "expert", Silent())
    seconds = time.perf_counter() - began
    if not leads():
        return {}
    twin = folder / REFERENCE / algo / "adapters"
    start, own, other = (flat(place / WEIGHTS) for place in (path.parent / "init", path, twin / "positive"))
    lines, twins = metrics(path), metrics(twin / "positive")
    moved = float(np.linalg.norm(own - start))
    figures = {"moved": moved, "first score": lines[0]["scores"]["positive"], "s": seconds}
    require(np.isfinite(own).all() and moved > 0, figures, "the adapter did not move")
    if compares:
        require((start == flat(twin / "init" / WEIGHTS)).all(), figures, "another start than the CPU's")
        figures["apart"] = float(np.linalg.norm(own - other)) / moved
        same = abs(lines[0]["scores"]["positive"] - twins[0]["scores"]["positive"]) < 1e-6
        require(figures["apart"] < 0.01 and same, figures, "limit of apart 0.01, first scores equal")
    return figures


def ppo(folder: Path, way: Way) -> Figures:
    """PPO; in float32 the adapter is the CPU's up to rounding, since the random numbers are."""
    return trained(folder, way, "ppo", compares=limit_of(way) == LIMITS["float32"])


def grpo(folder: Path, way: Way) -> Figures:
    """GRPO; TRL draws on the device, so that samples on a GPU, and those of two processes, are others."""
    alone = not torch.cuda.is_available() and this_process().num_processes == 1
    return trained(folder, way, "grpo", compares=alone and limit_of(way) == LIMITS["float32"])


def evaluated(folder: Path, way: Way) -> Figures:
    """The sweep of the reference's experts: completions, scores, KL."""
    run = resolved_for(folder, way, way.name)
    if lends(run.base):
        lend(run.base)
        return {}
    out, reference = folder / way.name / "eval", folder / REFERENCE / "eval"
    results = evaluate(run, [expert(folder, name) for name in EXPERTS], out, Silent())
    twin = read_results(reference / EVALUATED)
    said, other = (
        [text for own in read_samples(place / EVALUATED, found).points.values() for text in own.completions]
        for place, found in ((out, results), (reference, twin))
    )
    pairs = [
        (own.scores[name].mean, point.scores[name].mean)
        for own, point in zip(results.points, twin.points, strict=True)
        for name in own.scores
    ]
    kls = [(own.extras["kl"], point.extras["kl"]) for own, point in zip(results.points, twin.points, strict=True)]
    figures = {
        "same completions": float(np.mean([a == b for a, b in zip(said, other, strict=True)])),
        "scores apart": max(abs(a - b) for a, b in pairs),
        "KL apart": max(abs(a - b) for a, b in kls),
    }
    limit = limit_of(way)
    exact = limit.same < 1 or (figures["scores apart"] < 1e-6 and figures["KL apart"] < 1e-3)
    require(figures["same completions"] >= limit.same and exact, figures, f"limit {limit.same:g} of completions")
    return figures


def merged(folder: Path, way: Way) -> Figures:
    """A mix merged into the base (mix --into), loaded, beside base plus mix."""
    soup = mixing.mix([expert(folder, name) for name in EXPERTS], [1 - LAMBDA, LAMBDA])
    target = mixing.merge(soup, folder / REFERENCE / "model", folder / way.name / "merged").folder
    one, two = model_in(folder, way, target), model_in(folder, way)
    with torch.no_grad():
        rows = rows_in(two)
        alone = one.logprobs(one.completion_states(*rows), rows[2], 1.0)
        with applied(two, soup.adapter):
            beside = two.logprobs(two.completion_states(*rows), rows[2], 1.0)
            base = (beside - two.logprobs(two.completion_states(*rows), rows[2], 1.0)).abs().max()
    assert float(base) == 0
    figures = {"gap": float((alone - beside).abs().mean())}
    require(figures["gap"] <= limit_of(way).gap, figures, f"limit {limit_of(way).gap:g}")
    return figures


def answers(folder: Path, way: Way) -> tuple[list[str], list[str]]:
    """Return greedy answers of a batch whose rows have mixes of their own, and of each mix by itself."""
    adapters = {name: mixing.read(expert(folder, name)) for name in EXPERTS}
    served = Served(model_in(folder, way), adapters, "factors")
    shares = np.linspace(0, 1, 6).tolist()
    random = np.random.default_rng(0)
    requests = [
        Request(tuple(random.integers(4, 30, size=5 + number).tolist()), Mix((1 - share, share)), 8)
        for number, share in enumerate(shares)
    ]
    return served_at_once(served, requests, len(requests)), served_at_once(served, requests, 1)


def served_at_once(served: Served, requests: Sequence[Request], rows: int) -> list[str]:
    """Return the answers of the server's engine, with so many rows in a batch."""
    engine = Engine(served, rows=rows, cache_tokens=4096, queue=len(requests), on_problem=_raise)
    texts = [""] * len(requests)

    def deliver_to(place: int) -> Callable[[Event], None]:
        def deliver(event: Event) -> None:
            if not isinstance(event, Piece):
                raise event
            texts[place] += event.text

        return deliver

    for place, request in enumerate(requests):
        engine.submit(Job(request, deliver_to(place)))
    with served.experts:
        while engine.wait(0):
            engine.step()
    return texts


def _raise(problem: Exception) -> None:
    raise problem


def served(folder: Path, way: Way) -> Figures:
    """Requests of different mixes in one batch, beside each by itself, and beside the CPU's."""
    batch, alone = answers(folder, way)
    reference = json.loads((folder / REFERENCE / "served.json").read_text())
    figures = {
        "as by itself": float(np.mean([a == b for a, b in zip(batch, alone, strict=True)])),
        "as on the CPU": float(np.mean([a == b for a, b in zip(batch, reference, strict=True)])),
    }
    require(min(figures.values()) >= limit_of(way).same, figures, f"limit {limit_of(way).same:g}")
    return figures


WORKS: Mapping[str, Callable[[Path, Way], Figures]] = {
    "passes": passes,
    "ppo": ppo,
    "grpo": grpo,
    "eval": evaluated,
    "merged": merged,
    "served": served,
}


def require(holds: Any, figures: Figures, limit: str) -> None:
    """Raise Apart unless a condition holds."""
    if not holds:
        told = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        raise Apart(f"{told} ({limit})")


def flat(path: Path) -> np.ndarray:
    """Return all numbers of an adapter's file, in the order of their names."""
    return np.concatenate([array.ravel() for _, array in sorted(load_file(path).items())])


def metrics(adapter: Path) -> list[dict[str, Any]]:
    """Return what a training told of its steps."""
    return [json.loads(line) for line in (adapter / "metrics.jsonl").read_text().splitlines()]


def done(work: str, folder: Path, way: Way) -> dict[str, Any]:
    """Do a work, and return a line about it, whatever happens."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    compared = work not in ("ppo", "grpo") or limit_of(way) == LIMITS["float32"]
    try:
        figures = WORKS[work](folder, way)
    except Apart as finding:
        return {"work": work, "verdict": "apart", "why": str(finding)}
    except Exception as problem:
        return {"work": work, "verdict": "failed", "why": f"{type(problem).__name__}: {first_line(problem)}"}
    if torch.cuda.is_available():
        figures["GB"] = torch.cuda.max_memory_allocated() / 1e9
    verdict = "same" if compared and (work != "grpo" or "apart" in figures) else "ran"
    return {"work": work, "verdict": verdict, "figures": figures}


def main() -> None:
    """Make the reference, or do the works of a way and write a line for each."""
    folder, what = Path(sys.argv[1]), sys.argv[2]
    if what == REFERENCE:
        make_reference(folder)
        return
    way = Way(**json.loads(what))
    out = folder / way.name / RESULTS
    for work in sys.argv[3:]:
        line = done(work, folder, way)
        if leads():
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
