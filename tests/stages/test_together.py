"""Workers with folders of their own make what one process makes, whatever happens to them."""

from __future__ import annotations

import _thread
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsoup import experiment
from rsoup.errors import RsoupError
from rsoup.evaluation.sweep import evaluate
from rsoup.progress import Silent
from rsoup.recipe import Recipe
from rsoup.recipe_file import load_recipe, parse_recipe
from rsoup.resolve import resolve
from rsoup.stages.graph import trainings_of
from rsoup.stages.inputs import inputs_of
from rsoup.stages.together import evaluate_together, train_together
from rsoup.stages.trained import adapters_of
from rsoup.stages.workshop import Order, Workshop
from rsoup.training.expert import train_adapter
from rsoup.training.finished import training_fingerprint
from rsoup.training.folders import Training
from stages.hands import Crew
from tiny import recipe_content, tree, write_recipe

WEIGHTS = "adapter_model.safetensors"
NAMES = ("init", "positive", "brief", "morl-0.50-0.50")
POSITIVE = Training("positive", {"positive": 1.0}, "expert")
FAILING = """
calls = []
def failing(prompts, completions):
    calls.append(1)
    return [float("nan") if len(calls) > 2 else 0.5 for _ in completions]
"""


class Watching(Silent):
    """Notes what was shown and said."""

    def __init__(self) -> None:
        self.shown: dict[str, tuple[int, int]] = {}
        self.said: list[str] = []

    def show(self, stage: str, total: int, done: int, note: str = "") -> None:
        self.shown[stage] = (done, total)

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew()
    yield made
    made.close()


def recipe_in(folder: Path, model: Path, **training: Any) -> Recipe:
    content = recipe_content(folder, model)
    content["training"] |= training
    return load_recipe(write_recipe(folder / "tiny.yaml", content))


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_of_workers_leaves_what_a_run_of_one_process_leaves(
    tmp_path: Path, tiny_run: Path, tiny_model: Path, crew: Crew
) -> None:
    recipe, watching = recipe_in(tmp_path, tiny_model), Watching()
    experiment.run_all(recipe, [resolve(recipe)], watching, crew=crew)
    one, other = tiny_run / "run", recipe.folder
    assert (one / "eval/results.json").read_bytes() == (other / "eval/results.json").read_bytes()
    for name in NAMES:
        for file in (WEIGHTS, "adapter_config.json"):
            assert (one / "adapters" / name / file).read_bytes() == (other / "adapters" / name / file).read_bytes()
    assert {path for path in tree(one) if "checkpoints" not in path} <= tree(other)
    assert watching.shown == {"positive": (3, 3), "brief": (3, 3), "morl-0.50-0.50": (3, 3), "eval": (10, 10)}
    (worker,) = crew.hired
    assert not any(str(worker.workshop.folder) in text for text in watching.said)
    assert len(list((other / "eval/points").iterdir())) == 5


