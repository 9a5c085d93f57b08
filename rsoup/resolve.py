"""A recipe turned, once, into what it names: the base, the task, the rewards, each with its identity.

Every command resolves its recipe before it writes anything, and hands the result on: what a recipe names is looked up
in one place, and what cannot be found is refused there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rsoup.errors import ModelError
from rsoup.files import sha256_json
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import (
    context_length,
    load_language_model,
    load_tokenizer,
    model_sha256,
    pick_device,
    settings_sha256,
)
from rsoup.recipe import ModelSection, Recipe, RewardSection
from rsoup.rewards import reward_identity
from rsoup.rewards.functions import check_functions
from rsoup.rewards.samples import sample_of
from rsoup.rewards.scoring import Scorer, make_scorer
from rsoup.tasks import Task, resolve_task
from rsoup.tasks.loading import Examples, Split, load_examples, posts_sha256, read_rows


@dataclass(frozen=True)
class Base:
    """A base model: its hashes (weights; configuration and tokenizer), its context in tokens, its tokenizer."""

    section: ModelSection
    sha256: str
    settings_sha256: str
    context: int | None
    tokenizer: Any

    @property
    def name(self) -> str:
        """The name of the model: bundled, a folder, or a hub id."""
        return self.section.base

    def load(self, dtype: str | None = None) -> LanguageModel:
        """Load the model as it is trained, or with other weights, which are never quantised."""
        section = self.section
        return load_language_model(
            section.base,
            revision=section.revision,
            dtype=dtype or section.dtype,
            quantization=None if dtype else section.quantization,
        )


@dataclass(frozen=True)
class Reward:
    """A reward of a recipe, and what decides its scores on any device; what computes them is loaded when asked for."""

    name: str
    section: RewardSection
    identity: Mapping[str, Any]

    @cached_property
    def scorer(self) -> Scorer:
        """What computes the scores."""
        return make_scorer(self.name, self.section)

    @cached_property
    def sha256(self) -> str:
        """A hash of what decides the scores on this device."""
        return sha256_json(reward_identity(self.name, self.section, pick_device().type))


@dataclass(frozen=True)
class Resolved:
    """A recipe and what it names; rows and scorers are read when first asked for, and once."""

    recipe: Recipe
    base: Base
    task: Task
    rewards: Mapping[str, Reward]

    @cached_property
    def training_examples(self) -> Examples:
        """The prompts of the training, each with room for the new tokens."""
        return self._examples("train", self.recipe.generation.max_new_tokens, "generation.max_new_tokens")

    @cached_property
    def held_out_examples(self) -> Examples:
        """The prompts of the evaluation, each with room for the new tokens."""
        return self._examples("test", self.recipe.evaluation.max_new_tokens, "evaluation.max_new_tokens")

    @cached_property
    def training_rows_sha256(self) -> str:
        """A hash of the rows that the training's prompts are made of."""
        return posts_sha256(self.task, "train")

    @cached_property
    def training_columns_sha256(self) -> str:
        """A hash of all that rewards may read of the training's rows."""
        return sha256_json([sample_of(row, "").key() for row in read_rows(self.task, "train").rows])

    @property
    def scorers(self) -> dict[str, Scorer]:
        """What computes the scores of each reward."""
        return {name: reward.scorer for name, reward in self.rewards.items()}

    def check(self) -> None:
        """Raise RsoupError if a training or an evaluation would later miss rows, room in the context, or a reward."""
        if not self.recipe.models:  # which are mixed as they are
            _ = self.training_examples
        _ = self.held_out_examples, self.scorers

    def _examples(self, split: Split, new_tokens: int, setting: str) -> Examples:
        if self.base.context is not None and new_tokens >= self.base.context:
            raise ModelError(
                f"{self.base.name}: its context of {self.base.context} tokens has no room for {new_tokens} new ones "
                "and a prompt.",
                f"Lower {setting}.",
            )
        examples = load_examples(self.task, self.base.tokenizer, split, self.recipe.seed)
        examples = examples.with_room(new_tokens, self.base.context, setting)
        functions = [reward.scorer for reward in self.rewards.values() if reward.section.function is not None]
        check_functions(functions, [sample_of(example, "") for example in examples.rows])
        return examples


def resolve(recipe: Recipe) -> Resolved:
    """Look up what a recipe names; RsoupError names the first thing that is not there."""
    task = resolve_task(recipe.task)  # first what takes no time
    name, revision = recipe.model.base, recipe.model.revision
    base = Base(
        section=recipe.model,
        tokenizer=load_tokenizer(name, revision),
        context=context_length(name, revision),
        sha256=model_sha256(name, revision),
        settings_sha256=settings_sha256(name, revision),
    )
    rewards = {
        reward: Reward(reward, section, reward_identity(reward, section)) for reward, section in recipe.rewards.items()
    }
    return Resolved(recipe, base, task, rewards)
