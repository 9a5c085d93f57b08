"""A reward to be minimised trains as its opposite does, bit for bit, and is noted in its own sign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsoup.adapters.reading import PROVENANCE_FILE
from rsoup.cli.options import make_recipe
from rsoup.evaluation.results import RESULTS, read_results
from rsoup.evaluation.sweep import evaluate
from rsoup.files import sha256_file
from rsoup.progress import Silent
from rsoup.recipe import Recipe
from rsoup.recipe_file import parse_recipe
from rsoup.resolve import resolve
from rsoup.training.expert import train_adapter
from rsoup.training.finished import training_fingerprint
from rsoup.training.loop import Objective
from rsoup.training.scores import Running, objective_scores
from rsoup.training.team import Team
from rsoup.training.trl_rounds import Judge
from tiny import build_adapter, recipe_content

from .directly import make_examples, make_policy, one_step

CODE = """
def count(prompts, completions):
    return [len(text.split()) + 0.1 * len(set(text)) for text in completions]

def opposite(prompts, completions):
    return [-score for score in count(prompts, completions)]
"""


@pytest.mark.parametrize("scaling", ["raw", "running", "normalize_then_sum"])
def test_scores_count_as_their_opposites_however_they_are_scaled(scaling):
    scores = {"a": np.array([1.0, 3.0, 0.5, 7.0]), "b": np.array([2.0, -1.0, 4.0, 4.5])}
    opposite = {"a": scores["a"], "b": -scores["b"]}
    training = one_step("grpo", score_scaling=scaling, score_clip=1.5).model_copy(update={"completions_per_prompt": 2})
    mu = {"a": 0.25, "b": 0.75}
    seen = [{name: Running().with_batch(own) for name, own in given.items()} for given in (scores, opposite)]
    found = objective_scores(scores, mu, seen[0], training, {"b"})
    assert found.tolist() == objective_scores(opposite, mu, seen[1], training).tolist()


def test_the_weighted_mean_takes_away_what_is_minimised():
    """(1 * 3 - 3 * 2) / 4."""
    scores = {"a": np.array([3.0]), "b": np.array([2.0])}
    assert objective_scores(scores, {"a": 1.0, "b": 3.0}, {}, one_step("rloo"), {"b"}).tolist() == [-0.75]


def test_trl_gets_the_opposite_of_scores_to_be_minimised(tiny_model):
    """(1 * 1 - 3 * 5) / 4 and (1 * 2 - 3 * 7) / 4."""
    training = one_step("grpo")
    policy = make_policy(tiny_model)
    scorers = {"a": lambda _samples: [1.0, 2.0], "b": lambda _samples: [5.0, 7.0]}
    objective = Objective(scorers, {"a": 1.0, "b": 3.0}, frozenset({"b"}))
    judge = Judge(objective, training, policy.language_model, make_examples(policy), {}, Team())
    assert judge.objective_rewards([[5], [6]], [0, 1]) == [-3.5, -4.75]
    assert judge.heard is not None
    assert judge.heard.scores["b"].tolist() == [5.0, 7.0]


def recipe_of(folder: Path, model: Path, reward: dict[str, Any], **evaluation: Any) -> Recipe:
    folder.mkdir(exist_ok=True)
    content = recipe_content(folder, model)
    (folder.parent / "words.py").write_text(CODE)
    content["rewards"] = {"positive": {}, "wordy": reward}
    content["morl"] = []
    content["evaluation"] |= evaluation
    return parse_recipe(content, "tiny")


def both(folder: Path, model: Path, **evaluation: Any) -> tuple[Recipe, Recipe]:
    """Return a recipe that minimises a reward, and one that maximises its opposite."""
    words = folder / "words.py"
    lower = recipe_of(folder / "lower", model, {"function": f"{words}:count", "direction": "minimize"}, **evaluation)
    return lower, recipe_of(folder / "higher", model, {"function": f"{words}:opposite"}, **evaluation)


@pytest.mark.parametrize("weights", [{"wordy": 1.0}, {"positive": 0.5, "wordy": 0.5}])
def test_an_adapter_is_that_of_the_opposite_reward(tmp_path, tiny_model, weights):
    lower, higher = both(tmp_path, tiny_model)
    folders = [train_adapter(resolve(recipe), "own", weights, "morl", Silent()) for recipe in (lower, higher)]
    assert sha256_file(folders[0] / "adapter_model.safetensors") == sha256_file(
        folders[1] / "adapter_model.safetensors"
    )
    lines = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in folders]
    for one, other in zip(*lines, strict=True):
        assert one["scores"]["wordy"] == -other["scores"]["wordy"] > 0
        assert one["reward"] == other["reward"]
    about = [json.loads((folder / PROVENANCE_FILE).read_text()) for folder in folders]
    assert about[0]["minimized"] == ["wordy"]
    assert "minimized" not in about[1]
    assert f"wordy {weights['wordy']:g} (lower is better)" in (folders[0] / "README.md").read_text()


def test_a_direction_belongs_to_what_decides_a_training_that_has_weight_on_it(tmp_path, tiny_model):
    lower, _ = both(tmp_path, tiny_model)
    section = lower.rewards["wordy"].model_copy(update={"direction": "maximize"})
    raised = lower.model_copy(update={"rewards": {**lower.rewards, "wordy": section}})
    prints = [
        [training_fingerprint(resolve(own), {name: 1.0}) for own in (lower, raised)] for name in ("wordy", "positive")
    ]
    assert prints[0][0] != prints[0][1]
    assert prints[1][0] == prints[1][1]


def test_a_sweep_refines_where_lower_is_better_and_keeps_the_sign(tmp_path, tiny_model):
    recipes = both(tmp_path, tiny_model, lambdas=3, refine=2, measures=False)
    sources = [build_adapter(tmp_path / name, tiny_model, seed=seed) for seed, name in ((1, "positive"), (2, "wordy"))]
    found = []
    for number, recipe in enumerate(recipes):
        out = tmp_path / f"eval{number}"
        evaluate(resolve(recipe), sources, out, Silent(), allow_different_starts=True)
        found.append(read_results(out / RESULTS))
    lower, higher = found
    assert lower.directions == {"positive": "maximize", "wordy": "minimize"}
    assert higher.directions == {}
    assert [point.id for point in lower.points] == [point.id for point in higher.points]
    assert [p.scores["wordy"].mean for p in lower.points] == [-p.scores["wordy"].mean for p in higher.points]


def test_an_adapter_that_was_trained_the_other_way_is_told(tmp_path, tiny_model):
    lower, _ = both(tmp_path, tiny_model, lambdas=2, measures=False)
    folder = train_adapter(resolve(lower), "wordy", {"wordy": 1.0}, "expert", Silent())
    section = lower.rewards["wordy"].model_copy(update={"direction": "maximize"})
    raised = lower.model_copy(update={"rewards": {**lower.rewards, "wordy": section}})
    told = "warning: wordy was trained to lower wordy; the recipe says to raise it."
    for recipe, expected in ((lower, False), (raised, True)):
        progress = Telling()
        evaluate(resolve(recipe), [folder], tmp_path / "eval", progress)
        assert (told in progress.said) is expected


class Telling(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_reward_of_the_command_line_may_be_minimised_without_a_recipe(tmp_path):
    (tmp_path / "words.py").write_text(CODE)
    flags = {"model.base": "m", "task.data": "d.jsonl"}
    given = [f"{tmp_path / 'words.py'}:count", "positive"]
    turned = ["rewards.count.direction=minimize", "rewards.positive.direction=minimize"]
    recipe, names = make_recipe(None, turned, flags, given)
    assert list(names) == ["count", "positive"]
    assert recipe.minimized == {"count", "positive"}
    assert recipe.rewards["count"].function == given[0]
