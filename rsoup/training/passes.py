"""What a training asks of its policy: passes over rows, which it awaits.

A training is a coroutine, so that trainings that ask for the same pass can share one (``training.together``). Whoever
runs it answers; ``alone`` does so for one training, with its own policy.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeVar

import torch
from torch import Tensor

from rsoup.models.sampling import Completions, sample
from rsoup.recipe import GenerationSection
from rsoup.training.policy import Policy, Thoughts
from rsoup.training.team import Team

T = TypeVar("T")
Way = Literal["start", "still", "learning"]
"""Whose thoughts: those of the start, of the policy, or of the policy that learns from them, with gradients."""


class Request(Generic[T]):
    """A pass that a training asks for; awaiting it gives the answer."""

    def __await__(self) -> Generator[Self, T, T]:
        return (yield self)


@dataclass(frozen=True, eq=False)
class Sampling(Request[Completions]):
    """Complete prompts (P, L), with a random number for each token (P, G, max_new_tokens)."""

    policy: Policy
    prompt_ids: Tensor
    prompt_mask: Tensor
    generation: GenerationSection
    uniforms: Tensor
    lengths: Tensor | None  # (P, G)


@dataclass(frozen=True, eq=False)
class Thinking(Request[Thoughts]):
    """Think of completions (P, G, T) of prompts (P, L)."""

    policy: Policy
    prompt_ids: Tensor
    prompt_mask: Tensor
    ids: Tensor
    temperature: float
    way: Way
    with_entropy: bool = False
    checkpointing: bool = False


@dataclass(frozen=True, eq=False)
class Learning(Request[None]):
    """Add the gradients of a loss to those of the policy."""

    policy: Policy
    loss: Tensor
    checkpointing: bool = False


def alone(training: Coroutine[Any, Any, T], team: Team) -> T:
    """Run a training by itself and return its result."""
    try:
        asked = training.send(None)
        while True:
            asked = training.send(answer_alone(asked, team))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        training.close()  # where a pass fails, the training keeps its last whole step


def answer_alone(asked: Request[Any], team: Team) -> Any:
    """Answer a request with the policy's own pass."""
    match asked:
        case Sampling():
            with team.autocast(), asked.policy.folded():
                return sample_for(asked)
        case Thinking():
            with torch.set_grad_enabled(asked.way == "learning"), _guise(asked), team.autocast():
                return asked.policy.think(
                    asked.prompt_ids,
                    asked.prompt_mask,
                    asked.ids,
                    asked.temperature,
                    with_entropy=asked.with_entropy,
                )
        case Learning():
            with asked.policy.learning(gradient_checkpointing=asked.checkpointing):  # layers may be computed again
                return asked.loss.backward()


def sample_for(asked: Sampling, **others: Any) -> Completions:
    """Sample what is asked for; ``others`` take the place of a training's own model, prompts and numbers."""
    device = asked.prompt_ids.device
    given = {
        "model": asked.policy.language_model,
        "prompt_ids": asked.prompt_ids,
        "prompt_mask": asked.prompt_mask,
        "uniforms": asked.uniforms.to(device),
        "lengths": None if asked.lengths is None else asked.lengths.to(device),
    }
    completions: Completions = sample(
        **{**given, **others},
        max_new_tokens=asked.generation.max_new_tokens,
        temperature=asked.generation.temperature,
        stop_ids=asked.policy.language_model.stop_ids if asked.generation.stop_at_eos else (),
    )
    return completions


def _guise(asked: Thinking) -> AbstractContextManager[None]:
    if asked.way == "learning":
        return asked.policy.learning(gradient_checkpointing=asked.checkpointing)
    return asked.policy.as_start() if asked.way == "start" else nullcontext()
