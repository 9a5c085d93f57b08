"""Random small models: policies, adapters and reward models of the architectures that a recipe names."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from rsoup.errors import ModelError, first_line
from rsoup.files import sha256_json, whole_folder
from rsoup.models.bundled import BUNDLED
from rsoup.models.targets import lora_targets, order_targets
from rsoup.recipe import LoraSection, RewardSection, TaskSection
from rsoup.rewards import JUDGES
from rsoup.tasks import resolve_task
from rsoup.tasks.loading import MARKER
from rsoup.tiny.rows import VOCABULARY

FAMILIES = {
    "smollm3": "smollm3",
    "smollm": "llama",
    "llama": "llama",
    "vicuna": "llama",
    "qwen3": "qwen3",
    "qwen": "qwen2",
    "mistral": "mistral",
    "gemma-3": "gemma3_text",
    "gemma-2": "gemma2",
    "gemma": "gemma",
    "olmo": "olmo2",
    "gpt2": "gpt2",
}
"""Architectures by what the names of hub ids have in them; the first that fits counts."""

POLICY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,
}
JUDGE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.5,
}
BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 512,
    "init_std": 0.5,
}
JUDGES_OWN: dict[str, dict[str, Any]] = {
    "bart": BART,
    "deberta-v2": {**JUDGE, "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "electra": {**JUDGE, "embedding_size": 16},
}
"""Settings of architectures with names of their own."""

CHAT = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def build_policy(folder: Path, base: str, task: TaskSection, seed: int) -> Path:
    """Make a random small causal model of the architecture of ``base`` with a tokenizer, unless it is there."""
    markers = MARKER.findall(resolve_task(task).template)
    folder = _keyed(folder, [_architecture(base), markers, seed])
    if folder.is_dir():
        return folder
    tokenizer = _tokenizer(["<pad>", "</s>", "<s>", *dict.fromkeys(markers)])
    tokenizer.add_special_tokens({"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"})
    tokenizer.chat_template = CHAT
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    settings = {**POLICY, **special, "vocab_size": len(tokenizer)}
    _save(folder, AutoModelForCausalLM, _architecture(base), settings, tokenizer, seed)
    return folder


def build_adapter(folder: Path, policy: Path, lora: LoraSection, seed: int) -> Path:
    """Make a random adapter of a policy, unless it is there."""
    folder = _keyed(folder, [policy.name, lora.model_dump(mode="json"), seed])
    if folder.is_dir():
        return folder
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(policy)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        init_lora_weights=False,
        task_type="CAUSAL_LM",
        **lora_targets(lora, model),
    )
    with whole_folder(folder) as partial:
        peft = get_peft_model(model, config)
        order_targets(config)
        peft.save_pretrained(partial)
    return folder


def build_judge(folder: Path, section: RewardSection) -> Path:
    """Make a random small classifier in the place of a reward's model, with the labels its format names."""
    assert section.model is not None
    known = JUDGES.get(section.model)
    architecture = known.architecture if known else _declared(section.model).get("model_type", "bert")
    labels = known.labels if known else _labels(section)
    seed, folder = len(folder.name), _keyed(folder, [architecture, list(labels), section.template == "chat"])
    if folder.is_dir():
        return folder
    tokenizer = _judge_tokenizer(architecture)
    tokenizer.chat_template = CHAT if section.template == "chat" else None
    settings = {
        **JUDGES_OWN.get(architecture, JUDGE),
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    _save(folder, AutoModelForSequenceClassification, architecture, settings, tokenizer, seed)
    return folder


def _keyed(folder: Path, what: list[Any]) -> Path:
    """Return the folder's name with a hash of what is made in it, so that a changed recipe gets other stand-ins."""
    return folder.with_name(f"{folder.name}-{sha256_json(what)[:8]}")


def _save(folder: Path, loader: Any, architecture: str, settings: dict[str, Any], tokenizer: Any, seed: int) -> None:
    torch.manual_seed(seed)
    try:
        model = loader.from_config(AutoConfig.for_model(architecture, **settings))
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as problem:
        raise ModelError(
            f"No small {architecture} can be made for --tiny: {first_line(problem)}.",
            "Try the recipe with a Llama or Qwen in the place of this model: --set model.base=...",
        ) from problem
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def _tokenizer(special: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer trained on the words of the made-up rows: it reads any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{word} {word}" for word in VOCABULARY], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512)


def _judge_tokenizer(architecture: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the special tokens of an architecture, which it puts around a text as that one does."""
    if architecture == "gpt2":
        tokenizer = _tokenizer(["<|endoftext|>"])
        tokenizer.add_special_tokens({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
        return tokenizer
    first, last, pad = ("<s>", "</s>", "<pad>") if architecture == "bart" else ("[CLS]", "[SEP]", "[PAD]")
    tokenizer = _tokenizer([pad, first, last])
    roles = {"bos_token": first, "cls_token": first, "eos_token": last, "sep_token": last, "pad_token": pad}
    tokenizer.add_special_tokens(roles)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (first, last)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B:1 {last}:1", special_tokens=ids
    )
    return tokenizer


def _architecture(base: str) -> str:
    """Return transformers' name for the architecture of a model, judged by its folder or by its name."""
    if declared := _declared(base).get("model_type"):
        return str(declared)
    name = (BUNDLED[base].source if base in BUNDLED else base).lower()
    return next((family for part, family in FAMILIES.items() if part in name), "llama")


def _declared(source: str) -> dict[str, Any]:
    """Return the configuration in a model's folder, or nothing."""
    path = Path(source).expanduser() / "config.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def _labels(section: RewardSection) -> list[str]:
    """Return the labels of a model's folder, else as many as its format speaks of, under the names used there."""
    if declared := _declared(str(section.model)).get("id2label"):
        return [label for _, label in sorted(declared.items(), key=lambda item: int(item[0]))]
    parts = [part for part in re.split(r"[-+]", section.format or "0") if part]
    names = [part for part in parts if not part.isdigit()]
    count = max([len(names), *(int(part) + 1 for part in parts if part.isdigit())])
    return names + [f"LABEL_{index}" for index in range(len(names), count)]
