"""What a worker does: one stage after another, in a folder of its own; files come and go as bytes."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from rsoup.adapters import Adapter
from rsoup.errors import MissingPackageError, RsoupError, first_line, see
from rsoup.evaluation.bench import Bench, dtype_of
from rsoup.evaluation.memory import is_out_of_memory
from rsoup.evaluation.plan import Plan
from rsoup.evaluation.points import PlannedPoint
from rsoup.evaluation.sweep import prompts_of
from rsoup.files import temporary_folder
from rsoup.recipe import START, Recipe
from rsoup.resolve import Resolved, resolve
from rsoup.rewards.judges.usage import counted
from rsoup.stages.inputs import Input
from rsoup.stages.parcels import Changes, Files, pack, unpack
from rsoup.stages.processes import Job, train_with
from rsoup.stages.told import News, Stopped, Told
from rsoup.training.expert import ensure_start, train_adapter
from rsoup.training.finished import start_fingerprint, training_fingerprint
from rsoup.training.folders import Training
from rsoup.training.team import Team

KEPT = ("checkpoints", "trajectory", "logs")
"""What a stage leaves while it is under way."""


@dataclass(frozen=True)
class Order:
    """A stage to do: the recipe, what decides the result as whoever orders it sees it, and files to begin with."""

    recipe: Recipe
    identity: str
    training: Training | None = None
    files: Files = field(default_factory=dict)
    processes: int = 1


@dataclass(frozen=True)
class PointOrder:
    """A point to measure, as part of a plan without adapters, which come by themselves, and what is kept of it."""

    recipe: Recipe
    identity: str
    plan: Plan
    point: PlannedPoint
    kept: Files = field(default_factory=dict)


class Workshop:
    """A worker. Whoever gives it orders asks it for news meanwhile, from another thread."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        folder = Path(tempfile.gettempdir()) / "rsoup-worker"
        self.folder = self._stack.enter_context(temporary_folder(folder))
        self._told, self._changes = Told(), Changes(self.folder / "run")
        self._places: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._resolved: tuple[Recipe, Resolved] | None = None
        self._bench: Bench | None = None

    def close(self) -> None:
        """Remove the folder."""
        self._stack.close()

    def stop(self) -> None:
        """End the stage under way at its next unit."""
        self._told.stop()

    def news(self) -> News:
        """Return how far the stage is, and what is new."""
        news = self._told.news(self._changes.look())
        return replace(news, said=tuple(self._in_words(text) for text in news.said))

    def lacks(self, inputs: Mapping[str, Input]) -> list[str]:
        """Return the inputs, by the recipe's word for them, that have to be sent here."""
        for word, own in inputs.items():
            if word not in self._places and own.is_here():
                self._places[word] = own.path
        return [word for word in inputs if word not in self._places]

    def receive(self, number: int, own: Input, name: str, piece: bytes) -> None:
        """Add a piece to a file of an input, which has a number among all that are sent."""
        place = own.below(self._input(number))
        path = (place if own.is_folder else place.parent) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece)

    def received(self, number: int, own: Input, word: str) -> None:
        """Use an input that is here as a whole for a word of the recipe."""
        self._places[word] = str(own.below(self._input(number)))

    def dtype(self, recipe: Recipe) -> str:
        """Return the type of the weights that this machine evaluates with."""
        return dtype_of(recipe)

    def start(self, order: Order) -> Files:
        """Check what trainings need, rewards included, and make the start that the adapters of a run share."""
        return self._do(order.recipe, lambda resolved: self._start(resolved, order))

    def train(self, order: Order) -> Files:
        """Train an adapter, or go on from the checkpoint among the files, and return its folder."""
        return self._do(order.recipe, lambda resolved: self._train(resolved, order))

    def measure(self, order: PointOrder, start: Adapter | None, *adapters: Adapter) -> Files:
        """Measure a point, made of ``adapters`` that began from ``start``, and return what is kept of it."""
        return self._do(order.recipe, lambda resolved: self._measure(resolved, order, start, adapters), keep=True)

    def _input(self, number: int) -> Path:
        return self.folder / "inputs" / str(number)

    def _do(self, recipe: Recipe, task: Callable[[Resolved], Files], *, keep: bool = False) -> Files:
        """Do a task in an empty folder of the run; whatever goes wrong is told as an RsoupError, in the recipe's words.

        With ``keep`` the model of the evaluation stays in memory.
        """
        run = self.folder / "run"
        if not keep:
            self._bench = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        shutil.rmtree(run, ignore_errors=True)
        self._told, self._changes = Told(), Changes(run, *KEPT)
        self._words = {str(run): str(recipe.folder), **{place: word for word, place in self._places.items()}}
        try:
            return task(self._resolve(recipe, run))
        except Stopped:
            raise RsoupError("The worker was stopped.", "The same command continues.") from None
        except Exception as problem:
            told = explained(problem)
            told.message, told.hint = self._in_words(told.message), self._in_words(told.hint)
            raise told from problem

    def _resolve(self, recipe: Recipe, run: Path) -> Resolved:
        """Return what a recipe names, with the folder of this worker in the place of the run's."""
        if self._resolved is None or self._resolved[0] != recipe:
            self._bench = None
            self._resolved = recipe, resolve(recipe.model_copy(update={"output": str(run)}), self._places)
        return self._resolved[1]

    def _start(self, resolved: Resolved, order: Order) -> Files:
        _ = resolved.training_examples, resolved.scorers
        if start_fingerprint(resolved) != order.identity:
            raise _other_world("the start of the adapters")
        folder = resolved.recipe.folder
        unpack(order.files, folder)
        if not order.files:
            ensure_start(resolved, Team(), self._told)
        return pack(folder, f"adapters/{START}")

    def _train(self, resolved: Resolved, order: Order) -> Files:
        training = order.training
        assert training is not None
        if training_fingerprint(resolved, training.weights) != order.identity:
            raise _other_world(training.name)
        unpack(order.files, resolved.recipe.folder)
        if order.processes > 1:
            train_with(order.processes, Job(resolved.recipe, self._places, training), self._told)
        else:
            train_adapter(resolved, training.name, training.weights, training.kind, self._told)
        return pack(resolved.recipe.folder, f"adapters/{training.name}")

    def _measure(
        self, resolved: Resolved, order: PointOrder, start: Adapter | None, adapters: Sequence[Adapter]
    ) -> Files:
        plan = replace(order.plan, adapters={adapter.name: adapter for adapter in adapters})
        bench = self._bench
        if bench is None or _sha256(bench.start) != _sha256(start):
            self._bench = None  # before another model is loaded
            bench = Bench(resolved, plan, prompts_of(resolved), start, self.folder / "eval", self._told)
            self._bench = bench
        bench.plan, bench.progress = plan, self._told
        if identity_of(bench, order.point) != order.identity:
            raise _other_world(order.point.id)
        folders = [keeping.folder for keeping in bench.folders(order.point)]
        root, names = folders[0].parent, [folder.name for folder in folders]
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        unpack(order.kept, root)
        self._changes = Changes(root, *names)
        with counted(self._told.say):
            bench.measure([order.point])
        return pack(root, *names)

    def _in_words(self, text: str) -> str:
        """Return a text with the words of whoever gave the order for the places on this machine."""
        for place, word in self._words.items():
            text = text.replace(place, word)
        return text


