"""Evaluate a front: every planned point on every reward, with one resident model and nothing done twice."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from rsoup import __version__, adapters
from rsoup.errors import AdapterError
from rsoup.evaluation.cache import Measured, read_measured, write_measured
from rsoup.evaluation.generation import measure
from rsoup.evaluation.plan import Plan, PlannedPoint, kind_of, plan_sweep
from rsoup.evaluation.results import (
    Adapter,
    Base,
    Generation,
    Point,
    PointSamples,
    Prompts,
    Results,
    Samples,
    write_results,
)
from rsoup.files import sha256_json
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import (
    load_language_model,
    load_tokenizer,
    model_sha256,
    pick_device,
    pick_dtype,
    settings_sha256,
)
from rsoup.progress import Progress
from rsoup.recipe import Recipe
from rsoup.rewards import reward_identity
from rsoup.rewards.scoring import Scorer, make_scorer, score
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import Example, load_examples

RESULTS = "results.json"


def evaluate(
    recipe: Recipe,
    folders: Sequence[str | Path],
    out: Path,
    progress: Progress,
    *,
    allow_different_starts: bool = False,
) -> Results:
    """Evaluate the base, the mixes of some adapters and the baselines among them; write results and samples to ``out``.

    ``out`` also keeps what was measured at each point, found again by content (adapters, weights, base model,
    prompts, generation settings; rewards for the scores), so only what is new is computed.
    """
    settings = recipe.evaluation
    plan = plan_sweep(folders, settings.lambdas, settings.method, allow_different_starts=allow_different_starts)
    for warning in plan.warnings:
        progress.say(f"warning: {warning}")
    base_sha256 = model_sha256(recipe.model.base, recipe.model.revision)
    _check_base(plan, recipe.model.base, base_sha256)
    task = resolve_task(recipe.task)
    tokenizer = load_tokenizer(recipe.model.base, recipe.model.revision)
    held_out = load_examples(task, tokenizer, "test", recipe.seed)
    for remark in held_out.remarks("held-out"):
        progress.say(remark)
    examples = held_out.rows[: settings.prompts]
    if len(examples) < settings.prompts:
        progress.say(f"There are only {len(examples)} held-out prompts of the {settings.prompts} asked for.")
    bench = _Bench(recipe, plan, examples, base_sha256, out, progress)
    measured = bench.run()
    samples = _samples(recipe, plan, examples, measured)
    results = Results(
        recipe=recipe.name,
        task=task.name,
        seed=recipe.seed,
        base_model=Base(name=recipe.model.base, sha256=base_sha256),
        generation=Generation(
            max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, dtype=bench.dtype
        ),
        prompts=Prompts(count=len(examples), sha256=bench.prompts_sha256, split="test"),
        rewards=tuple(recipe.rewards),
        adapters={name: _adapter(adapter, out) for name, adapter in plan.adapters.items()},
        method=settings.method,
        points=tuple(_point(point, samples.points[point.id], measured[point.id]) for point in plan.points),
        seconds=round(sum(entry.seconds for entry in measured.values()), 1),
        versions={"rsoup": __version__, **{name: version(name) for name in ("torch", "transformers")}},
    )
    write_results(out / RESULTS, results, samples)
    return results


class _Bench:
    """Measures points; the model and the scorers are loaded when the first point needs them."""

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        examples: Sequence[Example],
        base_sha256: str,
        out: Path,
        progress: Progress,
    ) -> None:
        self.dtype = _resolved_dtype(recipe)
        self.prompts_sha256 = sha256_json([[example.id, example.prompt] for example in examples])
        self._tokens_sha256 = sha256_json(
            [[example.id, example.response, len(example.prefix_tokens), *example.tokens] for example in examples]
        )
        self._recipe, self._plan, self._examples = recipe, plan, examples
        self._base_sha256, self._out, self._progress = base_sha256, out, progress
        self._scorers: dict[str, Scorer] = {}
        self._model: LanguageModel | None = None

    def run(self) -> dict[str, Measured]:
        """Return what was measured at each point, now or earlier."""
        batches = math.ceil(len(self._examples) / self._recipe.evaluation.batch_size)
        kept = {point.id: read_measured(self._out, self._key(point)) for point in self._plan.points}
        done = sum(entry is not None for entry in kept.values())
        self._progress.start("eval", len(kept) * batches, done * batches)
        measured = {point.id: self._complete(point, kept[point.id]) for point in self._plan.points}
        self._progress.finish()
        return measured

    def _complete(self, point: PlannedPoint, measured: Measured | None) -> Measured:
        """Generate what has not been generated, score what has not been scored, and keep both."""
        if measured is None:
            soup = self._plan.mixed(point)
            measured = measure(
                self._loaded_model(),
                soup.adapter if soup else None,
                self._examples,
                self._recipe.evaluation,
                self._recipe.seed,
                lambda: self._progress.advance(point.id),
            )
            write_measured(self._out, self._key(point), measured)
        posts = [example.post for example in self._examples]
        for name, section in self._recipe.rewards.items():
            identity = sha256_json(reward_identity(name, section))
            if identity not in measured.scores:
                if name not in self._scorers:
                    self._scorers[name] = make_scorer(name, section)
                measured.scores[identity] = score(name, self._scorers[name], posts, measured.completions).tolist()
                write_measured(self._out, self._key(point), measured)
        return measured

    def _loaded_model(self) -> LanguageModel:
        if self._model is None:
            model = self._recipe.model
            self._model = load_language_model(model.base, revision=model.revision, dtype=self.dtype)
        return self._model

    def _key(self, point: PlannedPoint) -> str:
        settings = self._recipe.evaluation
        generation = [settings.max_new_tokens, settings.temperature, self.dtype]
        seed = self._recipe.seed if settings.temperature else None
        model = [self._base_sha256, settings_sha256(self._recipe.model.base, self._recipe.model.revision)]
        return sha256_json([self._plan.identity(point), model, self._tokens_sha256, generation, seed])


def _resolved_dtype(recipe: Recipe) -> str:
    """Return the dtype of the weights: float32 on the CPU and that of training elsewhere, unless the recipe says it."""
    device, name = pick_device(), recipe.evaluation.dtype
    if name == "auto" and device.type != "cpu":
        name = recipe.model.dtype
    return str(pick_dtype(name, device, exact=True)).removeprefix("torch.")


def _check_base(plan: Plan, name: str, sha256: str) -> None:
    for adapter in plan.adapters.values():
        trained_on = adapter.provenance.base_sha256 if adapter.provenance else None
        if trained_on is not None and trained_on != sha256:
            assert adapter.provenance is not None
            raise AdapterError(
                f"The adapter {adapter.name} was trained on {adapter.provenance.base_name}, not on {name}.",
                "Set model.base to the model it was trained on.",
            )


def _samples(recipe: Recipe, plan: Plan, examples: Sequence[Example], measured: Mapping[str, Measured]) -> Samples:
    identities = {name: sha256_json(reward_identity(name, section)) for name, section in recipe.rewards.items()}
    points = {
        point.id: PointSamples(
            completions=tuple(entry.completions),
            scores={name: np.array(entry.scores[identity]) for name, identity in identities.items()},
            tokens=np.array(entry.tokens, dtype=np.int32),
            ended_by_eos=np.array(entry.ended_by_eos),
        )
        for point in plan.points
        for entry in [measured[point.id]]
    }
    return Samples(tuple(example.id for example in examples), tuple(example.post for example in examples), points)


def _point(point: PlannedPoint, samples: PointSamples, measured: Measured) -> Point:
    extras = {
        "completion_tokens": float(samples.tokens.mean()),
        "ended_by_eos": float(samples.ended_by_eos.mean()),
        "seconds": measured.seconds,
    }
    return Point(
        id=point.id, kind=point.kind, weights=point.weights, lam=point.lam, scores=samples.summary(), extras=extras
    )


def _adapter(adapter: adapters.Adapter, out: Path) -> Adapter:
    rewards = adapter.provenance.raw.get("rewards") if adapter.provenance and kind_of(adapter) == "morl" else None
    assert adapter.path is not None
    path = os.path.relpath(adapter.path, out)  # a run may be moved as a whole
    return Adapter(path=path, sha256=adapter.sha256, kind=kind_of(adapter), rewards=rewards)
