"""Training and evaluation give rewards the beginning of the reference answer together with the completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsoup.evaluation.results import RESULTS, read_results, read_samples
from rsoup.evaluation.sweep import evaluate
from rsoup.models.load import load_tokenizer
from rsoup.progress import Silent
from rsoup.recipe_file import load_recipe
from rsoup.resolve import resolve
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import load_examples
from rsoup.training.expert import train_adapter
from tiny import POSTS, build_adapter, recipe_content, write_recipe

NOTING = """
import json, pathlib
def noting(prompts, completions):
    with pathlib.Path({log!r}).open("a") as file:
        for pair in zip(prompts, completions):
            file.write(json.dumps(pair) + "\\n")
    return [0.0] * len(prompts)
"""


@pytest.mark.parametrize("algo", ["ppo", "rloo", "grpo"])
def test_rewards_and_samples_have_the_prefix_and_the_first_sentence(
    algo: str, tmp_path: Path, tiny_model: Path
) -> None:
    content: dict[str, Any] = recipe_content(tmp_path, tiny_model)
    log = tmp_path / "log.jsonl"
    (tmp_path / "own.py").write_text(NOTING.format(log=str(log)))
    rows = [{"id": f"p{i}", "post": post, "answer": "good great bad awful"} for i, post in enumerate(POSTS)]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content["task"] |= {"reference": "answer", "prefix": [2, 3], "response": "first_sentence"}
    content |= {"rewards": {"noting": {"function": f"{tmp_path / 'own.py'}:noting"}}, "morl": []}
    content["training"] |= {"steps": 1, "algo": algo}
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))

    def prefixes(split: Any) -> dict[str, str]:
        tokenizer = load_tokenizer(recipe.model.base, None)
        return {row.post: row.prefix for row in load_examples(resolve_task(recipe.task), tokenizer, split).rows}

    folder = train_adapter(resolve(recipe), "noting", {"noting": 1.0}, "expert", Silent())
    read = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(read) == 6
    for post, text in read:
        assert text.startswith(prefixes("train")[post])
        assert text.endswith(".")
    assert any(text != f"{prefixes('train')[post]}." for post, text in read)

    log.unlink()
    evaluate(resolve(recipe), [folder], tmp_path / "eval", Silent())
    samples = read_samples(tmp_path / "eval" / RESULTS, read_results(tmp_path / "eval"))
    read = [json.loads(line) for line in log.read_text().splitlines()]
    shown = [text for point in samples.points.values() for text in point.completions]
    assert shown == [text for _, text in read]
    for post, text in read:
        assert text.startswith(prefixes("test")[post])
        assert text.endswith(".")


def test_another_rule_for_answers_does_not_find_those_that_were_kept(tmp_path: Path, tiny_model: Path) -> None:
    content: dict[str, Any] = recipe_content(tmp_path, tiny_model)
    content |= {"rewards": ["brief"], "morl": []}
    adapter = build_adapter(tmp_path / "adapter", tiny_model, seed=0)

    def completions(rule: str) -> list[str]:
        content["task"]["response"] = rule
        recipe = load_recipe(write_recipe(tmp_path / "r.yaml", content))
        evaluate(resolve(recipe), [adapter], tmp_path / "eval", Silent())
        samples = read_samples(tmp_path / "eval" / RESULTS, read_results(tmp_path / "eval"))
        return [text for point in samples.points.values() for text in point.completions]

    whole = completions("whole")
    assert completions("first_sentence") == [f"{text}." for text in whole]
    assert completions("whole") == whole
