"""Sample completions, score them, and note what the update needs to know about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rsoup.models.language_model import masked_tokens
from rsoup.models.sampling import Completions, generator_for, sample
from rsoup.recipe import GenerationSection, TrainingSection
from rsoup.rewards.scoring import Scorer, score_all
from rsoup.tasks.loading import Example
from rsoup.tasks.responses import read_responses
from rsoup.training.policy import Policy


@dataclass(frozen=True)
class Rollout:
    """P prompts (P, L) with G completions each (P, G, T), their scores (P * G), and what the old policy thought.

    ``logprobs`` and ``values`` carry their graph where the first optimiser step can use it.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    ids: Tensor
    mask: Tensor
    posts: list[str]
    texts: list[str]
    scores: Mapping[str, np.ndarray]
    logprobs: Tensor  # (P, G, T)
    values: Tensor  # (P, G, T)
    ref_logprobs: Tensor  # (P, G, T)
    temperature: float

    @property
    def kl(self) -> float:
        """The KL divergence from the start per completion, estimated from the sampled tokens."""
        return float(((self.logprobs.detach() - self.ref_logprobs) * self.mask).sum(-1).mean())


def pick_examples(examples: Sequence[Example], count: int, step: int, seed: int) -> list[Example]:
    """Return the examples of a step: every example comes once before any comes again, each pass in a new order."""
    picked = []
    for position in range(step * count, (step + 1) * count):
        epoch, index = divmod(position, len(examples))
        order = torch.randperm(len(examples), generator=generator_for(seed, "order", epoch))
        picked.append(examples[int(order[index])])
    return picked


def collect(
    policy: Policy,
    examples: Sequence[Example],
    scorers: Mapping[str, Scorer],
    training: TrainingSection,
    generation: GenerationSection,
    random: torch.Generator,
) -> Rollout:
    """Sample ``completions_per_prompt`` completions of each example and score them with every reward."""
    model = policy.language_model
    group = training.completions_per_prompt
    prompt_ids, prompt_mask = model.pad([example.tokens for example in examples])
    completions = _sample(policy, prompt_ids, prompt_mask, group, generation, random)
    rows = masked_tokens(completions.ids.flatten(0, 1), completions.mask.flatten(0, 1))
    repeated = [example for example in examples for _ in range(group)]
    texts = read_responses(model.tokenizer, repeated, rows)
    posts = [example.post for example in repeated]
    scores = score_all(scorers, posts, texts)
    with torch.no_grad(), policy.as_start():
        states = model.completion_states(prompt_ids, prompt_mask, completions.ids)
        ref_logprobs = model.logprobs(states, completions.ids, generation.temperature)
    with torch.set_grad_enabled(policy.serves_first_update(training)):
        states = model.completion_states(prompt_ids, prompt_mask, completions.ids)
        logprobs = model.logprobs(states, completions.ids, generation.temperature)
        values = policy.values(states)
    return Rollout(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        ids=completions.ids,
        mask=completions.mask,
        posts=posts,
        texts=texts,
        scores=scores,
        logprobs=logprobs,
        values=values,
        ref_logprobs=ref_logprobs,
        temperature=generation.temperature,
    )


def _sample(
    policy: Policy,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    group: int,
    generation: GenerationSection,
    random: torch.Generator,
) -> Completions:
    prompts, longest = len(prompt_ids), generation.max_new_tokens
    device = prompt_ids.device
    uniforms = torch.rand(prompts, group, longest, generator=random)
    lengths = None
    if generation.min_new_tokens is not None:
        lengths = torch.randint(generation.min_new_tokens, longest + 1, (prompts, group), generator=random).to(device)
    with policy.folded():
        completions: Completions = sample(
            policy.language_model,
            prompt_ids,
            prompt_mask,
            max_new_tokens=longest,
            temperature=generation.temperature,
            uniforms=uniforms.to(device),
            lengths=lengths,
            stop_ids=policy.language_model.stop_ids if generation.stop_at_eos else (),
        )
    return completions
