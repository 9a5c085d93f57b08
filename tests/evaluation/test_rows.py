"""What an evaluation keeps of the rows it is made on, and of answers after thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import build_adapter, recipe_content

from .sweeping import Recording, sweep


def test_an_evaluation_counts_thoughts_without_an_end_and_keeps_the_columns(tmp_path: Path, tiny_model: Path) -> None:
    content: dict[str, Any] = recipe_content(tmp_path, tiny_model)
    content["task"] |= {"template": "summary : {post} : <think>", "response": "after_think"}
    adapter, said = build_adapter(tmp_path / "a", tiny_model, 1), Recording()
    results, samples = sweep(content, [adapter], tmp_path / "out", said, measures=False)
    assert {point.extras["unfinished_thoughts"] for point in results.points} == {1.0}
    assert set(samples.points["base"].completions) == {""}
    assert any("no end (evaluation.max_new_tokens): base 100%, a 100%." in remark for remark in said.said)
    assert samples.columns == {"id": list(samples.prompt_ids), "post": list(samples.prompts)}
    again, _ = sweep(content, [adapter], tmp_path / "out", Recording(), measures=False)
    assert again == results  # found again, thoughts and all
