"""A recipe turned, once, into what it names: the base, the task, the rewards, each with its identity.

Every command resolves its recipe before it writes anything, and hands the result on: what a recipe names is looked up
in one place, and what cannot be found is refused there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rsoup.errors import ModelError, RecipeError, RewardError, see
from rsoup.files import sha256_json
from rsoup.harness import require_lm_eval
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
from rsoup.rewards import left_open, reads_rows, reward_identity
from rsoup.rewards.functions import check_functions
from rsoup.rewards.judges.judge import Judge
from rsoup.rewards.samples import sample_of
from rsoup.rewards.scoring import Scorer, applies_to_any, make_scorer
from rsoup.tasks import Task, resolve_task
from rsoup.tasks.loading import Examples, Split, load_examples, posts_sha256, read_rows

if TYPE_CHECKING:
    from rsoup.harness.loading import Benchmark


@dataclass(frozen=True)
class Base:
    """A base model: its hashes (weights; configuration and tokenizer), its context in tokens, its tokenizer.

    ``place`` is where it lies on this machine, if that is not what the recipe says.
    """

    section: ModelSection
    sha256: str
    settings_sha256: str
    context: int | None
    tokenizer: Any
    place: str | None = None

    @property
    def name(self) -> str:
        """The name of the model: bundled, a folder, or a hub id."""
        return self.section.base

    def load(self, dtype: str | None = None) -> LanguageModel:
        """Load the model as it is trained, or with other weights, which are never quantised."""
        section = self.section
        loaded = load_language_model(
            self.place or section.base,
            revision=section.revision,
            dtype=dtype or section.dtype,
            quantization=None if dtype else section.quantization,
            placement=section.placement,
        )
        if self.place is None:
            return loaded
        loaded.model.name_or_path = section.base  # what PEFT notes
        return replace(loaded, name=section.base, path=section.base)


@dataclass(frozen=True)
class Reward:
    """A reward of a recipe, and what decides its scores on any device; what computes them is loaded when asked for."""

    name: str
    section: RewardSection
    """With the places of its files on this machine."""
    identity: Mapping[str, Any]

    @cached_property
    def scorer(self) -> Scorer:
        """What computes the scores; a judge has been asked once."""
        scorer = make_scorer(self.name, self.section)
        if isinstance(scorer, Judge):
            scorer.ready()
        return scorer

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
    start: str | None = None
    """The adapter that training continues (model.start), where it lies on this machine."""
    benchmarks_here: tuple[str, ...] = ()
    """The recipe's benchmarks, where they lie on this machine."""

    @cached_property
    def training_examples(self) -> Examples:
        """The prompts of the training, each with room for the new tokens."""
        return self._examples("train", self.recipe.generation.max_new_tokens, "generation.max_new_tokens")

    @cached_property
    def held_out_examples(self) -> Examples:
        """The prompts of the evaluation, each with room for the new tokens."""
        return self._examples("test", self.recipe.evaluation.max_new_tokens, "evaluation.max_new_tokens")

    @cached_property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        """The benchmarks of the evaluation, each rehearsed once; RsoupError for one that cannot be measured."""
        if not self.benchmarks_here:
            return ()
        require_lm_eval()
        from rsoup.harness.loading import load_benchmarks

        found = load_benchmarks(
            self.benchmarks_here, self.recipe.evaluation.lm_eval, self.base.tokenizer, self.base.context
        )
        taken = next((own.name for own in found if own.name in self.rewards), None)
        if taken is not None:
            raise RecipeError(
                f"evaluation.benchmarks: {taken} is the name of a reward too.", "Give the reward another name."
            )
        return found

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
            self.check_applying(self.rewards, self.training_examples)
        self.check_applying(self.rewards, self.held_out_examples)
        _ = self.scorers, self.benchmarks

    def check_applying(self, names: Iterable[str], examples: Examples) -> None:
        """Refuse rewards of the registry that read more of a row than its post and apply to none of some rows."""
        for reward in (self.rewards[name] for name in names):
            if reward.section.function is not None or not reads_rows(reward.name, reward.section):
                continue
            if not self._applies(reward, examples):
                raise RewardError(
                    f"The reward {reward.name} applies to none of the {len(examples.rows)} rows: they lack what it "
                    "reads.",
                    "Name the column of reference answers that it can read (task.reference; for gym, rows of "
                    "task.gym), or leave the reward out." + see("a-reward-applies-to-no-row"),
                )

    @staticmethod
    def _applies(reward: Reward, examples: Examples) -> bool:
        """Tell whether a reward that reads rows applies to one of some; a judge is not asked for that."""
        if reward.section.judge is not None:
            return any(example.reference is not None for example in examples.rows)
        return applies_to_any(reward.name, reward.scorer, (sample_of(example, "") for example in examples.rows))

    @property
    def unsaid(self) -> list[str]:
        """What the recipe leaves open of its rewards, and how that is read."""
        return [
            told
            for name, reward in self.rewards.items()
            for told in left_open(name, self.recipe.rewards[name], getattr(reward.scorer, "heads", ()))
        ]

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


