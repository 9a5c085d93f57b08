"""What is written of an adapter: its folder, with where it comes from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rsoup import __version__
from rsoup.adapters import Adapter
from rsoup.adapters.config import read_config
from rsoup.adapters.reading import PROVENANCE_FILE, WEIGHTS_FILE
from rsoup.files import sha256_file, whole_folder, write_json, write_text
from rsoup.models.language_model import LanguageModel
from rsoup.recipe import START, Recipe
from rsoup.training.card import training_card
from rsoup.training.checkpoint import TrainingState
from rsoup.training.differing import SCHEMA, settings_of
from rsoup.training.folders import checkpoint_folder
from rsoup.training.metrics import METRICS_FILE, sampled_tokens
from rsoup.training.policy import Policy


@dataclass(frozen=True)
class Notes:
    """What rsoup.json says of an adapter in training."""

    recipe: Recipe
    policy: Policy
    kind: Literal["expert", "morl"]
    name: str
    start: Adapter
    weights: Mapping[str, float]
    processes: int

    def of(self, state: TrainingState) -> dict[str, Any]:
        """Return the provenance of the adapter as it is now, and what it has cost."""
        ppo = self.recipe.training.ppo
        return {
            **provenance(self.recipe, self.policy.language_model, self.kind, self.name),
            "init_sha256": self.start.sha256,
            "rewards": dict(self.weights),
            **({"minimized": lowered} if (lowered := lowered_rewards(self.recipe, self.weights)) else {}),
            "algo": self.recipe.training.algo,
            "score_scaling": self.recipe.training.score_scaling,
            "score_statistics": {reward: asdict(running) for reward, running in state.running.items()},
            "steps": state.step,
            "seconds": round(state.seconds, 3),
            "optimizer_steps": state.step * ppo.epochs * ppo.mini_batches,
            "tokens": sampled_tokens(checkpoint_folder(self.recipe, self.name) / METRICS_FILE),
            "processes": self.processes,
            "fingerprint": state.fingerprint,
        }

    def write(self, folder: Path, state: TrainingState) -> None:
        """Write the adapter as it is now, with its card and the metrics so far."""
        checkpoints = checkpoint_folder(self.recipe, self.name)
        told = self.of(state)
        card = training_card(self.recipe, told, checkpoints / METRICS_FILE)
        write_adapter(folder, self.policy, told, card, checkpoints)


def lowered_rewards(recipe: Recipe, weights: Mapping[str, float]) -> list[str]:
    """Return the rewards that a training lowers."""
    return sorted(name for name, weight in weights.items() if weight and name in recipe.minimized)


def provenance(recipe: Recipe, model: LanguageModel, kind: str, name: str) -> dict[str, Any]:
    """Return what rsoup.json says of every adapter that a run makes."""
    packages = ["torch", "transformers", "peft"]
    if kind != START and recipe.training.algo != "ppo":
        packages.append("trl")
    return {
        "schema": SCHEMA,
        "kind": kind,
        "name": name,
        "base_model": {"name": model.name, "sha256": model.sha256},
        "seed": recipe.seed,
        "settings": settings_of(recipe, trains=kind != START),
        "versions": {"rsoup": __version__, **{package: version(package) for package in packages}},
    }


def write_adapter(folder: Path, policy: Policy, told: dict[str, Any], card: str, checkpoints: Path | None) -> None:
    """Write an adapter's folder, whole or not at all; ``checkpoints`` holds the metrics of its training."""
    with whole_folder(folder) as partial:
        policy.save(partial)
        if checkpoints is not None:
            shutil.copy(checkpoints / METRICS_FILE, partial)
        sha256 = sha256_file(partial / WEIGHTS_FILE)
        write_text(partial / "README.md", card)
        hashes = {"sha256": sha256, "config_sha256": read_config(partial).sha256}
        write_json(partial / PROVENANCE_FILE, {"init_sha256": sha256, **told, **hashes})
