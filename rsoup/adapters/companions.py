"""The tokenizer and the chat templates that trainers save beside an adapter."""

from __future__ import annotations

import json
from pathlib import Path

from rsoup.files import sha256_file, sha256_json

TEMPLATE_FOLDER = "additional_chat_templates"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
TOKENIZER = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json"),
)
VOCABULARY = tuple(name for name in TOKENIZER if not name.startswith(("tokenizer_config", "special_", "added_")))
"""The files of which one makes a tokenizer whole."""
_SETTINGS = "tokenizer_config.json"
_MAX_SETTINGS = 16 << 20
_OF_A_PLACE = ("name_or_path", "is_local", "local_files_only", "transformers_version")


def is_template(name: str) -> bool:
    """Tell whether a file beside an adapter or a model holds a chat template."""
    return name in TEMPLATES or name.startswith(f"{TEMPLATE_FOLDER}/")


def companions_of(folder: Path) -> dict[str, str]:
    """Return the tokenizer's and chat templates' files in a folder, each with a hash of what it says."""
    names = [name for name in (*TOKENIZER, *TEMPLATES) if (folder / name).is_file()]
    names += [f"{TEMPLATE_FOLDER}/{path.name}" for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))]
    return {name: _hash(folder / name) for name in names}


def _hash(path: Path) -> str:
    """Return the hash of a file; settings are compared without what tells only where they were loaded from."""
    if path.name == _SETTINGS and path.stat().st_size <= _MAX_SETTINGS:
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            return sha256_json({key: value for key, value in settings.items() if key not in _OF_A_PLACE})
        except (ValueError, AttributeError, RecursionError):  # no settings: its bytes are compared
            pass
    return sha256_file(path)


def chat_template_of(folder: Path) -> str | None:
    """Return the chat template in a folder, None if it has none (or several, by name)."""
    try:
        if (folder / TEMPLATES[0]).is_file():
            return (folder / TEMPLATES[0]).read_text(encoding="utf-8")
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        template = settings.get("chat_template")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return template if isinstance(template, str) else None
