"""PEFT as an oracle: real architectures with random weights, adapters that PEFT saved, mixes that PEFT loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from rsoup import mixing
from rsoup.errors import AdapterError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*(lora_bias|lora_B.bias).*"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning"),
]

WIDTH, VOCABULARY = 16, 40
_LLAMA = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_BERT = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "llama": ("AutoModelForCausalLM", _LLAMA, ["q_proj", "v_proj", "down_proj"]),
    "qwen2": ("AutoModelForCausalLM", _LLAMA, ["q_proj", "k_proj", "up_proj"]),
    "mistral": ("AutoModelForCausalLM", _LLAMA, ["o_proj", "gate_proj"]),
    "gpt2": ("AutoModelForCausalLM", {"n_embd": WIDTH, "n_layer": 2, "n_head": 2}, ["c_attn", "c_proj", "c_fc"]),
    "gpt_neox": (
        "AutoModelForCausalLM",
        {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
        ["query_key_value", "dense"],
    ),
    "t5": (
        "AutoModelForSeq2SeqLM",
        {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
        ["q", "v", "wo"],
    ),
    "bert": ("AutoModelForMaskedLM", _BERT, ["query", "value", "output.dense"]),
    "bert classifier": ("AutoModelForSequenceClassification", _BERT, ["query", "value"]),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save one tiny model per architecture."""
    folders = {}
    for name, (loader, settings, _) in ARCHITECTURES.items():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(name.split()[0], vocab_size=VOCABULARY, **settings)
        folders[name] = tmp_path_factory.mktemp("bases") / name
        getattr(transformers, loader).from_config(config).save_pretrained(folders[name])
    return folders


def load(base: Path, name: str) -> Any:
    return getattr(transformers, ARCHITECTURES[name][0]).from_pretrained(base, dtype=torch.float32).eval()


def train(base: Path, name: str, folder: Path, seed: int, *, dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    """Save an adapter with PEFT whose every trained tensor is random."""
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ARCHITECTURES[name][2], **config}
    model = get_peft_model(load(base, name), LoraConfig(**settings))
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.2)
        elif "modules_to_save" in key:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    tokens = torch.arange(12).reshape(2, 6)
    extra = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=tokens, **extra).logits


def with_updates(base: Path, name: str, experts: Sequence[Path], weights: Sequence[float]) -> Any:
    """Return the base plus the weighted sum of the updates that PEFT computes, one expert at a time."""
    total = load(base, name)
    head = total.get_output_embeddings()
    if head is not None:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())  # an adapter reaches one end of tied embeddings
    saved: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for expert, weight in zip(experts, weights, strict=True):
            peft_model = PeftModel.from_pretrained(load(base, name), expert).float()
            for key, module in peft_model.base_model.model.named_modules():
                if isinstance(module, LoraLayer):
                    total.get_submodule(key).weight += weight * module.get_delta_weight("default")
                elif hasattr(module, "modules_to_save"):
                    for kind, value in module.modules_to_save["default"].named_parameters():
                        place = f"{key}.{kind}"
                        saved[place] = saved.get(place, 0) + weight * value
        for place, value in saved.items():
            total.get_parameter(place).copy_(value)
    return total


def check_logits(base: Path, name: str, mixed: Path, experts: Sequence[Path], weights: Sequence[float]) -> None:
    expected = logits(with_updates(base, name, experts, weights))
    plain = logits(load(base, name))
    found = logits(PeftModel.from_pretrained(load(base, name), mixed))
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_mixed_and_merged_models_equal_the_weighted_updates(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    experts = [train(bases[name], name, tmp_path / str(i), i, r=2 + i, use_rslora=bool(i)) for i in range(2)]
    soup = mixing.mix(experts, [0.3, 0.7], method="cat")
    check_logits(bases[name], name, mixing.write(soup, tmp_path / "soup"), experts, [0.3, 0.7])

    report = mixing.merge(soup, bases[name], tmp_path / "merged")
    found, expected = load(tmp_path / "merged", name), with_updates(bases[name], name, experts, [0.3, 0.7])
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value, atol=2e-6, rtol=2e-6)
    torch.testing.assert_close(logits(found), logits(expected), atol=2e-5, rtol=2e-5)
    assert report.rounding < 1e-6


