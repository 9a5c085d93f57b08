"""Reward functions of TRL and of verl's kind, trained on by every algorithm: the scores are those that they give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trl.rewards import accuracy_reward, think_format_reward

from rsoup.progress import Silent
from rsoup.recipe import Recipe
from rsoup.recipe_file import parse_recipe
from rsoup.resolve import resolve
from rsoup.training.expert import train_adapter
from tiny import build_tiny_model

from .directly import metrics

WORDS = ["<pad>", "<eos>", "<unk>", "user:", "What", "is", "it?", r"\boxed{4}", r"\boxed{5}", "<think>", "</think>"]
VERL = """
import json
from pathlib import Path

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    with Path(__file__).with_name("seen.jsonl").open("a") as seen:
        seen.write(json.dumps([solution_str, ground_truth, data_source, extra_info["index"]]) + "\\n")
    return {"score": float(ground_truth in solution_str), "words": len(solution_str.split())}
"""


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a chat template and few words, of which answers and thoughts are made by chance."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=128
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    folder = build_tiny_model(tmp_path_factory.mktemp("models") / "talker", seed=0, vocab_size=len(WORDS))
    tokenizer.save_pretrained(folder)
    return folder


def recipe(folder: Path, model: Path, algo: str) -> Recipe:
    """Return a recipe of rows in verl's shape, a third of which have a solution that is no mathematics."""
    folder.mkdir()
    (folder / "verl.py").write_text(VERL)
    rows = [
        {
            "data_source": "own",
            "prompt": [{"role": "user", "content": "What is it?" + " it?" * number}],
            "reward_model": {"style": "rule", "ground_truth": "4"},
            "extra_info": {"index": number},
            "solution": "nothing" if number % 3 == 0 else r"\boxed{4}",
        }
        for number in range(9)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "output": str(folder / "run"),
        "model": {"base": str(model), "dtype": "float32", "lora": {"r": 2, "alpha": 4}},
        "task": {"data": str(folder / "rows.jsonl")},
        "rewards": {
            "accuracy": {"function": "trl.rewards:accuracy_reward"},
            "thinks": {"function": "trl.rewards:think_format_reward"},
            "verl": {"function": f"{folder / 'verl.py'}:compute_score"},
        },
        "training": {
            "algo": algo,
            "steps": 2,
            "prompts_per_step": 4,
            "completions_per_prompt": 8,
            "ppo": {"epochs": 1},
        },
        "generation": {"max_new_tokens": 8, "temperature": 2.0},
    }
    return parse_recipe(content, "test")


@pytest.mark.parametrize("algo", ["ppo", "grpo", "rloo"])
def test_every_algorithm_has_the_scores_that_the_functions_give(tmp_path: Path, talker: Path, algo: str) -> None:
    own = recipe(tmp_path / algo, talker, algo)
    trained = train_adapter(resolve(own), "all", {"accuracy": 2.0, "thinks": 1.0, "verl": 1.0}, "morl", Silent())
    seen = [json.loads(line) for line in (tmp_path / algo / "seen.jsonl").read_text().splitlines()]
    assert {(truth, source) for _, truth, source, _ in seen} == {("4", "own")}
    steps = metrics(trained)
    assert len(seen) == 2 * 32 == sum(line["sampled"] for line in steps)
    for line, told in zip(steps, (seen[:32], seen[32:]), strict=True):
        completions = [[{"role": "assistant", "content": text}] for text, *_ in told]
        solutions = ["nothing" if index % 3 == 0 else r"\boxed{4}" for *_, index in told]
        expected: dict[str, list[Any]] = {
            "accuracy": accuracy_reward(completions, solutions),
            "thinks": think_format_reward(completions),
            "verl": [float("4" in text) for text, *_ in told],
        }
        for name, scores in expected.items():
            there = [score for score in scores if score is not None]
            assert line["scored"][name] == len(there)
            assert line["scores"][name] == pytest.approx(sum(there) / len(there))
        assert line["scored"]["accuracy"] < 32
        assert line["logged"] == {"verl/words": pytest.approx(sum(len(text.split()) for text, *_ in told) / 32)}
        means = [
            (thinks + verl) / 2 if accuracy is None else (2 * accuracy + thinks + verl) / 4
            for accuracy, thinks, verl in zip(*expected.values(), strict=True)
        ]
        assert line["reward"] == pytest.approx(sum(means) / 32, abs=1e-6)
        assert line["grad_norm"] > 0
    assert all(0 < sum(line["scores"][name] for line in steps) < 2 for name in ("accuracy", "thinks", "verl"))
