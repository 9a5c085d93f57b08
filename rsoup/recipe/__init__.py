"""The recipe: one typed, strict description of a whole experiment. Reading it is in ``rsoup.recipe_file``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from rsoup.errors import did_you_mean
from rsoup.recipe.base import (
    NAME_PATTERN,
    RESERVED_NAMES,
    RESERVED_PREFIXES,
    START,
    TEMPLATE_WORDS,
    Direction,
    NonNegative,
    ResponseRule,
    Section,
)
from rsoup.recipe.evaluation import EvaluationSection, FrontSection, LmEvalSection
from rsoup.recipe.model import LoraSection, ModelSection
from rsoup.recipe.reward import Rewards, RewardSection
from rsoup.recipe.task import TaskSection
from rsoup.recipe.training import GenerationSection, PPOSection, TrainingSection, VllmSection

__all__ = [
    "NAME_PATTERN",
    "START",
    "TEMPLATE_WORDS",
    "Direction",
    "EvaluationSection",
    "FrontSection",
    "GenerationSection",
    "LmEvalSection",
    "LoraSection",
    "ModelSection",
    "PPOSection",
    "Recipe",
    "ResponseRule",
    "RewardSection",
    "TaskSection",
    "TrainingSection",
    "VllmSection",
    "check_reward_weights",
]


Weights = dict[str, NonNegative]


class Recipe(Section):
    """A whole experiment: base model, task, rewards, training, evaluation."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = "run"
    """Names the run; the default output is runs/<name>."""
    output: str | None = None
    """Folder of the run."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random follows from it."""
    seeds: list[Annotated[int, Field(ge=0)]] = []
    """Several seeds: each is a run of its own in seed-N of the folder, and one report pools them."""
    model: ModelSection
    task: TaskSection
    rewards: Rewards
    """Registry names, or a mapping from a name to where the reward comes from."""
    training: TrainingSection = TrainingSection()
    generation: GenerationSection = GenerationSection()
    models: dict[Annotated[str, Field(pattern=NAME_PATTERN)], str] = {}
    """Whole models to mix in the place of trained experts, by name: folders or hub ids. Nothing is trained then."""
    morl: list[Weights] = []
    """The baselines: for each, the weights of the rewards in one training."""
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="before")
    @classmethod
    def _evaluate_what_was_trained(cls, content: Any) -> Any:
        """Let completions be as long in the evaluation as in training, unless it says how long."""
        if not isinstance(content, dict):
            return content
        generation, evaluation = (content.get(key) or {} for key in ("generation", "evaluation"))
        if not (isinstance(generation, dict) and isinstance(evaluation, dict) and "max_new_tokens" in generation):
            return content
        return {**content, "evaluation": {"max_new_tokens": generation["max_new_tokens"], **evaluation}}

    @model_validator(mode="before")
    @classmethod
    def _first_of_the_seeds(cls, content: Any) -> Any:
        """Let ``seed`` be the first of ``seeds``."""
        seeds = content.get("seeds") if isinstance(content, dict) else None
        return {"seed": seeds[0], **content} if isinstance(seeds, list) and seeds else content

    @model_validator(mode="after")
    def _different_seeds(self) -> Recipe:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds lists a seed twice")
        if self.seeds and self.seed not in self.seeds:
            raise ValueError(f"seed is {self.seed}, and seeds are {self.seeds}\nGive one of the two.")
        return self

    @model_validator(mode="after")
    def _penalty_can_be_avoided(self) -> Recipe:
        if self.training.missing_eos_penalty and not self.generation.stop_at_eos:
            raise ValueError("training.missing_eos_penalty would hit every completion: generation.stop_at_eos is off")
        return self

    @model_validator(mode="after")
    def _vllm_has_the_same_base(self) -> Recipe:
        if self.training.sampling != "vllm":
            return self
        if self.model.quantization is not None:
            raise ValueError(
                "training.sampling vllm: the engine would sample from the base as it is saved, not from its "
                f"{self.model.quantization} weights\nLeave model.quantization out."
            )
        if self.model.placement != "auto":
            raise ValueError(
                f"training.sampling vllm: the engine holds a second base, and whole, where model.placement "
                f"{self.model.placement} has no room for one\nSet model.placement to auto."
            )
        if self.model.lora.target_parameters:
            raise ValueError(
                "training.sampling vllm: adapters of bare parameters have not been tried with vLLM\n"
                "Leave model.lora.target_parameters out."
            )
        return self

    @model_validator(mode="after")
    def _nothing_to_train(self) -> Recipe:
        if self.models and self.morl:
            raise ValueError("models are mixed as they are, and morl describes trainings\nLeave one of them out.")
        for name in self.models:
            if name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES):
                raise ValueError(f"a model cannot be called {name}: rsoup uses the name itself")
        return self

    @model_validator(mode="after")
    def _kept_steps(self) -> Recipe:
        training = self.training
        for name, front in self.evaluation.fronts.items():
            if self.models:
                raise ValueError(f"evaluation.fronts.{name} mixes trained adapters, and models are not trained")
            if front.after is None:
                continue
            if not training.save_every or front.after % training.save_every:
                raise ValueError(
                    f"evaluation.fronts.{name} reads the adapters after {front.after} steps, which are not kept\n"
                    f"Set training.save_every: {front.after}, or a part of it."
                )
            if training.epochs is None and front.after > training.steps:
                raise ValueError(
                    f"evaluation.fronts.{name} reads the adapters after {front.after} steps, and trainings have "
                    f"{training.steps}\nLower after."
                )
        return self

    @model_validator(mode="after")
    def _usable_names(self) -> Recipe:
        for name in self.rewards:
            if name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES):
                raise ValueError(f"a reward cannot be called {name}: rsoup uses the name itself")
        seen: list[list[float]] = []
        for weights in self.morl:
            check_reward_weights(weights, self.rewards)
            seen.append([weights.get(name, 0.0) for name in self.rewards])
            if seen.count(seen[-1]) > 1:
                raise ValueError(f"morl lists the weights {weights} twice")
        return self

    @property
    def minimized(self) -> frozenset[str]:
        """The rewards of which lower scores are better."""
        return frozenset(name for name, section in self.rewards.items() if section.direction == "minimize")

    @property
    def folder(self) -> Path:
        """The folder that holds everything the run writes."""
        return Path(self.output) if self.output else Path("runs") / self.name

    def by_seed(self) -> list[Recipe]:
        """Return the recipe of each seed's run: the recipe itself, or with ``seeds`` one for each folder seed-N."""
        if not self.seeds:
            return [self]
        folders = {seed: str(self.folder / f"seed-{seed}") for seed in self.seeds}
        return [
            self.model_copy(update={"seed": seed, "seeds": [], "output": folder}) for seed, folder in folders.items()
        ]


def check_reward_weights(weights: Mapping[str, float], rewards: Iterable[str]) -> None:
    """Raise ValueError (what, and on a second line what to do) unless ``weights`` name rewards and are not all zero."""
    for name in weights:
        if name not in rewards:
            raise ValueError(f"the weights name {name!r}, which is not a reward here\n{did_you_mean(name, rewards)}")
    if not any(weights.values()):
        raise ValueError("the weights of the rewards are all zero")