EMBEDDINGS = {"target_modules": ["embed_tokens", "q_proj"]}
FLAVOURS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "rank and alpha patterns": (
        "llama",
        [
            {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
            {"rank_pattern": {"layers.1.self_attn.v_proj": 6}, "alpha_pattern": {"^model.layers.0.mlp.down_proj": 5}},
        ],
    ),
    "rslora with patterns": ("llama", [{"use_rslora": True, "rank_pattern": {"v_proj": 2}}, {"use_rslora": True}]),
    "other targets": ("llama", [{"target_modules": ["q_proj"]}, {"target_modules": ["v_proj", "o_proj"]}]),
    "some layers": ("llama", [{"layers_to_transform": [1]}, {"layers_to_transform": 0}]),
    "a pattern of targets": ("llama", [{"target_modules": r".*\.(q_proj|k_proj)"}, {"exclude_modules": ["down_proj"]}]),
    "embeddings": ("llama", [EMBEDDINGS, {**EMBEDDINGS, "r": 2}]),
    "tied embeddings": ("gpt2", [{"target_modules": ["wte", "c_attn"]}, {"target_modules": ["wte", "c_fc"]}]),
    "output head": ("mistral", [{"target_modules": ["lm_head", "q_proj"]}, {"target_modules": ["lm_head"]}]),
    "embeddings of another name": ("gpt_neox", [{"target_modules": ["embed_in"]}, {}]),
    "renamed output head": ("gpt_neox", [{"target_modules": ["lm_head"]}, {"target_modules": ["lm_head", "dense"]}]),
    "all linear layers": ("gpt_neox", [{"target_modules": "all-linear"}, {"target_modules": "all-linear", "r": 2}]),
    "two dtypes": ("llama", [{"dtype": torch.bfloat16}, {}]),
    "a saved module with a bias": ("bert", [{"modules_to_save": ["transform"]}, {"modules_to_save": ["transform"]}]),
    "a classifier": ("bert classifier", [{"task_type": "SEQ_CLS"}, {"task_type": "SEQ_CLS", "r": 2}]),
    "modules to save": ("qwen2", [{"modules_to_save": ["lm_head"]}, {"modules_to_save": ["lm_head"], "r": 2}]),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_flavour_mixes_exactly(flavour: str, bases: dict[str, Path], tmp_path: Path) -> None:
    name, configs = FLAVOURS[flavour]
    experts = [train(bases[name], name, tmp_path / str(i), i, **config) for i, config in enumerate(configs)]
    soup = mixing.mix(experts, [0.4, 0.6], method="cat")
    check_logits(bases[name], name, mixing.write(soup, tmp_path / "soup"), experts, [0.4, 0.6])


@pytest.mark.parametrize("flavour", ["rank and alpha patterns", "embeddings", "modules to save", "output head"])
def test_one_adapter_at_weight_one_loads_as_itself(flavour: str, bases: dict[str, Path], tmp_path: Path) -> None:
    name, (config, *_) = FLAVOURS[flavour]
    expert = train(bases[name], name, tmp_path / "expert", 0, **config)
    same = mixing.write(mixing.mix([expert], [1.0]), tmp_path / "same")
    found, expected = (logits(PeftModel.from_pretrained(load(bases[name], name), path)) for path in (same, expert))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("flavour", ["embeddings", "modules to save", "output head", "renamed output head"])
def test_merge_equals_peft_merge(flavour: str, bases: dict[str, Path], tmp_path: Path) -> None:
    name, (config, *_) = FLAVOURS[flavour]
    expert = train(bases[name], name, tmp_path / "expert", 0, **config)
    mixing.merge(mixing.mix([expert], [1.0]), bases[name], tmp_path / "merged")
    found = load(tmp_path / "merged", name)
    expected = PeftModel.from_pretrained(load(bases[name], name), expert).merge_and_unload()
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value, atol=1e-6, rtol=1e-6)


def test_bfloat16_adapters_mix_within_their_rounding(bases: dict[str, Path], tmp_path: Path) -> None:
    experts = [train(bases["llama"], "llama", tmp_path / str(i), i, dtype=torch.bfloat16) for i in range(2)]
    soup = mixing.mix(experts, [0.5, 0.5], method="cat")
    assert {array.dtype.name for array in soup.adapter.tensors().values()} == {"bfloat16"}
    found = PeftModel.from_pretrained(load(bases["llama"], "llama"), mixing.write(soup, tmp_path / "soup"))
    expected = with_updates(bases["llama"], "llama", experts, [0.5, 0.5])
    torch.testing.assert_close(logits(found), logits(expected), atol=2e-3, rtol=2e-2)


