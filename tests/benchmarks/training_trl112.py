"""TRL 1.12's PPO as a side of the training benchmark, run by a Python that has it.

python training_trl112.py BASE_FOLDER PROMPTS.json STEPS OUT.json
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

TOKENS, GROUP = 20, 8


class Clock(TrainerCallback):
    """Notes the seconds of each step."""

    def __init__(self) -> None:
        self.last = (0.0, 0.0)
        self.noted: list[dict[str, float]] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.last = (time.perf_counter(), time.process_time())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note a step."""
        now = (time.perf_counter(), time.process_time())
        self.noted.append({"seconds": now[0] - self.last[0], "cpu": now[1] - self.last[1], "tokens": float(TOKENS)})
        self.last = now


def main() -> None:
    """Train for some steps and write what they took."""
    base, name, prompts, steps, out = sys.argv[1:]
    dtype = getattr(torch, name)
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    rows = [row for row in json.loads(Path(prompts).read_text()) for _ in range(GROUP)]
    value_model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype)
    value_model.requires_grad_(False)
    value_model.score.requires_grad_(True)  # as a value head: the layers below it stay as they are
    small = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    value_model.config.pad_token_id = tokenizer.pad_token_id
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder, per_device_train_batch_size=len(rows), gradient_accumulation_steps=1,
                num_mini_batches=1, num_ppo_epochs=1, total_episodes=len(rows) * int(steps), response_length=TOKENS,
                stop_token="eos", local_rollout_forward_batch_size=len(rows), learning_rate=1e-4, kl_coef=0.02,
                temperature=1.0, num_sample_generations=0, gradient_checkpointing=False, bf16=dtype is torch.bfloat16,
                use_cpu=True, save_strategy="no", report_to="none",
            ),
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(base, dtype=dtype),
            ref_model=None,
            reward_model=LlamaForSequenceClassification(small).to(dtype),
            value_model=value_model,
            train_dataset=Dataset.from_dict({"input_ids": copy.deepcopy(rows)}),
            eval_dataset=Dataset.from_dict({"input_ids": rows}),
            peft_config=LoraConfig(
                r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"
            ),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    Path(out).write_text(json.dumps(clock.noted))


if __name__ == "__main__":
    main()