def resolve(recipe: Recipe, places: Mapping[str, str] | None = None) -> Resolved:
    """Look up what a recipe names; RsoupError names the first thing that is not there.

    ``places`` says where files and folders that the recipe names lie on this machine, if they lie elsewhere; what is
    made of them still carries the recipe's names.
    """
    here = moved(recipe, places or {})
    task = resolve_task(here.task)  # first what takes no time
    name, revision = here.model.base, here.model.revision
    base = Base(
        section=recipe.model,
        tokenizer=load_tokenizer(name, revision),
        context=context_length(name, revision),
        sha256=model_sha256(name, revision),
        settings_sha256=settings_sha256(name, revision),
        place=None if name == recipe.model.base else name,
    )
    rewards = {
        reward: Reward(reward, section, reward_identity(reward, section) | _told(recipe.rewards[reward]))
        for reward, section in here.rewards.items()
    }
    return Resolved(recipe, base, task, rewards, here.model.start, tuple(here.evaluation.benchmarks))


def named_paths(recipe: Recipe) -> list[str]:
    """Return what a recipe says that may be a path: its base, start and data, the files of its rewards, benchmarks."""
    rewards = recipe.rewards.values()
    files = [section.function.rpartition(":")[0] for section in rewards if section.function]
    words = [recipe.model.base, recipe.model.start, recipe.task.data, recipe.task.eval_data]
    words += [section.judge.model for section in rewards if section.judge and section.judge.base_url is None]
    words += [section.model for section in rewards] + [file for file in files if file.endswith(".py")]
    words += recipe.evaluation.benchmarks
    return list(dict.fromkeys(word for word in words if word))


def moved(recipe: Recipe, places: Mapping[str, str]) -> Recipe:
    """Return the recipe with other places for the paths it names."""

    def place(section: Any, *keys: str) -> Any:
        changed = {key: places[getattr(section, key)] for key in keys if getattr(section, key) in places}
        return section.model_copy(update=changed) if changed else section

    def place_reward(section: RewardSection) -> Any:
        file, _, attribute = (section.function or "").rpartition(":")
        if file in places:
            return section.model_copy(update={"function": f"{places[file]}:{attribute}"})
        if section.judge is not None and section.judge.base_url is None:
            return section.model_copy(update={"judge": place(section.judge, "model")})
        return place(section, "model")

    if not places:
        return recipe
    sections = {
        "model": place(recipe.model, "base", "start"),
        "task": place(recipe.task, "data", "eval_data"),
        "rewards": {name: place_reward(section) for name, section in recipe.rewards.items()},
        "evaluation": recipe.evaluation.model_copy(
            update={"benchmarks": [places.get(own, own) for own in recipe.evaluation.benchmarks]}
        ),
    }
    return recipe.model_copy(update=sections)


def _told(section: RewardSection) -> dict[str, str]:
    """Return what a reward's identity calls its source."""
    return {key: value for key in ("model", "function") if (value := getattr(section, key)) is not None}
