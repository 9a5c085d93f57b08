"""PEFT as an oracle over architectures: what it makes of an adapter on a base is what mix, merge and eval make of it.

One family of each kind is tested; RSOUP_ARCHITECTURES=all tests every one.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer, ParamWrapper
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig

from rsoup import mixing
from rsoup.adapters import Adapter
from rsoup.evaluation.applying import applied
from rsoup.models.language_model import LanguageModel
from rsoup.models.load import loader_of
from rsoup.models.targets import lora_targets
from rsoup.recipe import LoraSection

from .families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore")

WEIGHTS = (0.3, 0.7)
_FIRST = {family.kind: name for name, family in reversed(FAMILIES.items())}
CHOSEN = list(FAMILIES) if os.environ.get("RSOUP_ARCHITECTURES") == "all" else sorted(_FIRST.values())


class Base:
    """A tiny random model on disk, in memory, and two adapters that PEFT trained on it."""

    def __init__(self, name: str, folder: Path) -> None:
        torch.manual_seed(0)
        config = AutoConfig.for_model(name, **FAMILIES[name].settings)
        loader = transformers.AutoModelForImageTextToText if hasattr(config, "vision_config") else loader_of(config)
        self.folder = folder / "base"
        model = loader.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():  # experts begin as they were allocated, and norms alike
                parameter.copy_(torch.randn(parameter.shape) * 0.2)
        model.save_pretrained(self.folder)
        self.model = self.load(self.folder)
        self.experts = [self.train(folder / str(seed), seed) for seed in (1, 2)]

    def load(self, folder: Path) -> Any:
        config = AutoConfig.from_pretrained(folder)
        return loader_of(config).from_pretrained(folder, dtype=torch.float32).eval()

    def train(self, folder: Path, seed: int, **settings: Any) -> Path:
        """Save an adapter with PEFT whose every trained tensor is random, on layers chosen as ``rsoup train`` does."""
        stacks = {
            ".".join(name.split(".")[-2:])
            for name, value in self.model.named_parameters()
            if value.dim() == 3 and ".experts." in name
        }
        targets = lora_targets(LoraSection(target_parameters=sorted(stacks)), self.model)
        if stacks and not targets["target_modules"]:
            targets["target_modules"] = lora_targets(LoraSection(), self.model)["target_modules"]
        config = LoraConfig(**{"r": 1 + seed, "lora_alpha": 3, "task_type": "CAUSAL_LM", **targets, **settings})
        torch.manual_seed(seed)
        peft = get_peft_model(copy.deepcopy(self.model), config)
        with torch.no_grad():
            for name, parameter in peft.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape) * 0.3)
                elif parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape) * 0.3)
        peft.save_pretrained(folder)
        return folder

    def peft(self, adapter: Path) -> Any:
        return PeftModel.from_pretrained(copy.deepcopy(self.model), adapter).eval()

    def expected(self, adapters: Sequence[Path], weights: Sequence[float]) -> Any:
        """Return the base plus the weighted sum of the updates that PEFT computes, one adapter at a time."""
        total = copy.deepcopy(self.model)
        with torch.no_grad():
            for adapter, weight in zip(adapters, weights, strict=True):
                for name, module in self.peft(adapter).base_model.model.named_modules():
                    if isinstance(module, LoraLayer):
                        owner = name.replace(".base_layer", "")
                        last = module.parameter_name if isinstance(module, ParamWrapper) else "weight"
                        total.get_parameter(f"{owner}.{last}").add_(weight * module.get_delta_weight("default"))
        return total


@cache
def _logits_input() -> torch.Tensor:
    return torch.arange(3, 15).reshape(2, 6)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=_logits_input(), use_cache=False).logits


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(logits(found), logits(expected), atol=2e-4, rtol=2e-4)


def check_folded(base: Base, adapter: Adapter, expected: Any) -> None:
    """Check that a model in memory computes what is expected within the fold, and its own logits after it."""
    model = LanguageModel(copy.deepcopy(base.model), None, "base", str(base.folder), "")
    with applied(model, adapter):
        close(model.model, expected)
        hidden = model.decoder(input_ids=_logits_input(), use_cache=False).last_hidden_state
        torch.testing.assert_close(model.logits(hidden), logits(expected), atol=2e-4, rtol=2e-4)
    assert torch.equal(logits(model.model), logits(base.model))


@pytest.fixture(scope="module", params=CHOSEN)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(request.param, tmp_path_factory.mktemp(request.param))


def test_mix_merge_and_eval_make_of_two_adapters_what_peft_makes_of_each(base: Base, tmp_path: Path) -> None:
    soup = mixing.mix(base.experts, WEIGHTS, method="cat")
    expected = base.expected(base.experts, WEIGHTS)
    plain = logits(base.model)
    assert (logits(expected) - plain).abs().max() > 0.1 * plain.abs().max()

    close(base.peft(mixing.write(soup, tmp_path / "soup")), expected)
    mixing.merge(soup, base.folder, tmp_path / "merged")
    merged = base.load(tmp_path / "merged")
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], value, atol=1e-5, rtol=1e-5)
    check_folded(base, soup.adapter, expected)


def test_averaged_factors_merge_as_peft_merges_them(base: Base, tmp_path: Path) -> None:
    other = base.train(tmp_path / "other", 1)
    tensors = load_file(other / "adapter_model.safetensors")
    rng = np.random.default_rng(5)
    noisy = {name: value + rng.normal(size=value.shape).astype(np.float32) * 0.1 for name, value in tensors.items()}
    save_file(noisy, other / "adapter_model.safetensors", {"format": "pt"})
    soup = mixing.mix([base.experts[0], other], WEIGHTS)
    written = mixing.write(soup, tmp_path / "soup")
    first = load_file(base.experts[0] / "adapter_model.safetensors")
    for name, value in load_file(written / "adapter_model.safetensors").items():
        np.testing.assert_allclose(value, 0.3 * first[name] + 0.7 * noisy[name], atol=1e-6)
    mixing.merge(soup, base.folder, tmp_path / "merged")
    close(base.load(tmp_path / "merged"), base.peft(written).merge_and_unload())


ENDS = ["gpt2", "gemma3", "gpt_neox"]
if list(FAMILIES) == CHOSEN:
    ENDS += ["llama", "gemma3_text", "cohere2", "opt", "bloom", "mistral3", "qwen3_5"]
"""The families whose embeddings are trained in every way: tied and not, under several names."""
WAYS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "input": lambda bottom, top: {"target_modules": [bottom]},
    "output": lambda bottom, top: {"target_modules": [top]},
    "both": lambda bottom, top: {"target_modules": [bottom, top]},
    "both, tied": lambda bottom, top: {"target_modules": [bottom], "ensure_weight_tying": True},
    "input whole": lambda bottom, top: {"modules_to_save": [bottom]},
    "output whole": lambda bottom, top: {"modules_to_save": [top]},
    "both whole": lambda bottom, top: {"modules_to_save": [bottom, top]},
    "both whole, tied": lambda bottom, top: {"modules_to_save": [bottom], "ensure_weight_tying": True},
    "rows": lambda bottom, top: {"trainable_token_indices": [3, 7, 12]},
    "rows by name": lambda bottom, top: {"trainable_token_indices": {bottom: [3, 12]}},
    "biases of layers": lambda bottom, top: {"bias": "lora_only"},
    "all biases": lambda bottom, top: {"bias": "all"},
    "rows of both": lambda bottom, top: {"trainable_token_indices": {bottom: [3, 12], top: [4]}},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("base", ENDS, indirect=True)
def test_what_is_trained_beside_layers_stays_what_peft_makes_of_it(base: Base, way: str, tmp_path: Path) -> None:
    """A base that ties its embeddings is untied where an adapter trained one end alone; PEFT unmerged is the oracle."""
    names = {id(module): name.rpartition(".")[2] for name, module in base.model.named_modules()}
    ends = [names[id(of())] for of in (base.model.get_input_embeddings, base.model.get_output_embeddings)]
    expert = base.train(tmp_path / "expert", 1, **WAYS[way](*ends))
    soup = mixing.mix([expert, expert], [0.25, 0.75])
    expected = base.peft(expert)
    close(base.peft(mixing.write(soup, tmp_path / "soup")), expected)
    mixing.merge(soup, base.folder, tmp_path / "merged")
    close(base.load(tmp_path / "merged"), expected)
    check_folded(base, soup.adapter, expected)
    exact = mixing.mix([expert, expert], [0.25, 0.75], method="cat")
    close(base.peft(mixing.write(exact, tmp_path / "exact")), expected)


@pytest.mark.parametrize("base", [name for name in CHOSEN if "seeing" in FAMILIES[name].kind], indirect=True)
def test_adapters_of_towers_merge_into_the_towers(base: Base, tmp_path: Path) -> None:
    """Text and picture layers of one name and shape stay apart."""
    expert = base.train(tmp_path / "expert", 1, target_modules="all-linear", exclude_modules=None)
    soup = mixing.mix([expert], [1.0])
    mixing.merge(soup, base.folder, tmp_path / "merged")
    merged = base.load(tmp_path / "merged").state_dict()
    for name, value in base.expected([expert], [1.0]).state_dict().items():
        torch.testing.assert_close(merged[name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["factors", "cat"])
@pytest.mark.parametrize("first", ["old", "new"])
@pytest.mark.parametrize("base", ["gemma3", "llava"], indirect=True)
def test_adapters_from_before_models_were_renamed_mix_with_new_ones(
    base: Base, first: str, method: str, tmp_path: Path
) -> None:
    """The mix loads in PEFT whichever name it has, with its ranks and scales."""
    settings: dict[str, Any] = {"rank_pattern": {r".*\.0\.self_attn.q_proj": 5}, "alpha_pattern": {"v_proj": 7}}
    old, new = (base.train(tmp_path / name, seed, r=3, **settings) for seed, name in enumerate(("old", "new")))
    path = old / "adapter_model.safetensors"
    tensors = {k.replace(".model.language_model.", ".language_model.model."): v for k, v in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    config = json.loads((old / "adapter_config.json").read_text())
    config["target_modules"] = r"language_model\.model\.layers.*\.(q_proj|k_proj|v_proj|o_proj)"
    config["rank_pattern"] = {"language_model.model.layers.0.self_attn.q_proj": 5}
    (old / "adapter_config.json").write_text(json.dumps(config | {"exclude_modules": None}))
    soup = mixing.mix([old, new] if first == "old" else [new, old], [0.5, 0.5], method=method)
    merged = mixing.merge(soup, base.folder, tmp_path / "merged").folder
    close(base.peft(mixing.write(soup, tmp_path / "soup")), base.load(merged))
    plain = logits(base.model)
    assert (logits(base.load(merged)) - plain).abs().max() > 0.05 * plain.abs().max()


@pytest.mark.parametrize("base", ["llama"], indirect=True)
def test_a_layer_by_its_weight_is_the_layer(base: Base, tmp_path: Path) -> None:
    """PEFT trains a linear layer as a module, or its weight as a bare parameter."""
    own = {"target_modules": [], "target_parameters": ["q_proj.weight", "v_proj.weight"]}
    experts = [base.train(tmp_path / "weight", 1, **own), base.experts[1]]
    soup = mixing.mix(experts, WEIGHTS, method="cat")
    expected = base.expected(experts, WEIGHTS)
    close(base.peft(mixing.write(soup, tmp_path / "soup")), expected)
    close(base.load(mixing.merge(soup, base.folder, tmp_path / "merged").folder), expected)
