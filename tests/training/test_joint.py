"""Passes that policies share, beside those of each alone: the same completions, thoughts and gradients."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsoup.errors import ModelError
from rsoup.models.load import load_language_model
from rsoup.models.sampling import Completions, generator_for
from rsoup.recipe import GenerationSection, LoraSection
from rsoup.training.joint import Joint
from rsoup.training.lanes import Stream
from rsoup.training.passes import Learning, Sampling, Thinking, Way, answer_alone
from rsoup.training.policy import Policy, Thoughts, fresh_config
from rsoup.training.team import Team
from tiny import POSTS

GROUP, TOKENS = 3, 6
GENERATION = GenerationSection(max_new_tokens=TOKENS, min_new_tokens=2, temperature=0.9)
Setting = tuple[list[Policy], list[Policy]]


def stir(policy: Policy, seed: int) -> None:
    """Give a policy factors and a value head of its own."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.3)


@pytest.fixture(params=["shared prefix", "rows of their own", "bfloat16"])
def policies(request: pytest.FixtureRequest, tiny_model: Path) -> Setting:
    """Two policies on one base, and the same two each on its own."""
    kept: list[Policy] = []
    for number in range(3):
        model = load_language_model(
            str(tiny_model), revision=None, dtype="bfloat16" if request.param == "bfloat16" else "float32"
        )
        model = replace(model, shares_prefix=request.param != "rows of their own")
        torch.manual_seed(0)
        kept.append(Policy(model, fresh_config(LoraSection(r=2, alpha=4), model)))
        stir(kept[number], 7)  # a start that is not the base
        kept[number].remember_start()
    beside = [kept[0], kept[0].twin()]
    for seed in range(2):
        for policy in (beside[seed], kept[1 + seed]):
            stir(policy, seed)
    return beside, kept[1:]