def identity_of(bench: Bench, point: PlannedPoint) -> str:
    """Return what a worker and whoever orders a point have to see alike: the model, how it is asked, benchmarks."""
    return "/".join([*(keeping.folder.name for keeping in bench.folders(point)), *bench.identity])


def explained(problem: Exception) -> RsoupError:
    """Return an error of a worker as one line what is wrong and one line what to do."""
    if isinstance(problem, RsoupError):
        return problem
    if isinstance(problem, ModuleNotFoundError) and problem.name:
        return MissingPackageError(problem.name, "A worker", f"pip install {problem.name}, on each machine")
    if is_out_of_memory(problem):
        return RsoupError(
            "The device of a worker is out of memory.",
            "Lower training.prompts_per_step, training.completions_per_prompt or evaluation.batch_size."
            + see("out-of-memory"),
        )
    if isinstance(problem, OSError):
        return RsoupError(
            f"A worker: {problem.filename or 'a file'}: {problem.strerror or first_line(problem)}.",
            "Check the rights and the free space on that machine.",
        )
    return RsoupError(
        f"A worker failed with {type(problem).__name__}: {first_line(problem)}.",
        "Run it without --ray to see where; if it works there, the machines differ.",
    )


def _sha256(adapter: Adapter | None) -> str | None:
    return adapter.sha256 if adapter is not None else None


def _other_world(what: str) -> RsoupError:
    return RsoupError(
        f"{what}: a worker sees another base model, other data, rewards or settings than this machine.",
        "Give every machine the same models, files and version of rsoup.",
    )
