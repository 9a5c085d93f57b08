"""Small models, data and recipes that the tests build for themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

WORDS = (
    "the kettle lid broke after a week but water boils fast and i like its colour good great bad awful "
    "battery cable chair sound picture paper shoe price box strap button screen handle filter summary "
    "love hate fine cheap loud quiet sturdy flimsy late early returned kept recommend never"
).split()


@pytest.fixture(scope="session")
def posts() -> list[str]:
    """Twelve short reviews made of the tiny tokenizer's words."""
    return [" ".join(WORDS[(7 * i + 3 * j) % len(WORDS)] for j in range(4 + i % 5)) for i in range(12)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with grouped-query attention and a word tokenizer, saved as a folder."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=0)


def build_tiny_model(folder: Path, seed: int) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", ":", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=128
    )


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_model: Path, posts: list[str]) -> Path:
    """A recipe that trains two experts and a baseline on the tiny model within seconds."""
    data = tmp_path / "posts.jsonl"
    data.write_text("".join(json.dumps({"id": f"p{i}", "post": post}) + "\n" for i, post in enumerate(posts)))
    recipe = {
        "name": "tiny",
        "output": str(tmp_path / "run"),
        "model": {"base": str(tiny_model), "dtype": "float32", "lora": {"r": 2, "alpha": 4}},
        "task": {"data": str(data), "template": "summary : {post} :"},
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
        "evaluation": {"prompts": 3, "lambdas": 3, "max_new_tokens": 6, "batch_size": 2},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