def prompts_of(policy: Policy, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two prompts, of other lengths for each policy."""
    model = policy.language_model
    posts = [POSTS[number], f"{POSTS[number + 2]} {POSTS[number]}" if number else POSTS[3]]
    return model.pad([model.tokenizer(post).input_ids for post in posts])


def sampling(policy: Policy, number: int) -> Sampling:
    random = generator_for(number, "sampling", 0)
    uniforms = torch.rand(2, GROUP, TOKENS, generator=random)
    lengths = torch.randint(2, TOKENS + 1 - number, (2, GROUP), generator=random)
    return Sampling(policy, *prompts_of(policy, number), GENERATION, uniforms, lengths)


def thinking(policy: Policy, number: int, completions: Completions, way: Way) -> Thinking:
    return Thinking(policy, *prompts_of(policy, number), completions.ids, 0.9, way, with_entropy=True)


def joint(policies: list[Policy]) -> Joint:
    return Joint(dict.fromkeys(policies, nullcontext), Team())


def test_rows_of_all_are_those_of_each_alone(policies: Setting) -> None:
    beside, apart = policies
    narrow = beside[0].language_model.model.dtype == torch.bfloat16
    near = {"rtol": 0.05, "atol": 0.1} if narrow else {"rtol": 1e-4, "atol": 1e-5}
    together = joint(beside)
    found = together.answer([sampling(policy, number) for number, policy in enumerate(beside)])
    expected = [answer_alone(sampling(policy, number), Team()) for number, policy in enumerate(apart)]
    for one, other in zip(found, expected, strict=True) if not narrow else ():
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.mask, other.mask)
    ways: tuple[Way, ...] = ("start", "still", "learning")
    for way in ways:
        thoughts = together.answer([thinking(*own, way) for own in zip(beside, range(2), expected, strict=True)])
        alone = [answer_alone(thinking(*own, way), Team()) for own in zip(apart, range(2), expected, strict=True)]
        for one, other, completions in zip(thoughts, alone, expected, strict=True):
            assert_thoughts(one, other, completions.mask, near)
        if way == "start":
            continue
        assert thoughts[0].logprobs.requires_grad == (way == "learning")
    together.answer([Learning(*own) for own in zip(beside, map(loss_of, thoughts), strict=True)])
    for policy, own in zip(apart, alone, strict=True):
        answer_alone(Learning(policy, loss_of(own)), Team())
    for one, other in zip(beside, apart, strict=True):
        for mine, its in zip(one.parameters, other.parameters, strict=True):
            assert mine.grad is not None
            assert its.grad is not None
            assert torch.nn.functional.cosine_similarity(mine.grad.flatten(), its.grad.flatten(), dim=0) > 0.99
            if not narrow:
                torch.testing.assert_close(mine.grad, its.grad, rtol=1e-3, atol=1e-4)


def loss_of(thoughts: Thoughts) -> torch.Tensor:
    assert thoughts.entropies is not None
    return thoughts.logprobs.sum() + thoughts.values.square().sum() + thoughts.entropies.sum()


def assert_thoughts(one: Thoughts, other: Thoughts, mask: torch.Tensor, near: dict[str, float]) -> None:
    for name in ("logprobs", "values", "entropies"):
        torch.testing.assert_close(getattr(one, name)[mask], getattr(other, name)[mask], **near)


def test_a_loss_reaches_no_other_policy(policies: Setting) -> None:
    beside, apart = policies
    together = joint(beside)
    expected = [answer_alone(sampling(policy, number), Team()) for number, policy in enumerate(apart)]
    thoughts = together.answer([thinking(*own, "learning") for own in zip(beside, range(2), expected, strict=True)])
    together.answer([Learning(beside[1], loss_of(thoughts[1]))])
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in beside[0].parameters)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in beside[1].parameters)


@pytest.mark.parametrize("shares_prefix", [True, False])
def test_dropout_draws_for_each_policy_what_it_draws_alone(tiny_model: Path, shares_prefix: bool) -> None:
    """The rows of the two are of other lengths, so that each is padded where alone it would not be."""
    policies: list[Policy] = []
    for number in range(3):
        model = load_language_model(str(tiny_model), revision=None, dtype="float32")
        model = replace(model, shares_prefix=shares_prefix)
        policies.append(Policy(model, fresh_config(LoraSection(r=2, alpha=4, dropout=0.5), model)))
        policies[number].remember_start()
    beside = [policies[0], policies[0].twin()]
    for seed in range(2):
        stir(beside[seed], seed)
        stir(policies[1 + seed], seed)
    streams = [Stream(torch.device("cpu")) for _ in beside]
    completions = [answer_alone(sampling(policy, number), Team()) for number, policy in enumerate(policies[1:])]
    assert len({own.ids.shape for own in completions}) == 2
    alone = []
    for number, (stream, own) in enumerate(zip(streams, completions, strict=True)):
        torch.manual_seed(number)
        alone.append(answer_alone(thinking(policies[1 + number], number, own, "learning"), Team()))
        with stream.flowing():
            torch.manual_seed(number)
    together = Joint({own: stream.flowing for own, stream in zip(beside, streams, strict=True)}, Team())
    thoughts = together.answer([thinking(*own, "learning") for own in zip(beside, range(2), completions, strict=True)])
    for one, other, own in zip(thoughts, alone, completions, strict=True):
        assert_thoughts(one, other, own.mask, {"rtol": 1e-4, "atol": 1e-5})


def test_experts_of_a_mixture_are_refused_with_their_name(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    from tiny import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_language_model(str(tmp_path), revision=None, dtype="float32")
    names = ["mlp.experts.gate_up_proj"]
    lora = LoraSection(r=2, alpha=4, target_modules=["q_proj"], target_parameters=names)
    policy = Policy(model, fresh_config(lora, model))
    policy.remember_start()
    with pytest.raises(ModelError, match="experts of a mixture, which see tokens of several rows at once"):
        joint([policy, policy.twin()])
