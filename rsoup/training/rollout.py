"""Sample completions, score them, and note what the update needs to know about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rsoup.models.language_model import masked_tokens
from rsoup.models.sampling import generator_for
from rsoup.recipe import GenerationSection, TrainingSection
from rsoup.rewards.functions import NO_TRAINING, TrainerState
from rsoup.rewards.logs import Log
from rsoup.rewards.samples import sample_of
from rsoup.rewards.scoring import Scorer, score_all
from rsoup.tasks.loading import Example
from rsoup.tasks.responses import read_responses, reads_after_thought, unfinished_thoughts
from rsoup.training.passes import Sampling, Thinking, Way
from rsoup.training.policy import Policy, Thoughts, join
from rsoup.training.vllm_sampling import VllmSampler, mismatch


@dataclass(frozen=True)
class Rollout:
    """P prompts (P, L) with G completions each (P, G, T), their scores (P * G), and what the old policy thought.

    A score is NaN where a reward does not apply; ``log`` has what rewards told beside scores. ``thoughts`` carry their
    graph where the first optimiser step can use it.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    ids: Tensor
    mask: Tensor
    ended: Tensor  # (P, G), true where a completion ends by itself
    unfinished: np.ndarray | None  # (P * G,), whether a thought has no end; None where thoughts are read too
    posts: list[str]
    texts: list[str]
    scores: Mapping[str, np.ndarray]
    log: Log
    thoughts: Thoughts
    ref_logprobs: Tensor  # (P, G, T)
    temperature: float
    mismatch: Mapping[str, float] = field(default_factory=dict)  # of our log-probabilities and an engine's

    @property
    def kls(self) -> np.ndarray:
        """The KL divergence from the start, estimated from the sampled tokens of each completion. (P * G,)."""
        apart = (self.thoughts.logprobs.detach() - self.ref_logprobs) * self.mask
        result: np.ndarray = apart.sum(-1).flatten().cpu().double().numpy()
        return result


@dataclass(frozen=True)
class Draws:
    """The random numbers of a step: one per token (P, G, max_new_tokens), and the lengths (P, G) if they are drawn."""

    uniforms: Tensor
    lengths: Tensor | None

    def of(self, prompts: Tensor) -> Draws:
        """Return the numbers of some prompts."""
        return Draws(self.uniforms[prompts], None if self.lengths is None else self.lengths[prompts])


def draw_numbers(training: TrainingSection, generation: GenerationSection, random: torch.Generator) -> Draws:
    """Draw the random numbers of a step for all its prompts, whichever process completes them."""
    shape = training.prompts_per_step, training.completions_per_prompt
    longest, shortest = generation.max_new_tokens, generation.min_new_tokens
    uniforms = torch.rand(*shape, longest, generator=random)
    lengths = None if shortest is None else torch.randint(shortest, longest + 1, shape, generator=random)
    return Draws(uniforms, lengths)


def pick_examples(examples: Sequence[Example], count: int, step: int, seed: int) -> list[Example]:
    """Return the examples of a step: every example comes once before any comes again, each pass in a new order."""
    return [examples[index] for index in pick_indices(len(examples), step * count, (step + 1) * count, seed)]


def pick_indices(size: int, first: int, end: int, seed: int) -> list[int]:
    """Return which of ``size`` examples a training takes as its ``first`` up to, not including, its ``end``."""
    passes = range(first // size, (end - 1) // size + 1)
    orders = {number: torch.randperm(size, generator=generator_for(seed, "order", number)) for number in passes}
    return [int(orders[position // size][position % size]) for position in range(first, end)]


async def collect(
    policy: Policy,
    examples: Sequence[Example],
    scorers: Mapping[str, Scorer],
    training: TrainingSection,
    generation: GenerationSection,
    draws: Draws,
    state: TrainerState = NO_TRAINING,
    sampler: VllmSampler | None = None,
) -> Rollout:
    """Sample ``completions_per_prompt`` completions of each example and score them with every reward.

    The model samples itself, unless there is a ``sampler``.
    """
    model = policy.language_model
    prompt_ids, prompt_mask = model.pad([example.tokens for example in examples])
    theirs: Tensor | None = None
    if sampler is not None:
        completions, theirs = sampler(policy, prompt_ids, prompt_mask, draws.uniforms, draws.lengths)
    else:
        completions = await Sampling(policy, prompt_ids, prompt_mask, generation, draws.uniforms, draws.lengths)
    rows = masked_tokens(completions.ids.flatten(0, 1), completions.mask.flatten(0, 1))
    repeated = [example for example in examples for _ in range(training.completions_per_prompt)]
    texts = read_responses(model.tokenizer, repeated, rows)
    unfinished = unfinished_thoughts(model.tokenizer, repeated, rows)
    samples = [sample_of(*answer) for answer in zip(repeated, texts, rows, strict=True)]
    log = Log()
    scores = score_all(scorers, samples, state, log)
    passes = torch.arange(len(examples)).split(training.prompts_per_pass or len(examples))

    async def think(way: Way, *, with_entropy: bool = False) -> Thoughts:
        prompts = [(prompt_ids[part], prompt_mask[part], completions.ids[part]) for part in passes]
        parts = [
            await Thinking(policy, *part, generation.temperature, way, with_entropy=with_entropy) for part in prompts
        ]
        return parts[0] if len(parts) == 1 else join(parts)

    ref_logprobs = (await think("start")).logprobs
    way: Way = "learning" if policy.serves_first_update(training) else "still"
    thoughts = await think(way, with_entropy=training.ppo.entropy_coef > 0)
    return Rollout(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        ids=completions.ids,
        mask=completions.mask,
        ended=model.ends(completions.ids, completions.mask),
        unfinished=np.array(unfinished, dtype=np.float64) if reads_after_thought(examples) else None,
        posts=[sample.post for sample in samples],
        texts=texts,
        scores=scores,
        log=log,
        thoughts=thoughts,
        ref_logprobs=ref_logprobs,
        temperature=generation.temperature,
        mismatch={} if theirs is None else mismatch(thoughts.logprobs, theirs, completions.mask),
    )
