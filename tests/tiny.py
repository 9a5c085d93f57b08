"""Small models, adapters, data and recipes that the tests build for themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from rsoup.files import whole_file

TEXT = """
    the kettle lid broke after a week but water boils fast and i like its colour good great bad awful
    battery cable chair sound picture paper shoe price box strap button screen handle filter summary
    love hate fine cheap loud quiet sturdy flimsy late early returned kept recommend never
"""
WORDS = TEXT.split()

POSTS = [" ".join(WORDS[(7 * i + 3 * j) % len(WORDS)] for j in range(4 + i % 5)) for i in range(12)]
"""Twelve short reviews made of the tiny tokenizer's words."""

LAMBDAS = (0.0, 0.5, 1.0)
"""The points between two experts in the tiny recipe."""


def build_tokenizer() -> Any:
    """Return a tokenizer that knows whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", ":", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=128
    )


def build_tiny_model(folder: Path, seed: int, **settings: Any) -> Path:
    """Save a random two-layer Llama with grouped-query attention, and the word tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.3,
            **settings,
        }
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_classifier(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """Save a random sequence classifier with labels negative and positive, and a word tokenizer of its own."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"sep_token": "<sep>", "cls_token": "<cls>"})
    torch.manual_seed(seed)
    config = BertConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 24,
            "pad_token_id": tokenizer.pad_token_id,
            "id2label": {0: "negative", 1: "positive"},
            "label2id": {"negative": 0, "positive": 1},
            "initializer_range": 0.5,
            **settings,
        }
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_adapter(folder: Path, model: Path, seed: int, **settings: Any) -> Path:
    """Save a random LoRA adapter of a model with PEFT alone: it carries no provenance."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(
        **{
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "init_lora_weights": False,
            "task_type": "CAUSAL_LM",
            **settings,
        }
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(folder)
    return folder


def build_judge_adapter(folder: Path, classifier: Path, base: str, seed: int = 1) -> Path:
    """Save a random LoRA adapter of a classifier, with a head of its own, that names ``base`` as its base model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(classifier)
    targets = ["query", "value", "q_proj", "v_proj"]
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, task_type="SEQ_CLS")
    adapted = get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(weight)
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(folder)
    return folder


def write_posts(path: Path) -> Path:
    """Write the posts as JSONL rows with ids, at once: another process may be reading them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text("".join(json.dumps({"id": f"p{i}", "post": post}) + "\n" for i, post in enumerate(POSTS)))
    return path


def recipe_content(folder: Path, model: Path) -> dict[str, Any]:
    """Return a recipe that trains two experts and a baseline on the tiny model within seconds."""
    return {
        "name": "tiny",
        "output": str(folder / "run"),
        "model": {"base": str(model), "dtype": "float32", "lora": {"r": 2, "alpha": 4}},
        "task": {"data": str(write_posts(folder / "posts.jsonl")), "template": "summary : {post} :"},
        "rewards": ["positive", "brief"],
        "training": {
            "steps": 3,
            "prompts_per_step": 2,
            "completions_per_prompt": 3,
            "learning_rate": 0.01,
            "checkpoint_every": 1,
            "ppo": {"epochs": 2, "kl_coef": 0.05},
        },
        "generation": {"max_new_tokens": 6},
        "morl": [{"positive": 0.5, "brief": 0.5}],
        "evaluation": {"prompts": 3, "lambdas": len(LAMBDAS), "max_new_tokens": 6, "batch_size": 2},
    }


def write_recipe(path: Path, content: Any) -> Path:
    """Write a recipe as YAML."""
    path.write_text(yaml.safe_dump(content))
    return path


def tree(folder: Path) -> set[str]:
    """Return the relative path of everything in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
