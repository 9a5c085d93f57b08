"""The tokenizer and chat templates beside adapters: taken over where all agree, and said where they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsoup import mixing

from .making import make_adapter
from .test_merging import make_base

TOKENIZER = {"tokenizer.json": '{"vocab": {}}', "tokenizer_config.json": '{"eos_token": "</s>"}'}
TEMPLATE = {"chat_template.jinja": "{{ messages }}"}
TOOLS = {"additional_chat_templates/tools.jinja": "{{ tools }}"}


def make(folder: Path, files: dict[str, str], seed: int = 0) -> Path:
    make_adapter(folder, seed)
    put(folder, files)
    return folder


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def held(folder: Path, *files: dict[str, str]) -> dict[str, str]:
    names = [name for group in files for name in group]
    return {name: (folder / name).read_text() for name in names if (folder / name).is_file()}


def test_what_all_adapters_have_goes_with_the_mix_and_the_merged_model(tmp_path: Path) -> None:
    files = TOKENIZER | TEMPLATE | TOOLS
    adapters = [make(tmp_path / str(seed), files, seed) for seed in (1, 2)]
    place = {"eos_token": "</s>", "name_or_path": "elsewhere"}  # where a tokenizer came from makes no other one
    put(adapters[1], {"tokenizer_config.json": json.dumps(place)})
    soup = mixing.mix(adapters, [0.5, 0.5])
    assert not [warning for warning in soup.warnings if "token" in warning or "template" in warning]
    written = mixing.write(soup, tmp_path / "soup")
    assert held(written, files) == files
    assert mixing.write(mixing.mix(adapters, [0.5, 0.5]), tmp_path / "soup") == written

    base = make_base(tmp_path / "base")
    put(base, {"vocab.json": "{}", "processor_config.json": "{}", "additional_chat_templates/old.jinja": "old"})
    report = mixing.merge(soup, base, tmp_path / "merged")
    assert held(report.folder, files) == files
    assert (report.folder / "processor_config.json").is_file()
    assert not (report.folder / "vocab.json").exists()  # of the base's tokenizer, which another takes the place of
    assert not (report.folder / "additional_chat_templates/old.jinja").exists()
    [warning] = report.warnings[-1:]
    assert "tokenizer.json" in warning
    assert "in the place of the base's" in warning


def test_the_bases_own_stay_where_adapters_have_none(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    put(base, TOOLS)
    report = mixing.merge(mixing.mix([make(tmp_path / "a", {})], [1.0]), base, tmp_path / "merged")
    names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", *TOOLS]
    assert all((report.folder / name).read_bytes() == (base / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (TOKENIZER | {"chat_template.jinja": "other"}, "chat templates differ (chat_template.jinja)"),
        (TOKENIZER, "has a chat template of its own, and"),
    ],
)
def test_chat_templates_that_differ_are_left_behind_and_said(own: dict[str, str], message: str, tmp_path: Path) -> None:
    adapters = [make(tmp_path / "1", TOKENIZER | TEMPLATE), make(tmp_path / "2", own)]
    soup = mixing.mix(adapters, [0.5, 0.5])
    assert [warning for warning in soup.warnings if message in warning]
    written = mixing.write(soup, tmp_path / "soup")
    assert held(written, TOKENIZER | TEMPLATE) == TOKENIZER
    base = make_base(tmp_path / "base")
    merged = mixing.merge(soup, base, tmp_path / "merged").folder
    assert (merged / "chat_template.jinja").read_bytes() == (base / "chat_template.jinja").read_bytes()


def test_tokenizers_that_differ_are_left_behind_and_said(tmp_path: Path) -> None:
    other = TOKENIZER | {"tokenizer_config.json": '{"eos_token": "<end>"}'}
    adapters = [make(tmp_path / "1", TOKENIZER), make(tmp_path / "2", other)]
    soup = mixing.mix(adapters, [0.5, 0.5])
    assert [warning for warning in soup.warnings if "tokenizers differ (tokenizer_config.json)" in warning]
    assert held(mixing.write(soup, tmp_path / "soup"), TOKENIZER) == {}


def test_a_folder_that_lacks_the_tokenizer_is_not_the_mix(tmp_path: Path) -> None:
    soup = mixing.mix([make(tmp_path / "a", TOKENIZER)], [1.0])
    written = mixing.write(soup, tmp_path / "soup")
    (written / "tokenizer.json").unlink()
    mixing.write(soup, written, overwrite=True)
    assert held(written, TOKENIZER) == TOKENIZER
