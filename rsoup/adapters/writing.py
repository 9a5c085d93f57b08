"""Write an adapter folder that PEFT and vLLM load as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsoup.adapters.adapter import Adapter
from rsoup.adapters.config import CONFIG_FILE
from rsoup.adapters.reading import PROVENANCE_FILE, WEIGHTS_FILE
from rsoup.adapters.tensorfile import write_tensors
from rsoup.files import write_json, write_text


def write_adapter(
    adapter: Adapter, folder: Path, *, provenance: Mapping[str, Any], metadata: Mapping[str, str], card: str
) -> str:
    """Write an adapter into an existing folder and return the SHA-256 of its weights, which rsoup.json gets too."""
    sha256 = write_tensors(folder / WEIGHTS_FILE, adapter.tensors(), {"format": "pt", **metadata})
    write_json(folder / CONFIG_FILE, dict(adapter.config.raw))
    write_text(folder / "README.md", card)
    write_json(folder / PROVENANCE_FILE, {**provenance, "sha256": sha256, "config_sha256": adapter.config.sha256})
    return sha256
