"""What a sweep mixes, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

from mixing.making import make_adapter
from rsoup.evaluation.ingredients import other_templates, read_ingredients


def test_adapters_that_were_trained_on_another_chat_template_than_the_bases_are_named(tmp_path: Path) -> None:
    files = {
        "none": ("README.md", ""),
        "same": ("chat_template.jinja", "{{ messages }}\n"),
        "inside": ("tokenizer_config.json", json.dumps({"chat_template": "{{ messages }}"})),
        "other": ("chat_template.jinja", "{{ message }}"),
        "odd": ("tokenizer_config.json", json.dumps({"chat_template": "{{ tools }}"})),
    }
    for name, (file, text) in files.items():
        (make_adapter(tmp_path / name) / file).write_text(text)
    found = read_ingredients([tmp_path / name for name in files])
    told = "other, odd have chat templates of their own; prompts are made with the base's."
    assert other_templates(found, "{{ messages }}") == [told]
    alone = {name: found[name] for name in ("none", "same", "inside", "other")}
    assert other_templates(alone, "{{ messages }}") == [
        "other has a chat template of its own; prompts are made with the base's."
    ]
    del alone["other"]
    assert other_templates(alone, "{{ messages }}") == []
