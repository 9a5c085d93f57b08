"""A mixed model is written whole or not at all, once, in little memory, and says where it comes from."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from rsoup import mixing
from rsoup.errors import AdapterError, RsoupError
from rsoup.files import hash_weights
from rsoup.mixing import Options
from rsoup.mixing.checkpoints import RULES, mix_models, write_model, write_model_grid

from .models import Q_PROJ, load, make_model, snapshot, tensors


def pair(folder: Path, **settings: Any) -> list[Path]:
    return [make_model(folder / name, seed, **settings) for seed, name in enumerate(("one", "two"))]


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when files are written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def environment() -> dict[str, str]:
    root = Path(mixing.__file__).parents[2]
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("method", ["linear", "slerp", "ties"])
def test_large_tensors_are_worked_through_in_little_memory(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three models of a tensor of 32 MB each, of several chunks; the result equals that of the whole in float32."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    rng = np.random.default_rng(0)
    contents = [{"model.x.weight": rng.standard_normal((8000, 1000), dtype=np.float32)} for _ in range(3)]
    one, two, base = (make_model(tmp_path / str(i), content) for i, content in enumerate(contents))
    needs = RULES[method].base == "needed"
    tracemalloc.start()
    write_model(mix_models([one, two], [0.25, 0.75], method=method, base=base if needs else None), tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20
    if method in ("linear", "task_arithmetic"):
        whole = 0.25 * contents[0]["model.x.weight"] + 0.75 * contents[1]["model.x.weight"]
        np.testing.assert_allclose(load(tmp_path / "out")["model.x.weight"], whole, atol=1e-6)


def test_rsoup_json_and_the_headers_say_where_a_model_comes_from(tmp_path: Path) -> None:
    one, two = pair(tmp_path)
    base = make_model(tmp_path / "base", 2)
    options = Options(density=0.4)
    out = write_model(mix_models([one, two], [0.25, 0.75], method="ties", base=base, options=options), tmp_path / "out")
    found = json.loads((out / "rsoup.json").read_text())
    assert found["parents"] == [
        {"name": "one", "path": str(one), "sha256": hash_weights(one), "weight": 0.25},
        {"name": "two", "path": str(two), "sha256": hash_weights(two), "weight": 0.75},
    ]
    assert found["base_model"] == {"name": str(base), "sha256": hash_weights(base)}
    assert (found["schema"], found["kind"], found["name"]) == (1, "model-soup", "out")
    assert (found["method"], found["options"]) == ("ties", {"density": 0.4, "seed": 0})
    with safe_open(out / "model.safetensors", "np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert [parent["weight"] for parent in json.loads(metadata["rsoup"])["parents"]] == [0.25, 0.75]


def test_the_model_card_is_what_the_hub_reads(tmp_path: Path) -> None:
    cards = pytest.importorskip("huggingface_hub")
    out = write_model(mix_models(pair(tmp_path), [0.25, 0.75]), tmp_path / "out")
    card = cards.ModelCard.load(out / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    assert "| 0.25 |" in card.text


CHANGES = ["nothing", "time", "weights", "tokenizer", "output", "gone", "weight", "method", "dtype"]


@pytest.mark.parametrize("changed", CHANGES)
def test_the_same_mix_again_does_nothing(changed: str, tmp_path: Path) -> None:
    """Files that were only touched are read again, and found the same."""
    paths = pair(tmp_path, shards=2)
    out = write_model(mix_models(paths, [0.25, 0.75]), tmp_path / "out")
    before, settings, weights = identities(out), {}, [0.25, 0.75]
    if changed == "time":
        os.utime(paths[0] / "model-00001-of-00002.safetensors")
    elif changed == "weights":
        path = paths[1] / "model-00001-of-00002.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    elif changed == "tokenizer":
        (paths[0] / "tokenizer_config.json").write_text("{}")
    elif changed == "output":
        os.utime(out / "model-00001-of-00002.safetensors")
    elif changed == "gone":
        (out / "tokenizer.json").unlink()
    elif changed == "weight":
        weights = [0.5, 0.5]
    elif changed in ("method", "dtype"):
        settings = {changed: {"method": "slerp", "dtype": "BF16"}[changed]}
    if changed in ("nothing", "time"):
        assert write_model(mix_models(paths, weights), tmp_path / "out") == out
        assert identities(out) == before
        return
    with pytest.raises(AdapterError, match="is already there"):
        write_model(mix_models(paths, weights, **settings), out)
    write_model(mix_models(paths, weights, **settings), out, overwrite=True)
    assert (out / "tokenizer.json").is_file()


@pytest.mark.parametrize("place", ["in/one", "in/two/out", "in/base", "in"])
def test_an_output_on_an_input_is_refused(place: str, tmp_path: Path) -> None:
    paths, base = pair(tmp_path / "in"), make_model(tmp_path / "in" / "base", 2)
    before = snapshot(tmp_path)
    mix = mix_models(paths, [0.5, 0.5], method="task_arithmetic", base=base)
    with pytest.raises(AdapterError, match="is, holds or lies in the input"):
        write_model(mix, tmp_path / place, overwrite=True)
    assert snapshot(tmp_path) == before


def test_a_grid_holds_every_point_and_its_corners_are_the_models(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    grid = write_model_grid(paths, 2, tmp_path / "grid")
    assert [point.name for point in grid.points] == ["soup-1.00-0.00", "soup-0.50-0.50", "soup-0.00-1.00"]
    for corner, path in ((grid.points[0], paths[0]), (grid.points[-1], paths[1])):
        assert {k: v.tobytes() for k, v in load(corner).items()} == {k: v.tobytes() for k, v in load(path).items()}
    listed = json.loads((tmp_path / "grid" / "grid.json").read_text())["points"]
    assert listed[1] == {"path": "soup-0.50-0.50", "weights": {"one": 0.5, "two": 0.5}}
    before = identities(tmp_path / "grid")
    assert write_model_grid(paths, 2, tmp_path / "grid") == grid
    assert identities(tmp_path / "grid") == before
    with pytest.raises(AdapterError, match="is already there"):
        write_model_grid(paths, 4, tmp_path / "grid")


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    content = {**tensors(0), Q_PROJ: np.ones((300, 300), np.float32)}
    paths = [make_model(tmp_path / "in" / name, content) for name in "ab"]
    program = (
        "import sys; from rsoup import errors; from rsoup.mixing import checkpoints\n"
        "try: checkpoints.write_model(checkpoints.mix_models(sys.argv[1:3], [0.5, 0.5]), sys.argv[3])\n"
        "except errors.AdapterError as error: print(error.message)"
    )
    (tmp_path / "out").mkdir()
    words = [sys.executable, "-c", program, *paths, tmp_path / "out" / "soup"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env=environment(), preexec_fn=limit_file_size
    )
    assert "out/soup: could not be written (File too large" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_a_kill_at_any_time_leaves_a_whole_output_or_none(tmp_path: Path) -> None:
    content = {f"model.layers.{i}.q.weight": np.ones((64, 64), np.float32) for i in range(64)}
    paths = [make_model(tmp_path / "in" / name, content, shards=4) for name in "ab"]
    before = snapshot(tmp_path / "in")
    program = (
        "import sys; from rsoup.mixing import checkpoints\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for w in (0.25, 0.5):\n"
        "        mix = checkpoints.mix_models(sys.argv[1:3], [w, 1 - w])\n"
        "        checkpoints.write_model(mix, sys.argv[3], overwrite=True)"
    )
    output = tmp_path / "out" / "soup"
    rng = random.Random(0)
    for _ in range(4):
        words = [sys.executable, "-c", program, *paths, output]
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment()) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.0, 0.08))
            process.send_signal(signal.SIGKILL)
        if output.exists():
            assert load(output).keys() == content.keys()
            assert (output / "rsoup.json").is_file()
    assert snapshot(tmp_path / "in") == before


def test_a_shard_that_shrinks_while_it_is_read_leaves_nothing(tmp_path: Path) -> None:
    paths = pair(tmp_path / "in")
    mix = mix_models(paths, [0.5, 0.5])
    shard = paths[1] / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    (tmp_path / "out").mkdir()
    with pytest.raises(RsoupError, match="could not be written"):
        write_model(mix, tmp_path / "out" / "soup")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_mix_of_real_models_computes_what_their_mixed_weights_compute(tmp_path: Path, tiny_model: Path) -> None:
    """Against transformers: the mean of two models' parameters, loaded and run."""
    import torch
    from transformers import AutoModelForCausalLM

    from tiny import build_tiny_model

    other = build_tiny_model(tmp_path / "other", seed=1)
    out = write_model(mix_models([tiny_model, other], [0.7, 0.3]), tmp_path / "out")
    first, second, found = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny_model, other, out))
    with torch.no_grad():
        for own, theirs in zip(first.parameters(), second.parameters(), strict=True):
            own.mul_(0.7).add_(theirs, alpha=0.3)
        ids = torch.tensor([[4, 5, 6, 7]])
        torch.testing.assert_close(found(ids).logits, first(ids).logits, rtol=1e-4, atol=1e-5)
    assert (out / "tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()


def test_mixing_models_imports_no_torch() -> None:
    program = "import sys, rsoup.mixing.checkpoints; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.strip() == "[]"
