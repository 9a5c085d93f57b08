"""One side of the training benchmark as a process of its own: python training_sides.py SIDE STEPS OUT.json"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from work import DTYPE, KL_COEF, LEARNING_RATE, Clock, Work, base_folder, examples_for, make_policy, run_ppo

WORK = Work()


def rsoup(steps: int) -> list[dict[str, float]]:
    """Return what each step of rsoup's PPO took, and the mean length of its completions."""
    lines = run_ppo(make_policy(), examples_for(WORK), WORK, steps)
    return [{"seconds": line["seconds"], "cpu": line["cpu"], "tokens": line["completion_tokens"]} for line in lines]


def grpo(steps: int) -> list[dict[str, float]]:
    """Return the same of TRL's GRPOTrainer, as its documentation sets it up for a PEFT adapter."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    clock = Clock()
    lengths: list[float] = []

    def positive(completions: list[str], **_: Any) -> list[float]:
        return [analyzer.polarity_scores(completion)["compound"] for completion in completions]

    class Noted(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.note()

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                clock.note()
                lengths.append(logs["completions/mean_length"])

    rows = [example.prompt for example in examples_for(WORK)] * steps
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(base_folder(), dtype=getattr(torch, DTYPE)),
            processing_class=AutoTokenizer.from_pretrained(base_folder()),
            reward_funcs=positive,
            train_dataset=Dataset.from_dict({"prompt": rows}),
            peft_config=LoraConfig(
                r=WORK.rank,
                lora_alpha=2 * WORK.rank,
                target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                task_type="CAUSAL_LM",
            ),
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=WORK.samples,
                num_generations=WORK.group,
                max_completion_length=WORK.tokens,
                max_steps=steps,
                beta=KL_COEF,
                learning_rate=LEARNING_RATE,
                gradient_checkpointing=False,
                use_cpu=not torch.cuda.is_available(),
                bf16=DTYPE == "bfloat16",
                shuffle_dataset=False,
                dataloader_pin_memory=False,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            callbacks=[Noted()],
        )
        trainer.train()
    return [{**times, "tokens": length} for times, length in zip(clock.steps(), lengths, strict=True)]


def main() -> None:
    """Run a side and write what it noted."""
    import torch

    side, steps, out = sys.argv[1:]
    found = {"rsoup": rsoup, "grpo": grpo}[side](int(steps))
    if torch.cuda.is_available():
        found = [{**step, "gpu": torch.cuda.max_memory_allocated()} for step in found]
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