def test_a_training_goes_on_from_the_last_checkpoint_that_arrived_when_its_worker_is_lost(
    tmp_path: Path, tiny_model: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    undisturbed, disturbed = (
        recipe_in(tmp_path / name, tiny_model, steps=40, checkpoint_every=4) for name in ("one", "two")
    )
    expected = train_adapter(resolve(undisturbed), "positive", {"positive": 1.0}, "expert", Silent())
    crew, watching = Crew(losing=(15, 15)), Watching()
    (folder,) = train_together([resolve(disturbed)], [POSITIVE], crew, watching, overwrite=False)
    crew.close()
    assert (folder / WEIGHTS).read_bytes() == (expected / WEIGHTS).read_bytes()
    assert len(metrics(folder)) == 40
    assert len(crew.hired) == 3
    assert sum("its worker was lost (a test); another goes on" in text for text in watching.said) == 2
    assert not list((disturbed.folder / "checkpoints").iterdir())


def test_a_worker_that_is_lost_before_it_does_anything_is_not_replaced_for_ever(
    tmp_path: Path, tiny_model: Path
) -> None:
    recipe = recipe_in(tmp_path, tiny_model)
    crew = Crew(losing=(0,) * 9)
    with pytest.raises(RsoupError, match="adapters/init: its worker was lost 4 times in a row"):
        train_together([resolve(recipe)], [POSITIVE], crew, Silent(), overwrite=False)
    crew.close()
    assert len(crew.hired) == 4


def test_a_reward_that_fails_stops_the_run_and_its_sample_and_checkpoint_arrive(
    tmp_path: Path, tiny_model: Path, crew: Crew
) -> None:
    (tmp_path / "own.py").write_text(FAILING)
    content = recipe_content(tmp_path, tiny_model)
    content["rewards"], content["morl"] = {"failing": {"function": f"{tmp_path / 'own.py'}:failing"}}, []
    recipe = parse_recipe(content, "tiny")
    with pytest.raises(RsoupError) as raised:
        experiment.run_all(recipe, [resolve(recipe)], Silent(), crew=crew)
    sample = recipe.folder / "checkpoints/failing/failed_sample.json"
    assert "returned nan" in raised.value.message
    assert str(sample) in raised.value.hint
    assert sample.is_file()
    assert list(sample.parent.glob("step-*"))


def test_an_evaluation_by_workers_is_one_process_s_with_points_chosen_on_the_way(
    tmp_path: Path, run_copy: Path, crew: Crew
) -> None:
    recipe = load_recipe(run_copy, ["evaluation.lambdas=4", "evaluation.refine=2", "evaluation.compare=[mod]"])
    resolved, sources = resolve(recipe), adapters_of(recipe)
    alone = evaluate(resolved, sources, tmp_path / "alone", Silent())
    together = evaluate_together(resolved, sources, tmp_path / "together", crew, Silent())
    assert together == alone
    for name in ("results.json", "samples.parquet"):
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_what_the_recipe_names_is_sent_where_it_is_not_and_keeps_its_name(tmp_path: Path, tiny_model: Path) -> None:
    far = tmp_path / "far"
    shutil.copytree(tiny_model, far / "model")
    (far / "own.py").write_text("def own(prompts, completions):\n    return [float(len(c)) for c in completions]\n")
    content = recipe_content(far, far / "model")
    content["rewards"], content["morl"] = {"own": {"function": f"{far / 'own.py'}:own"}}, []
    content["output"] = str(tmp_path / "run")
    recipe = parse_recipe(content, "tiny")
    inputs = inputs_of(recipe)
    assert {Path(own.path).name for own in inputs.values()} == {"model", "posts.jsonl", "own.py"}
    here = resolve(recipe)
    training = Training("own", {"own": 1.0}, "expert")
    identity = training_fingerprint(here, training.weights)
    expected = train_adapter(here, "own", training.weights, "expert", Silent())
    sent = {word: list(own.chunks()) for word, own in inputs.items()}
    shutil.rmtree(far)

    worker = Workshop()
    try:
        assert worker.lacks(inputs) == list(inputs)
        for number, (word, pieces) in enumerate(sent.items()):
            for name, piece in pieces:
                worker.receive(number, inputs[word], name, piece)
            worker.received(number, inputs[word], word)
        assert worker.lacks(inputs) == []
        made = worker.train(Order(recipe, identity, training))
    finally:
        worker.close()
    assert not worker.folder.exists()
    for file in (WEIGHTS, "adapter_config.json"):
        assert made[f"adapters/own/{file}"] == (expected / file).read_bytes()
    told = json.loads(made["adapters/own/rsoup.json"])
    assert told["base_model"]["name"] == str(far / "model")


def test_a_worker_that_sees_something_else_refuses(tmp_path: Path, tiny_model: Path) -> None:
    recipe = recipe_in(tmp_path, tiny_model)
    worker = Workshop()
    with pytest.raises(RsoupError, match="sees another base model"):
        worker.train(Order(recipe, "another", POSITIVE))
    worker.close()


def test_each_seed_has_a_folder_and_the_report_pools_them(tmp_path: Path, tiny_model: Path, crew: Crew) -> None:
    content = {**recipe_content(tmp_path, tiny_model), "seeds": [0, 1]}
    content["training"]["steps"] = 1
    recipe = parse_recipe(content, "tiny")
    report = experiment.run_all(recipe, [resolve(own) for own in recipe.by_seed()], Silent(), crew=crew)
    assert report is not None
    assert [made.about["seed"] for made in report.made_from] == [0, 1]
    for seed in (0, 1):
        folder = recipe.folder / f"seed-{seed}"
        assert {path.name for path in (folder / "adapters").iterdir()} == set(NAMES)
    assert (recipe.folder / "report/index.html").is_file()
    assert trainings_of(recipe.by_seed()[1]) == trainings_of(recipe)


def test_an_interruption_keeps_the_last_whole_step(tmp_path: Path, tiny_model: Path, crew: Crew) -> None:
    recipe = recipe_in(tmp_path, tiny_model, steps=400, checkpoint_every=400)

    class Interrupting(Silent):
        asked = False

        def show(self, stage: str, total: int, done: int, note: str = "") -> None:
            if done >= 3 and not self.asked:
                self.asked = True
                _thread.interrupt_main()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            train_together([resolve(recipe)], [POSITIVE], crew, Interrupting(), overwrite=False)
    finally:
        signal.signal(signal.SIGINT, before)
    (kept,) = (recipe.folder / "checkpoints/positive").glob("step-*")
    assert len(metrics(kept.parent)) == int(kept.stem.removeprefix("step-")) >= 3


def test_two_processes_train_for_one_worker(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    recipe = recipe_in(tmp_path, tiny_model)
    resolved = resolve(recipe)
    worker = Workshop()
    made = worker.train(Order(recipe, training_fingerprint(resolved, POSITIVE.weights), POSITIVE, processes=2))
    news = worker.news()
    worker.close()
    told = json.loads(made["adapters/positive/rsoup.json"])
    assert (told["processes"], told["steps"], news.done) == (2, 3, 3)
    assert any(text.startswith("step 1: ") for text in news.said)
