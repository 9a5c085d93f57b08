"""The small tasks beside this file, which any model of the tests' words can be asked."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "tasks"
FACTS, WORDS, TEXTS = (str(FOLDER / f"{name}.yaml") for name in ("facts", "words", "texts"))
