"""The adapter of a difference is the best of its rank, says what it leaves out, and PEFT loads it."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsoup import mixing
from rsoup.errors import AdapterError, ModelError, RsoupError
from rsoup.mixing.checkpoints import cutting, extract
from rsoup.mixing.updates import cut_matrix

from ..making import update_of
from .models import EMBEDDINGS, HEAD, Q_PROJ, SHAPES, load, make_model, snapshot, tensors

MODULE = Q_PROJ.removesuffix(".weight")
NORM = "model.norm.weight"


def pair(folder: Path) -> tuple[Path, Path]:
    return make_model(folder / "base", 0), make_model(folder / "model", 1)


def best(matrix: Any, rank: int) -> Any:
    """Return the best approximation of a rank, by a full SVD in float64."""
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank]


@pytest.mark.parametrize("rank", [1, 3, 100])
def test_a_layer_is_the_best_of_its_rank(rank: int, tmp_path: Path) -> None:
    base, model = pair(tmp_path)
    found = extract(model, base, tmp_path / "out", rank=rank)
    adapter = mixing.read(tmp_path / "out")
    assert adapter.layers.keys() == found.layers.keys()
    for module, share in found.layers.items():
        delta = load(model)[f"{module}.weight"] - load(base)[f"{module}.weight"]
        np.testing.assert_allclose(update_of(adapter, module), best(delta, rank), atol=1e-5)
        captured = np.sum(best(delta, rank) ** 2) / np.sum(delta**2)
        assert share == pytest.approx(captured, abs=1e-5)
        assert found.ranks[module] == min(rank, *delta.shape)


def test_the_shares_are_those_of_the_squared_difference(tmp_path: Path) -> None:
    base, model = pair(tmp_path)
    found = extract(model, base, tmp_path / "out", rank=2)
    squares = {name: float(np.sum((load(model)[name] - load(base)[name]).astype(np.float64) ** 2)) for name in SHAPES}
    everything = sum(squares.values())
    assert found.left_out["embeddings"].tensors == 2
    assert found.left_out["embeddings"].share == pytest.approx((squares[EMBEDDINGS] + squares[HEAD]) / everything)
    assert found.left_out["norms and other vectors"].share == pytest.approx(squares[NORM] / everything)
    kept = sum(share * squares[f"{module}.weight"] for module, share in found.layers.items())
    assert found.of_all == pytest.approx(kept / everything)
    assert found.captured == pytest.approx(kept / sum(squares[f"{module}.weight"] for module in found.layers))


def test_energy_takes_the_smallest_rank_that_reaches_it(tmp_path: Path) -> None:
    base, model = pair(tmp_path)
    found = extract(model, base, tmp_path / "out", rank=5, energy=0.8)
    for module, share in found.layers.items():
        delta = load(model)[f"{module}.weight"] - load(base)[f"{module}.weight"]
        shares = [np.sum(best(delta, rank) ** 2) / np.sum(delta**2) for rank in range(1, 6)]
        assert found.ranks[module] == next(rank for rank, own in enumerate(shares, 1) if own >= 0.8)
        assert share >= 0.8
    assert mixing.read(tmp_path / "out").layers.keys() == found.layers.keys()


@pytest.mark.parametrize("shape", [(300, 200), (120, 700)])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_the_randomised_svd_keeps_what_a_full_one_keeps(shape: tuple[int, int], decay: float) -> None:
    """Also of a matrix whose singular values hardly fall, as those of trained differences."""
    rng = np.random.default_rng(0)
    u, _, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    s = np.arange(1, min(shape) + 1) ** -decay
    update = cut_matrix((u * s @ vt).astype(np.float32), 16, None, 0)
    best_share = np.sum(s[:16] ** 2) / np.sum(s**2)
    assert 1 - update.discarded <= best_share + 1e-5
    assert 1 - update.discarded >= best_share * (1 - 1e-2 if decay == 0.5 else 1 - 1e-5 if decay else 0.95)
    assert update.up.shape == (shape[0], 16)


def test_no_more_layers_are_in_memory_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four layers of 16 MB each: no more than a layer and a half, beside its factors, is ever held."""
    monkeypatch.setattr(cutting, "MEMORY", 20 << 20)
    rng = np.random.default_rng(0)
    names = [f"model.layers.{i}.q_proj.weight" for i in range(4)]
    contents = [{name: rng.standard_normal((2000, 2000), dtype=np.float32) for name in names} for _ in range(2)]
    base, model = (make_model(tmp_path / str(i), content) for i, content in enumerate(contents))
    tracemalloc.start()
    extract(model, base, tmp_path / "out", rank=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20


def test_layers_that_do_not_differ_stay_out(tmp_path: Path) -> None:
    content = tensors(1)
    base = make_model(tmp_path / "base", 0)
    content[Q_PROJ] = load(base)[Q_PROJ]
    found = extract(make_model(tmp_path / "model", content), base, tmp_path / "out", rank=2)
    assert MODULE not in found.layers
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(found.layers)


def test_the_same_extraction_again_does_nothing(tmp_path: Path) -> None:
    base, model = pair(tmp_path)
    first = extract(model, base, tmp_path / "out", rank=2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert extract(model, base, tmp_path / "out", rank=2) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(AdapterError, match="already there"):
        extract(model, base, tmp_path / "out", rank=3)
    with pytest.raises(AdapterError, match="already there"):
        extract(base, model, tmp_path / "out", rank=2)


def test_extracted_adapters_of_one_base_mix_exactly_and_not_by_their_factors(tmp_path: Path) -> None:
    base, one = pair(tmp_path)
    two = make_model(tmp_path / "two", 2)
    paths = [extract(model, base, tmp_path / f"a{i}", rank=9).folder for i, model in enumerate((one, two))]
    with pytest.raises(AdapterError, match="averages of them with others mean nothing"):
        mixing.mix(paths, [0.5, 0.5])
    soup = mixing.mix(paths, [0.3, 0.7], method="cat")
    assert soup.warnings == ()
    merged = load(mixing.merge(soup, base, tmp_path / "merged").folder)
    expected = 0.3 * load(one)[Q_PROJ] + 0.7 * load(two)[Q_PROJ]
    np.testing.assert_allclose(merged[Q_PROJ], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rank": 0}, "below 1"), ({"energy": 0.0}, "not in"), ({"seed": -1}, "negative"), ({"dtype": "I8"}, "no dtype")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    base, model = pair(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(AdapterError, match=message):
        extract(model, base, tmp_path / "out", **{"rank": 2, **settings})
    assert snapshot(tmp_path) == before


def test_what_is_no_difference_is_refused(tmp_path: Path) -> None:
    base, _ = pair(tmp_path)
    broken = make_model(tmp_path / "broken", {**tensors(1), Q_PROJ: np.full((6, 5), np.nan, np.float32)})
    parts = make_model(tmp_path / "parts", 1, text_config={"hidden_size": 5})
    renamed = make_model(tmp_path / "renamed", 1, model_type="lfm3")
    cases = [(base, "does not differ"), (broken, "NaN"), (parts, "made of parts"), (renamed, "called otherwise")]
    for model, message in cases:
        with pytest.raises(RsoupError, match=message):
            extract(model, base, tmp_path / "out", rank=2)
        assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="model_type"):
        extract(make_model(tmp_path / "other", 1, model_type="gpt2"), base, tmp_path / "out", rank=2)


def save_gpt2(folder: Path, seed: int) -> Path:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=53)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_peft_loads_it_and_computes_the_model_with_what_is_left_out_of_the_base(
    kind: str, tmp_path: Path, tiny_model: Path
) -> None:
    """At full rank: base plus adapter is the model, once norms, embeddings and biases are the base's in both."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tiny import build_tiny_model

    base = tiny_model if kind == "llama" else save_gpt2(tmp_path / "base", 0)
    other = build_tiny_model(tmp_path / "m", 1) if kind == "llama" else save_gpt2(tmp_path / "m", 1)
    found = extract(other, base, tmp_path / "out", rank=64)
    assert found.captured == pytest.approx(1, abs=1e-5)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    expected, source = AutoModelForCausalLM.from_pretrained(base), AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        for module in found.layers:
            expected.get_submodule(module).weight.copy_(source.get_submodule(module).weight)
        ids = torch.tensor([[4, 5, 6, 7]])
        torch.testing.assert_close(loaded(ids).logits, expected(ids).logits, rtol=1e-3, atol=1e-4)


def test_layers_that_peft_takes_for_parts_of_experts_stay_out(tmp_path: Path) -> None:
    """A dense layer of such a model is called gate_proj as well; PEFT looks for it among the experts alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

    def save(folder: Path, seed: int) -> Path:
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "head_dim": 4}
        counts = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 2}
        config = Qwen3MoeConfig(vocab_size=32, **sizes, **counts, num_experts_per_tok=1, mlp_only_layers=[0])
        Qwen3MoeForCausalLM(config).save_pretrained(folder)
        return folder

    base, other = save(tmp_path / "base", 0), save(tmp_path / "other", 1)
    found = extract(other, base, tmp_path / "out", rank=64)
    assert found.left_out["layers that are called as parts of experts"].tensors == 3
    assert set(found.layers) == {f"model.layers.{n}.self_attn.{p}_proj" for n in (0, 1) for p in "qkvo"}
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out").merge_and_unload()
    source = AutoModelForCausalLM.from_pretrained(other)
    for module in found.layers:
        torch.testing.assert_close(
            loaded.get_submodule(module).weight, source.get_submodule(module).weight, atol=1e-5, rtol=1e-4
        )


def test_a_difference_without_end_is_refused_in_what_is_left_out_too(tmp_path: Path) -> None:
    content = tensors(1)
    content[EMBEDDINGS][0, 0] = np.inf
    base, own = make_model(tmp_path / "base", 0), make_model(tmp_path / "own", content)
    with pytest.raises(ModelError, match=r"embed_tokens\.weight differs by NaN or infinity"):
        extract(own, base, tmp_path / "out", rank=1)
    assert not (tmp_path / "out").exists()
