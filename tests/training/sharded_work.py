"""The work of ``test_sharded``; run by itself (``sharded_work.py FOLDER MODEL``) it is what each process does."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from harness.small_tasks import FACTS, WORDS
from rsoup import experiment
from rsoup.errors import RecipeError
from rsoup.models.load import load_language_model
from rsoup.progress import Silent
from rsoup.recipe_file import parse_recipe
from rsoup.resolve import Resolved, resolve
from rsoup.training.expert import train_adapter
from tiny import POSTS, recipe_content


def content(folder: Path, model: Path, placement: str) -> dict[str, Any]:
    """Return a recipe for one reward; the posts, of different lengths, have to be there."""
    made = recipe_content(folder.parent, model)
    made["output"] = str(folder)
    made["model"]["placement"] = placement
    made["rewards"], made["morl"] = ["brief"], []
    made["training"] |= {"steps": 2, "completions_per_prompt": 2}
    return made


def of_ppo(folder: Path, model: Path, placement: str) -> Resolved:
    """Return a whole recipe: completions have drawn lengths, so that processes end sampling at different steps."""
    made = content(folder, model, placement)
    made["training"] |= {"gradient_checkpointing": True, "prompts_per_pass": 1}
    made["generation"] |= {"min_new_tokens": 1}
    made["evaluation"] |= {"with_base": True, "prompts": len(POSTS)}
    if importlib.util.find_spec("lm_eval") is not None:
        made["evaluation"] |= {"benchmarks": [FACTS, WORDS], "lm_eval": {"limit": 6}}
    return resolve(parse_recipe(made, "test"))


def trl(folder: Path, model: Path, placement: str, algo: str) -> None:
    """Train one expert with TRL."""
    made = content(folder, model, placement)
    made["training"] |= {"algo": algo}
    train_adapter(resolve(parse_recipe(made, "test")), "brief", {"brief": 1.0}, "expert", Silent())


def spread_is_refused(model: Path) -> None:
    """Check that processes which would lay their bases over the same GPUs are told so."""
    with pytest.raises(RecipeError, match="2 processes"):
        load_language_model(str(model), revision=None, dtype="float32", placement="spread")


def note_memory(folder: Path, model: Path) -> None:
    """Write the bytes of the base in this process: whole, its layers, and what is left of it when it is split."""
    from rsoup.models.sharding import resident_bytes
    from rsoup.models.spreading import layers_of

    found = {}
    for placement in ("auto", "sharded"):
        loaded = load_language_model(str(model), revision=None, dtype="float32", placement=placement)
        found[placement] = resident_bytes(loaded.model)
        found[f"layers {placement}"] = resident_bytes(layers_of(loaded.decoder))
    (folder / f"memory-{PartialState().process_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    out, base = Path(sys.argv[1]), Path(sys.argv[2])
    experiment.run(of_ppo(out / "ppo", base, "sharded"), Silent())
    for algo in ("grpo", "rloo"):
        for placement in ("auto", "sharded"):
            trl(out / f"{algo}-{placement}", base, placement, algo)
    note_memory(out, base)
    spread_is_refused(base)
