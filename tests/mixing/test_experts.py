"""Experts that an adapter names one by one, or trains as one parameter: on bases of either kind, and mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rsoup import mixing
from rsoup.errors import AdapterError

from .making import make_adapter, update_of
from .test_architectures import Base, check_folded, close

pytestmark = pytest.mark.filterwarnings("ignore")

OWN = {"qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj"), "mixtral": ("block_sparse_moe", "w1", "w3", "w2")}
EXPERTS, WIDTH, INNER = 4, 16, 12
FUSED = "model.layers.0.mlp.experts"


@pytest.fixture(scope="module", params=OWN)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    made = Base(request.param, tmp_path_factory.mktemp(request.param))
    made.parts = OWN[request.param]  # type: ignore[attr-defined]
    return made


def name_each(folder: Path, base: Any, seed: int, **settings: Any) -> Path:
    """Write an adapter as transformers 4 had them: a module for each matrix of each expert."""
    block, gate, up, down = base.parts
    shapes = {"model.layers.0.self_attn.q_proj": (16, 16)}
    for layer in range(2):
        for expert in range(EXPERTS):
            owner = f"model.layers.{layer}.{block}.experts.{expert}"
            shapes |= {f"{owner}.{gate}": (INNER, WIDTH), f"{owner}.{up}": (INNER, WIDTH)}
            shapes |= {f"{owner}.{down}": (WIDTH, INNER)}
    settings |= {"task_type": "CAUSAL_LM", "base_model_name_or_path": str(base.folder)}
    return make_adapter(folder, seed, shapes=shapes, alpha=0.5, **settings)


def test_experts_by_name_are_what_peft_makes_of_them(base: Any, tmp_path: Path) -> None:
    """PEFT turns their factors into those of the one tensor that the model has in memory."""
    experts = [name_each(tmp_path / str(seed), base, seed, rank=seed) for seed in (1, 2)]
    for expert in experts:
        soup = mixing.mix([expert], [1.0])
        expected = base.peft(expert).merge_and_unload()
        check_folded(base, soup.adapter, expected)
        mixing.merge(soup, base.folder, tmp_path / f"{expert.name} merged")
        close(base.load(tmp_path / f"{expert.name} merged"), expected)
    soup = mixing.mix(experts, [0.4, 0.6], method="cat")
    mixing.merge(soup, base.folder, tmp_path / "merged")
    close(base.peft(mixing.write(soup, tmp_path / "soup")), base.load(tmp_path / "merged"))


@pytest.mark.parametrize("first", ["named", "stacked"])
def test_experts_by_name_and_in_one_parameter_mix(base: Any, first: str, tmp_path: Path) -> None:
    """The mix trains the parameter; what each adapter does to an expert adds up in it."""
    named, stacked = name_each(tmp_path / "named", base, 3), base.experts[0]
    order = [named, stacked] if first == "named" else [stacked, named]
    weights = [0.25, 0.75] if first == "named" else [0.75, 0.25]
    soup = mixing.mix(order, weights, method="cat")
    mixing.merge(soup, base.folder, tmp_path / "merged")
    expected = base.expected([stacked], [0.75])
    alone = mixing.merge(mixing.mix([named], [1.0]), base.folder, tmp_path / "alone").folder
    for name, value in base.load(alone).state_dict().items():
        expected.state_dict()[name].add_(0.25 * (value - base.model.state_dict()[name]))
    close(base.load(tmp_path / "merged"), expected)
    close(base.peft(mixing.write(soup, tmp_path / "soup")), expected)


def stack(folder: Path, seed: int, rank: int = 2, parameters: tuple[str, ...] = ("gate_up_proj", "down_proj")) -> Path:
    """Write an adapter as PEFT does for ``target_parameters``, with the formula of its layer written out."""
    rng = np.random.default_rng(seed)
    shapes = {"gate_up_proj": (2 * INNER, WIDTH), "down_proj": (WIDTH, INNER)}
    extra = {}
    for depth, parameter in enumerate(reversed(parameters)):
        out, size = shapes[parameter]
        owner = f"base_model.model.{FUSED}{'.base_layer' * depth}"
        extra[f"{owner}.lora_A.weight"] = rng.standard_normal((EXPERTS * rank, size)).astype(np.float32)
        extra[f"{owner}.lora_B.weight"] = rng.standard_normal((out, rank * EXPERTS)).astype(np.float32)
    targets = [f"mlp.experts.{parameter}" for parameter in parameters]
    return make_adapter(folder, seed, rank=rank, shapes={}, extra=extra, target_modules=[], target_parameters=targets)


def expert_update(folder: Path, wrapper: str, expert: int, rank: int) -> Any:
    """Return what PEFT adds to one expert: einsum("o r e, e r i -> e o i") of its reshaped factors."""
    tensors = load_file(folder / "adapter_model.safetensors")
    down, up = (tensors[f"base_model.model.{FUSED}{wrapper}.lora_{side}.weight"] for side in "AB")
    whole = np.einsum("ore,eri->eoi", up.reshape(len(up), rank, EXPERTS), down.reshape(EXPERTS, rank, -1))
    return whole[expert] * 4 / rank


@pytest.mark.parametrize("method", ["factors", "cat", "svd", "ties"])
def test_every_method_mixes_each_expert_by_itself(method: str, tmp_path: Path) -> None:
    adapters = [stack(tmp_path / str(seed), seed) for seed in (1, 2)]
    options = mixing.Options(rank=4 if method == "svd" else None)
    soup = mixing.mix(adapters, [0.5, 0.5], method=method, options=options)
    for parameter, wrapper in (("gate_up_proj", ".base_layer"), ("down_proj", "")):
        for expert in range(EXPERTS):
            found = update_of(soup.adapter, f"{FUSED}.{expert}.{parameter}")
            if method in ("cat", "svd"):
                exact = sum(0.5 * expert_update(adapter, wrapper, expert, 2) for adapter in adapters)
                np.testing.assert_allclose(found, exact, atol=1e-4)
    written = mixing.write(soup, tmp_path / "soup")
    again = mixing.read(written)
    for name in soup.adapter.layers:
        np.testing.assert_allclose(update_of(again, name), update_of(soup.adapter, name), atol=1e-5)
    if method == "factors":
        tensors = [load_file(path / "adapter_model.safetensors") for path in (*adapters, written)]
        for name, value in tensors[2].items():
            np.testing.assert_allclose(value, 0.5 * tensors[0][name] + 0.5 * tensors[1][name], atol=1e-6)


def test_adapters_of_other_parameters_mix(tmp_path: Path) -> None:
    """The lone parameter of one adapter is the outer of two in the other."""
    both, lone = stack(tmp_path / "both", 1), stack(tmp_path / "lone", 2, rank=3, parameters=("gate_up_proj",))
    soup = mixing.mix([lone, both], [0.5, 0.5], method="cat")
    raw = json.loads((mixing.write(soup, tmp_path / "soup") / "adapter_config.json").read_text())
    assert raw["target_parameters"] == ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
    exact = 0.5 * expert_update(both, ".base_layer", 1, 2) + 0.5 * expert_update(lone, "", 1, 3)
    np.testing.assert_allclose(update_of(mixing.read(tmp_path / "soup"), f"{FUSED}.1.gate_up_proj"), exact, atol=1e-5)


def test_factors_that_could_be_either_parameters_are_refused(tmp_path: Path) -> None:
    adapter = stack(tmp_path / "a", 1)
    path = adapter / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if "base_layer" not in name}, path)
    with pytest.raises(AdapterError, match="factors of 1 parameters; which ones"):
        mixing.read(adapter)


def test_factors_of_no_whole_experts_are_refused(tmp_path: Path) -> None:
    adapter = stack(tmp_path / "a", 1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "r": 3}))
    with pytest.raises(AdapterError, match="no experts of rank 3"):
        mixing.read(adapter)


def test_factors_of_both_forms_are_not_averaged(tmp_path: Path) -> None:
    owner = f"{FUSED}.1.gate_proj"
    adapters = [make_adapter(tmp_path / "named", shapes={owner: (INNER, WIDTH)}), stack(tmp_path / "stacked", 1)]
    with pytest.raises(AdapterError, match=r"named names each expert, and .*stacked trains the experts"):
        mixing.mix(adapters, [0.5, 0.5])
    assert "names each expert" in str(mixing.check(adapters).methods["factors"])


def test_other_numbers_of_experts_are_refused(tmp_path: Path) -> None:
    """Their number follows from A and the rank: half the rank makes twice as many."""
    adapters = [stack(tmp_path / "a", 1), stack(tmp_path / "b", 2)]
    config = json.loads((adapters[1] / "adapter_config.json").read_text())
    (adapters[1] / "adapter_config.json").write_text(json.dumps({**config, "r": 1}))
    with pytest.raises(AdapterError, match=r"b updates 8 experts .*a 4"):
        mixing.mix(adapters, [0.5, 0.5], method="cat")


def test_what_peft_saves_of_experts_by_name_is_the_same_adapter(base: Any, tmp_path: Path) -> None:
    """PEFT names their parameters alone (gate_up_proj), beside target_modules, with patterns of rank and scale."""
    named = name_each(tmp_path / "named", base, 5)
    base.peft(named).save_pretrained(tmp_path / "stacked")
    raw = json.loads((tmp_path / "stacked" / "adapter_config.json").read_text())
    assert sorted(raw["target_parameters"]) == ["down_proj", "gate_up_proj"]
    assert raw["target_modules"] == ["q_proj"]
    soup = mixing.mix(
        [tmp_path / "stacked", named], [2.0, -1.0], method="cat", allow_extrapolation=True, allow_different_starts=True
    )
    mixing.merge(soup, base.folder, tmp_path / "difference")
    alone = mixing.merge(mixing.mix([named], [1.0]), base.folder, tmp_path / "alone").folder
    close(base.load(tmp_path / "difference"), base.load(alone))
