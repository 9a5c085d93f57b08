"""What the tests of sweeps share: random experts, a recipe that evaluates them, and a progress that remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiny import build_adapter, recipe_content


@pytest.fixture(scope="package")
def experts(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[Path]:
    """Five random adapters."""
    folder = tmp_path_factory.mktemp("experts")
    return [build_adapter(folder / name, tiny_model, seed) for seed, name in enumerate("abcde")]


@pytest.fixture
def content(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """A recipe that evaluates four prompts of unequal length in batches of three."""
    content = recipe_content(tmp_path, tiny_model)
    content["task"]["eval_data"] = content["task"]["data"]
    content["evaluation"].update(prompts=4, batch_size=3, max_new_tokens=8)
    content["rewards"] = {"brief": None}
    content["morl"] = []
    return content