def test_bfloat16_base_takes_updates_rounded_once(bases: dict[str, Path], tmp_path: Path) -> None:
    base = tmp_path / "base"
    load(bases["llama"], "llama").to(torch.bfloat16).save_pretrained(base)
    expert = train(bases["llama"], "llama", tmp_path / "expert", 0)
    report = mixing.merge(mixing.mix([expert], [1.0]), base, tmp_path / "merged")
    exact = with_updates(base, "llama", [expert], [1.0]).state_dict()
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    for key, value in exact.items():
        assert found[key].dtype == torch.bfloat16
        assert torch.equal(found[key], value.to(torch.bfloat16))
    errors = {key: (value - value.to(torch.bfloat16).float()).abs().max().item() for key, value in exact.items()}
    assert report.rounding == pytest.approx(max(errors.values()), rel=1e-4)
    assert errors[str(report.rounding_at)] == pytest.approx(report.rounding, rel=1e-4)


def test_factors_average_a_and_b_as_peft_holds_them(bases: dict[str, Path], tmp_path: Path) -> None:
    experts = [train(bases["llama"], "llama", tmp_path / str(i), i) for i in range(2)]
    models = [PeftModel.from_pretrained(load(bases["llama"], "llama"), path) for path in experts]
    first, second = (model.state_dict() for model in models)
    models[0].load_state_dict({key: 0.25 * value + 0.75 * second[key] for key, value in first.items()})
    soup = mixing.write(mixing.mix(experts, [0.25, 0.75]), tmp_path / "soup")
    found = PeftModel.from_pretrained(load(bases["llama"], "llama"), soup)
    torch.testing.assert_close(logits(found), logits(models[0]), atol=1e-5, rtol=1e-5)


OLD_KEYS = (
    *("auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights"),
    *("layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "modules_to_save", "peft_type", "r"),
    *("revision", "target_modules", "task_type"),
)


def as_peft_04_wrote_it(adapter: Path, **changes: Any) -> Path:
    """Leave in a configuration the keys that PEFT 0.4 wrote, and no others."""
    path = adapter / "adapter_config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key in OLD_KEYS}
    path.write_text(json.dumps({**config, **changes}))
    return adapter


def test_adapters_of_old_peft_versions_are_read(bases: dict[str, Path], tmp_path: Path) -> None:
    expert = as_peft_04_wrote_it(train(bases["llama"], "llama", tmp_path / "expert", 0))
    soup = mixing.mix([expert, expert], [0.5, 0.5])
    found = logits(PeftModel.from_pretrained(load(bases["llama"], "llama"), mixing.write(soup, tmp_path / "soup")))
    expected = logits(PeftModel.from_pretrained(load(bases["llama"], "llama"), expert))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_classifiers_of_old_peft_versions_are_read(bases: dict[str, Path], tmp_path: Path) -> None:
    """PEFT 0.4 stored the head that it trains for a classification, and left it out of modules_to_save."""
    base, name = bases["bert classifier"], "bert classifier"
    experts = [train(base, name, tmp_path / str(i), i, task_type="SEQ_CLS") for i in range(2)]
    old = [as_peft_04_wrote_it(expert, modules_to_save=None) for expert in experts]
    soup = mixing.mix(old, [0.25, 0.75], method="cat")
    assert set(soup.adapter.saved) == {"classifier.weight", "classifier.bias"}
    check_logits(base, name, mixing.write(soup, tmp_path / "soup"), old, [0.25, 0.75])
    mixing.merge(soup, base, tmp_path / "merged")
    expected = logits(with_updates(base, name, old, [0.25, 0.75]))
    torch.testing.assert_close(logits(load(tmp_path / "merged", name)), expected, atol=2e-5, rtol=2e-5)


OTHER_KINDS: dict[str, tuple[peft.PeftConfig, str]] = {
    "DoRA": (LoraConfig(target_modules=["q_proj"], use_dora=True), "uses DoRA"),
    "LoRA bias": (LoraConfig(target_modules=["q_proj"], lora_bias=True), "uses a LoRA bias"),
    "PiSSA": (LoraConfig(target_modules=["q_proj"], init_lora_weights="pissa"), "changed the base's weights"),
    "IA3": (peft.IA3Config(target_modules=["v_proj"], feedforward_modules=[]), "'IA3' .it rescales activations"),
    "VeRA": (peft.VeraConfig(target_modules=["q_proj"]), "'VERA' .its vectors rescale random matrices"),
    "LoHa": (peft.LoHaConfig(target_modules=["q_proj"]), "'LOHA' .its update is an elementwise product"),
    "AdaLoRA": (peft.AdaLoraConfig(target_modules=["q_proj"], total_step=9), "'ADALORA'"),
    "prompts": (
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        "'PROMPT_TUNING' .it adds tokens",
    ),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_what_peft_saves_of_other_kinds_is_refused_by_name(kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    config, message = OTHER_KINDS[kind]
    get_peft_model(load(bases["llama"], "llama"), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterError, match=message) as caught:
        mixing.read(tmp_path / "adapter")
    assert str(tmp_path / "adapter") in caught.value.message
