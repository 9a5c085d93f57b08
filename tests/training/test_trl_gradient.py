"""GRPO and RLOO through TRL: the gradient they promise, on the prompts and rewards of PPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from rsoup.models.language_model import masked_tokens
from rsoup.tasks.loading import Example
from rsoup.training.policy import Policy
from rsoup.training.rollout import pick_examples
from rsoup.training.trl_backend import tokenizer_for

from .directly import (
    ALGOS,
    GENERATION,
    GROUP,
    PROMPTS,
    length,
    make_examples,
    make_policy,
    one_step,
    train_directly,
)


def gradients(folder: Path) -> list[Tensor]:
    """Return the gradients of a training's only step: Adam's first moment is a tenth of them."""
    tensors = load_file(folder / "step-000001.safetensors")
    count = sum(name.endswith("/exp_avg") for name in tensors)
    return [tensors[f"optimizer/{index}/exp_avg"] / 0.1 for index in range(count)]


def watch_inputs(policy: Policy) -> list[Tensor]:
    """Return a list that collects the token ids that the model is given."""
    seen: list[Tensor] = []
    embeddings = policy.language_model.model.get_input_embeddings()
    embeddings.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].clone()))
    return seen


def expected_gradients(policy: Policy, algo: str, rows: Tensor, width: int) -> list[Tensor]:
    """Return the clipped gradients of -A log p by rsoup's own forward pass, from rows of prompt and completion.

    At the first step the ratio is 1 and the KL divergence is 0 and has no slope. RLOO: A is the score less the mean
    of the others', log p that of a completion. GRPO: A is the deviation from the group's mean in units of its
    standard deviation, log p that of a token, averaged over all tokens.
    """
    model = policy.language_model
    rows = torch.stack(sorted(rows, key=lambda row: row[:width].tolist()))  # completions of a prompt side by side
    prompts, ids = rows[::GROUP, :width], rows[:, width:]
    assert all((rows[index, :width] == prompts[index // GROUP]).all() for index in range(len(rows)))
    mask = torch.cat([torch.ones_like(ids[:, :1]), (ids[:, :-1] != model.stop_ids[0]).long().cumprod(-1)], -1).bool()
    scores = torch.tensor(
        length([], model.tokenizer.batch_decode(masked_tokens(ids, mask), skip_special_tokens=True))
    ).view(PROMPTS, GROUP)
    if algo == "rloo":
        advantages = scores - (scores.sum(1, keepdim=True) - scores) / (GROUP - 1)
        shares = mask / len(rows)
    else:
        advantages = (scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + 1e-4)
        shares = mask / mask.sum()
    thoughts = policy.think(prompts, prompts != model.pad_id, ids.view(PROMPTS, GROUP, -1), GENERATION.temperature)
    loss = -(advantages.flatten()[:, None] * thoughts.logprobs.flatten(0, 1) * shares).sum()
    loss.backward()
    factors = [parameter for parameter in policy.peft.parameters() if parameter.requires_grad]
    torch.nn.utils.clip_grad_norm_(factors, 1.0)
    return [parameter.grad for parameter in factors if parameter.grad is not None]


@pytest.mark.parametrize("settings", [{}, {"prompts_per_pass": 1}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("algo", ALGOS)
def test_the_first_gradient_is_the_one_of_the_algorithm(
    tmp_path: Path, tiny_model: Path, algo: str, settings: dict[str, Any]
) -> None:
    trained, untouched = make_policy(tiny_model), make_policy(tiny_model)
    seen = watch_inputs(trained)
    train_directly(trained, tmp_path, one_step(algo, **settings), {"length": length}, {"length": 1.0})
    width = max(len(example.tokens) for example in pick_examples(make_examples(trained), PROMPTS, 0, 0))
    rows = torch.cat(
        seen[-PROMPTS if "prompts_per_pass" in settings else -1 :]
    )  # the last passes are those that gradients are taken of
    assert len(rows) == PROMPTS * GROUP
    for found, expected in zip(gradients(tmp_path), expected_gradients(untouched, algo, rows, width), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("algo", ALGOS)
def test_the_model_reads_the_prompts_of_ppo_token_by_token(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    policy = make_policy(tiny_model)
    seen = watch_inputs(policy)
    train_directly(policy, tmp_path, one_step(algo, steps=2), {"length": length}, {"length": 1.0})
    widest = [rows for rows in seen if rows.shape[1] > 1]
    firsts = [widest[0], next(rows for rows in widest[1:] if rows.shape[1] != widest[1].shape[1])]
    for step, rows in enumerate(firsts):
        examples = pick_examples(make_examples(policy), PROMPTS, step, 0)
        ids, _ = policy.language_model.pad([example.tokens for example in examples for _ in range(GROUP)])
        assert torch.equal(rows, ids)


def test_a_tokenizer_that_begins_every_text_does_not_begin_a_templated_prompt_twice(language_model: Any) -> None:
    tokenizer = language_model.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    tokens = tuple(tokenizer("<eos> the lid", add_special_tokens=False).input_ids)
    example = Example("1", "the lid", "<eos> the lid", tokens)
    assert tokenizer("<eos> the lid").input_ids == [tokens[0], *tokens]
    twin = tokenizer_for(language_model, [example])
    assert twin(text=["<eos> the lid"] * 2)["input_ids"] == [list(tokens)] * 2
    assert twin.batch_decode([[4, 5]]) == tokenizer.batch_decode([[4, 5]])
    assert tokenizer("<eos> the lid").input_ids == [tokens[0], *tokens]  # the model's own one stays as it is


@pytest.mark.parametrize("algo", ALGOS)
def test_rewards_read_posts_and_completions(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    policy = make_policy(tiny_model)
    calls: list[tuple[list[str], list[str]]] = []

    def recorded(prompts: list[str], completions: list[str]) -> list[float]:
        calls.append((prompts, completions))
        return length(prompts, completions)

    scorers = {"length": length, "recorded": recorded}
    train_directly(policy, tmp_path, one_step(algo, steps=2), scorers, {"length": 1.0})
    assert len(calls) == 2  # a reward without weight is scored too, once a step
    for step, (posts, completions) in enumerate(calls):
        examples = pick_examples(make_examples(policy), PROMPTS, step, 0)
        assert posts == [example.post for example in examples for _ in range(GROUP)]
        assert all(text == text.strip() and "<eos>" not in text for text in completions)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["scores"]["recorded"] for line in lines] == [np.mean(length(*call)) for call in calls]
    assert [line["reward"] for line in lines] == [line["scores"]["length"] for line in lines]
    assert [line["completion"] for line in lines] == [completions[0] for _, completions in calls]


def trained(
    tmp_path: Path, model: Path, name: str, algo: str, weights: dict[str, float], scale: float = 1.0, **settings: Any
) -> list[Tensor]:
    """Return the gradients of the first step of a training on two rewards, the second one scaled."""
    scorers = {"length": length, "early": lambda completions: [scale * (text < "l") for text in completions]}
    train_directly(make_policy(model), tmp_path / name, one_step(algo, **settings), scorers, weights)
    return gradients(tmp_path / name)


def test_the_weighted_sum_of_scores_is_divided_by_the_sum_of_weights(tmp_path: Path, tiny_model: Path) -> None:
    """RLOO does not scale rewards, so weights that are not divided would show."""
    weights = {"length": 1.0, "early": 3.0}
    settings = {"max_grad_norm": 1e9}
    one = trained(tmp_path, tiny_model, "one", "rloo", weights, **settings)
    tenfold = trained(
        tmp_path, tiny_model, "tenfold", "rloo", {name: 10 * w for name, w in weights.items()}, **settings
    )
    assert all(torch.equal(*pair) for pair in zip(one, tenfold, strict=True))
    halves = [trained(tmp_path, tiny_model, name, "rloo", {name: 1.0}, **settings) for name in ("length", "early")]
    for mixed, first, second in zip(one, *halves, strict=True):
        torch.testing.assert_close(mixed, (first + 3 * second) / 4, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("algo", ALGOS)
def test_normalised_scores_do_not_depend_on_their_scale(tmp_path: Path, tiny_model: Path, algo: str) -> None:
    weights = {"length": 1.0, "early": 1.0}
    for scaling, alike in (("normalize_then_sum", True), ("raw", False)):
        small, large = (
            trained(tmp_path, tiny_model, f"{scaling}-{scale}", algo, weights, scale, score_scaling=scaling)
            for scale in (1e2, 1e4)
        )
        close = all(torch.allclose(*pair, rtol=1e-2, atol=1e-3) for pair in zip(small, large, strict=True))
        assert close == alike
