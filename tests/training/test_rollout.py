"""Rollouts: what the policy samples, what it thinks of it, and in which order prompts come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsoup.models.language_model import LanguageModel
from rsoup.models.sampling import generator_for
from rsoup.recipe import GenerationSection, LoraSection, PPOSection, TrainingSection
from rsoup.rewards.functions import Function
from rsoup.tasks import Task
from rsoup.tasks.loading import Example, load_examples
from rsoup.training.checkpoint import TrainingState
from rsoup.training.metrics import note, see
from rsoup.training.passes import alone
from rsoup.training.policy import Policy, fresh_config, read_start
from rsoup.training.rollout import Rollout, collect, draw_numbers, pick_examples
from rsoup.training.team import Team
from rsoup.training.update import update
from tiny import build_adapter, write_posts

TRAINING = TrainingSection(prompts_per_step=4, completions_per_prompt=3, ppo=PPOSection(epochs=2, mini_batches=2))
GENERATION = GenerationSection(max_new_tokens=6, temperature=0.8)


@pytest.fixture
def examples(language_model: LanguageModel, tmp_path: Path) -> tuple[Example, ...]:
    task = Task("tiny", str(write_posts(tmp_path / "posts.jsonl")))
    return load_examples(task, language_model.tokenizer, "train").rows


def fresh(model: LanguageModel) -> Policy:
    policy = Policy(model, fresh_config(LoraSection(r=2, alpha=4), model))
    policy.remember_start()
    return policy


def rollout_of(
    policy: Policy,
    examples: tuple[Example, ...],
    training: TrainingSection = TRAINING,
    generation: GenerationSection = GENERATION,
) -> Rollout:
    scorers = {"length": Function(lambda prompts, completions: [float(len(text)) for text in completions])}
    draws = draw_numbers(training, generation, generator_for(0, "sampling", 0))
    return alone(collect(policy, examples[:4], scorers, training, generation, draws), Team())


@pytest.mark.parametrize("mini_batches", [1, 2])
@pytest.mark.parametrize("continued", [False, True])
def test_at_the_start_the_kl_divergence_is_exactly_zero(
    language_model: LanguageModel,
    examples: tuple[Example, ...],
    tiny_model: Path,
    tmp_path: Path,
    continued: bool,
    mini_batches: int,
) -> None:
    given = build_adapter(tmp_path / "given", tiny_model, seed=1)
    policy = read_start(language_model, given) if continued else fresh(language_model)
    training = TRAINING.model_copy(update={"ppo": PPOSection(mini_batches=mini_batches)})
    rollout = rollout_of(policy, examples, training)
    assert torch.equal(rollout.thoughts.logprobs, rollout.ref_logprobs)
    assert float(rollout.kls.mean()) == 0.0
    assert not rollout.thoughts.values.any()


@pytest.mark.parametrize("mini_batches", [1, 2, 4])
def test_before_the_first_step_the_ratio_is_one_and_nothing_is_clipped(
    language_model: LanguageModel, examples: tuple[Example, ...], mini_batches: int
) -> None:
    """With a learning rate of 0 every mini-batch sees the policy that sampled: the loss is minus the mean advantage."""
    policy = fresh(language_model)
    training = TRAINING.model_copy(update={"ppo": PPOSection(epochs=2, mini_batches=mini_batches)})
    rollout = rollout_of(policy, examples, training)
    optimizer = torch.optim.SGD(policy.parameters, lr=0.0)
    rewards = torch.from_numpy(rollout.scores["length"])
    losses = alone(update(policy, optimizer, rollout, rewards, training, 0.1, Team()), Team())
    assert (losses["clipped"], losses["clipped_value"]) == (0.0, 0.0)
    if mini_batches == 1:
        assert losses["policy"] == pytest.approx(0.0, abs=1e-6)
    assert losses["grad_norm"] > 0


def test_a_step_makes_completions_of_high_score_likelier(
    language_model: LanguageModel, examples: tuple[Example, ...]
) -> None:
    policy = fresh(language_model)
    rollout = rollout_of(policy, examples)
    optimizer = torch.optim.Adam(policy.parameters, lr=1e-3)
    rewards = torch.from_numpy(rollout.scores["length"])
    alone(update(policy, optimizer, rollout, rewards, TRAINING, 0.0, Team()), Team())
    with torch.no_grad():
        states = language_model.completion_states(rollout.prompt_ids, rollout.prompt_mask, rollout.ids)
        logprobs = language_model.logprobs(states, rollout.ids, rollout.temperature)
    change = ((logprobs - rollout.thoughts.logprobs.detach()) * rollout.mask).sum(-1).flatten()
    scores = torch.from_numpy(rollout.scores["length"]).float()
    assert torch.corrcoef(torch.stack([change, scores]))[0, 1] > 0.2


def test_log_probabilities_are_those_of_the_sampled_text_at_the_sampling_temperature(
    language_model: LanguageModel, examples: tuple[Example, ...]
) -> None:
    rollout = rollout_of(fresh(language_model), examples)
    prompt, ids, kept = list(examples[2].tokens), rollout.ids[2, 1], rollout.mask[2, 1]
    row = torch.tensor([prompt + ids.tolist()])
    with torch.no_grad():
        logits = language_model.model(input_ids=row).logits[0, len(prompt) - 1 : -1] / 0.8
    expected = logits.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    torch.testing.assert_close(rollout.thoughts.logprobs.detach()[2, 1][kept], expected[kept], rtol=1e-4, atol=1e-4)


def test_a_rollout_follows_from_its_random_numbers(
    language_model: LanguageModel, examples: tuple[Example, ...]
) -> None:
    policy = fresh(language_model)
    one, same = rollout_of(policy, examples), rollout_of(policy, examples)
    assert one.texts == same.texts
    assert torch.equal(one.thoughts.logprobs, same.thoughts.logprobs)
    assert len(set(one.texts[:3])) > 1  # a group's members differ


def test_lengths_are_drawn_from_the_range_asked_for(
    language_model: LanguageModel, examples: tuple[Example, ...]
) -> None:
    generation = GenerationSection(min_new_tokens=2, max_new_tokens=5, stop_at_eos=False)
    lengths = rollout_of(fresh(language_model), examples, generation=generation).mask.sum(-1)
    assert set(lengths.flatten().tolist()) == {2, 3, 4, 5}


def test_every_prompt_comes_once_before_any_comes_again(examples: tuple[Example, ...]) -> None:
    picked = [example.id for step in range(10) for example in pick_examples(examples, 3, step, seed=0)]
    count = len(examples)
    passes = [picked[start : start + count] for start in range(0, len(picked) - count + 1, count)]
    assert len(passes) > 1
    assert all(sorted(one) == sorted(example.id for example in examples) for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)


def test_the_order_of_prompts_depends_on_step_and_seed_alone(examples: tuple[Example, ...]) -> None:
    assert pick_examples(examples, 5, 7, seed=0) == pick_examples(examples, 5, 7, seed=0)
    assert pick_examples(examples, 5, 7, seed=0) != pick_examples(examples, 5, 7, seed=1)


def test_thoughts_without_an_end_are_counted(language_model: LanguageModel, tmp_path: Path) -> None:
    posts = str(write_posts(tmp_path / "posts.jsonl"))
    task = Task("tiny", posts, template="{post} <think>", response="after_think")
    rows = load_examples(task, language_model.tokenizer, "train").rows
    policy, state = fresh(language_model), TrainingState(0, 0.1, 0.0, "")
    rollout = rollout_of(policy, rows)
    assert set(rollout.texts) == {""}
    metrics = see(rollout, state, Team()).metrics
    assert metrics["unfinished_thoughts"] == 1.0
    assert "unfinished 100%" in note(metrics, 1.0)
    whole = rollout_of(policy, tuple(replace(row, response="whole") for row in rows))
    assert "unfinished_thoughts" not in see(whole, state, Team()).metrics
