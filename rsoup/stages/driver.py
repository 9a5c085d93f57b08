"""What this machine does while workers do the stages: it hands out what they need and keeps what comes back.

Only this machine writes into the folders of the runs. Whatever ends it leaves folders that the same command continues.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.errors import RsoupError
from rsoup.evaluation.bench import Bench, Elsewhere
from rsoup.evaluation.ingredients import Ingredient, adapters_in, method_for
from rsoup.evaluation.plan import Plan, ingredients_of
from rsoup.evaluation.points import PlannedPoint
from rsoup.evaluation.start import start_of
from rsoup.evaluation.sweep import prompts_of
from rsoup.evaluation.trajectory import read_after
from rsoup.locks import Turn, lock_file, my_turn
from rsoup.progress import Silent
from rsoup.recipe import START, Recipe
from rsoup.resolve import Resolved
from rsoup.stages.board import Board
from rsoup.stages.dispatch import Hand, Lost
from rsoup.stages.graph import Stage, trainings_of
from rsoup.stages.inputs import Input, inputs_of
from rsoup.stages.parcels import Files, pack, unpack
from rsoup.stages.told import News
from rsoup.stages.workshop import Order, PointOrder, identity_of
from rsoup.training.checkpoint import KEPT, list_checkpoints
from rsoup.training.expert import is_there
from rsoup.training.finished import clear, is_done, is_trained, start_fingerprint, training_fingerprint
from rsoup.training.folders import Training, adapter_folder, checkpoint_folder
from rsoup.training.metrics import METRICS_FILE


class Trainer:
    """Has the adapters of a run made."""

    def __init__(self, resolved: Resolved, board: Board, *, overwrite: bool) -> None:
        self.resolved, self._board, self._overwrite = resolved, board, overwrite
        self.recipe = resolved.recipe

    def start(self, stage: Stage, hand: Hand) -> None:
        """Have the start made, unless it is there, and checked what trainings need."""
        folder = adapter_folder(self.recipe, START)
        identity = start_fingerprint(self.resolved)
        with self._turn(START) as turn:
            there = is_there(lambda: is_done(folder, identity, self.recipe), overwrite=self._overwrite)
            files = pack(self.recipe.folder, f"adapters/{START}") if there else {}
            made = self._ordered(stage, hand, "start", Order(self.recipe, identity, files=files), turn)
            if not there:
                unpack(made, self.recipe.folder)

    def train(self, stage: Stage, hand: Hand) -> None:
        """Have an adapter trained, from the last checkpoint that reached this machine, unless it is there."""
        training = stage.training
        assert training is not None
        with self._turn(training.name) as turn:
            if self._is_trained(training):
                self._board.done(stage)
                return
            clear(self.resolved, training.name, training.weights, overwrite=self._overwrite)
            identity = training_fingerprint(self.resolved, training.weights)
            order = Order(
                self.recipe, identity, training, self._to_begin_with(training), processes=max(1, hand.needs.gpus)
            )
            made = self._ordered(stage, hand, "train", order, turn)
            unpack(made, self.recipe.folder)
            shutil.rmtree(checkpoint_folder(self.recipe, training.name), ignore_errors=True)
            self._board.done(stage)

    def _is_trained(self, training: Training) -> bool:
        return is_there(lambda: is_trained(self.resolved, training.name, training.weights), overwrite=self._overwrite)

    def _to_begin_with(self, training: Training) -> Files:
        """Return the start, and the last checkpoint with the metrics up to it."""
        files = pack(self.recipe.folder, f"adapters/{START}")
        folder = checkpoint_folder(self.recipe, training.name)
        last = list_checkpoints(folder)[-1:]
        names = [*last, folder / METRICS_FILE] if last else []
        return files | {str(path.relative_to(self.recipe.folder)): path.read_bytes() for path in names}

    def _ordered(self, stage: Stage, hand: Hand, method: str, order: Order, turn: Turn) -> Files:
        def keep(news: News) -> None:
            turn.check()
            unpack(news.files, self.recipe.folder)
            if stage.training is not None:
                for old in list_checkpoints(checkpoint_folder(self.recipe, stage.training.name))[:-KEPT]:
                    old.unlink()

        return ordered(stage, hand, method, (order,), self._board, keep)

    def _turn(self, name: str) -> AbstractContextManager[Turn]:
        def on_wait() -> None:
            self._board.say(f"Another command is making {name}; waiting for it.")

        return my_turn(lock_file(self.recipe.folder, name), on_wait)


class Measurer:
    """Has the points of an evaluation measured; ``plan`` says of what, unless adapters are still being made."""

    def __init__(self, resolved: Resolved, out: Path, board: Board, plan: Plan | None = None) -> None:
        self.resolved, self._out, self._board, self._plan = resolved, out, board, plan
        self._lock = threading.RLock()
        self._adapters: dict[str, Adapter] = {}
        self._sent: dict[str, Any] = {}
        self._dtype: str | None = None

    def measure(self, stage: Stage, hand: Hand) -> None:
        """Have the point of a stage measured."""
        assert stage.point is not None
        with self._lock:
            plan = self._plan or self._plan_of(stage.point)
            measures = self.resolved.recipe.evaluation.measures
            start, _ = start_of(adapters_in(plan.adapters).values()) if measures else (None, None)
        self.measure_on(hand, stage, stage.point, replace(plan, points=(), warnings=()), start)
        self._board.done(stage)

    def elsewhere(self, stage: Stage, hand: Hand) -> Elsewhere:
        """Return what measures further points with a worker."""
        return _Elsewhere(self, stage, hand, self.dtype(hand))

    def dtype(self, hand: Hand) -> str:
        """Return the type of the weights that all workers evaluate with."""
        with self._lock:
            if self._dtype is None:
                self._dtype = hand.call("dtype", self.resolved.recipe)
            return self._dtype

    def measure_on(self, hand: Hand, stage: Stage, point: PlannedPoint, plan: Plan, start: Adapter | None) -> None:
        """Have a worker measure what is missing of a point, and keep it."""
        elsewhere = _Elsewhere(self, stage, hand, self.dtype(hand))
        own = replace(plan, adapters={name: plan.adapters[name] for name in point.used})
        bench = Bench(self.resolved, own, prompts_of(self.resolved), start, self._out, Silent(), elsewhere)
        folders = [keeping.folder for keeping in bench.folders(point)]
        root = folders[0].parent
        with ExitStack() as locks:
            for keeping in bench.folders(point):
                locks.enter_context(keeping.held(wait=True))
            if not bench.lacks(point):
                return
            kept = pack(root, *(folder.name for folder in folders))
            identity = identity_of(bench, point)
            order = PointOrder(self.resolved.recipe, identity, replace(own, adapters={}), point, kept)
            adapters = [self._send(hand, adapter) for adapter in adapters_in(own.adapters).values()]
            arguments = (order, self._send(hand, start) if start is not None else None, *adapters)

            def keep(news: News) -> None:
                unpack(news.files, root)

            unpack(ordered(stage, hand, "measure", arguments, self._board, keep), root)

    def _plan_of(self, point: PlannedPoint) -> Plan:
        """Return a plan of a point alone, whose adapters are there, and the start for what has none."""
        recipe = self.resolved.recipe
        names = list(point.used) or [START]
        for name in names:
            if name not in self._adapters:
                self._adapters[name] = _read(recipe, name)
        kinds = {training.name: training.kind for training in trainings_of(recipe)}
        adapters: dict[str, Ingredient] = {name: self._adapters[name] for name in names}
        method = method_for(adapters.values(), recipe.evaluation)
        return Plan(adapters, ingredients_of(kinds, recipe.evaluation), (), recipe.evaluation, method)

    def _send(self, hand: Hand, adapter: Adapter) -> Any:
        with self._lock:
            key = f"{adapter.name}/{adapter.identity}"
            if key not in self._sent:
                self._sent[key] = hand.put(adapter)
            return self._sent[key]


def _read(recipe: Recipe, name: str) -> Adapter:
    """Read an adapter of a run, by its name, or as it was earlier, by NAME@STEP."""
    last, _, step = name.partition("@")
    adapter = mixing.read(adapter_folder(recipe, last))
    return read_after(adapter, int(step)) if step else adapter


@dataclass(frozen=True)
class _Elsewhere:
    """A worker that measures points."""

    measurer: Measurer
    stage: Stage
    hand: Hand
    dtype: str

    def measure(self, point: PlannedPoint, plan: Plan, start: Adapter | None) -> None:
        """Have a point measured."""
        self.measurer.measure_on(self.hand, self.stage, point, plan, start)


def ordered(
    stage: Stage, hand: Hand, method: str, arguments: Sequence[Any], board: Board, keep: Callable[[News], None]
) -> Files:
    """Have a worker do an order; what it tells meanwhile is shown and kept, also if the order fails."""
    got_on = False

    def look() -> None:
        nonlocal got_on
        news = hand.call("news")
        keep(news)
        got_on = got_on or any(name.endswith(".safetensors") for name in news.files)
        board.news(stage, news)

    try:
        supply(hand, inputs_of(arguments[0].recipe))
        made: Files = hand.work(method, *arguments, look=look)
        look()
    except Lost as lost:
        raise Lost(lost.reason, got_on=got_on) from lost
    except RsoupError:
        with suppress(Lost):
            look()
        raise
    return made


def supply(hand: Hand, inputs: Mapping[str, Input]) -> None:
    """Send a worker the files that the recipe names and that its machine has not."""
    lacking = hand.call("lacks", inputs)
    for number, (word, own) in enumerate(inputs.items()):
        if word in lacking:
            for name, piece in own.chunks():
                hand.call("receive", number, own, name, piece)
            hand.call("received", number, own, word)
