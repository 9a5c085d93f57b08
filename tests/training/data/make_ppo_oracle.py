"""Note what TRL's own PPO computes on a small batch, for the tests to compare rsoup's formulas with.

    python -m venv one && one/bin/pip install torch==2.13.0 trl==0.4.7 transformers==4.30.2 accelerate==0.20.3 \
        datasets==2.14.6 peft==0.3.0 "pyarrow<15" "numpy<2" "setuptools<70"
    one/bin/python tests/training/data/make_ppo_oracle.py         # writes ppo_trl_0.4.7.json beside this file
    python -m venv two && two/bin/pip install torch==2.13.0 trl==1.12.0 transformers==5.23.0 accelerate==1.15.0
    two/bin/python tests/training/data/make_ppo_oracle.py         # writes ppo_trl_1.12.0.json

0.4.7 is of the paper's time. Its formulas are methods (``PPOTrainer.compute_rewards``, ``PPOTrainer.loss``) and a
class (``AdaptiveKLController``); they are called on random tensors with completions of unequal length, with a
stand-in for the trainer that holds the settings they read. In 1.12.0 the formulas stand in the middle of
``PPOTrainer.train``: one whole round of it is run on random two-layer models whose completions end at different
lengths, and the functions it calls on the way (``get_reward``, ``selective_log_softmax``, ``forward``,
``masked_whiten``, ``masked_mean``) are wrapped by ones that note what goes in and out. Nothing is computed here.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import trl
from torch import Tensor

SETTINGS = {"gamma": 0.9, "lam": 0.8, "cliprange": 0.1, "cliprange_value": 0.05, "vf_coef": 0.1}
KL_COEF = 0.15


def from_methods() -> dict[str, Any]:
    """Return what the methods of trl 0.4 give on random tensors."""
    from trl.trainer.ppo_trainer import AdaptiveKLController, PPOTrainer

    torch.manual_seed(0)
    lengths = torch.tensor([8, 5, 1, 7, 3, 8])
    mask = (torch.arange(8) < lengths[:, None]).long()
    logprobs, scores = -torch.rand(6, 8) * 4, torch.randn(6)
    ref_logprobs, new_logprobs = logprobs + 0.3 * torch.randn(6, 8), logprobs + 0.15 * torch.randn(6, 8)
    values = torch.randn(6, 8)
    new_values = values + 0.1 * torch.randn(6, 8)
    config = SimpleNamespace(**SETTINGS, kl_penalty="kl", ratio_threshold=10.0)
    trainer = SimpleNamespace(config=config, kl_ctl=SimpleNamespace(value=KL_COEF))
    trainer._kl_penalty = lambda *args: PPOTrainer._kl_penalty(trainer, *args)
    rewards, _ = PPOTrainer.compute_rewards(trainer, scores, logprobs, ref_logprobs, mask)
    _, _, stats = PPOTrainer.loss(
        trainer, logprobs, values, rewards, torch.zeros(6, 8, 2), new_values, new_logprobs, mask
    )
    controller = AdaptiveKLController(init_kl_coef=0.2, target=6.0, horizon=10000)
    kls, coefficients = [0.0, 3.0, 6.6, 7.5, 20.0, -4.0], []
    for kl in kls:
        controller.update(kl, 128)
        coefficients.append(float(controller.value))
    inputs = {"mask": mask, "logprobs": logprobs, "ref_logprobs": ref_logprobs, "scores": scores, "values": values}
    update = {"new_logprobs": new_logprobs, "new_values": new_values}
    outputs = {
        "rewards": rewards,
        "whitened_advantages": stats["policy/advantages"],
        "policy_loss": stats["loss/policy"],
        "value_loss": stats["loss/value"],
        "total_loss": stats["loss/total"],
        "clipped": stats["policy/clipfrac"],
        "clipped_value": stats["val/clipfrac"],
    }
    controlled = {"first": 0.2, "target": 6.0, "horizon": 10000, "completions": 128, "kls": kls, "then": coefficients}
    return {"inputs": inputs, "update": update, "outputs": outputs, "controller": controlled}


class Notes:
    """Wraps functions of a module and keeps what they were given and gave."""

    def __init__(self, module: Any) -> None:
        self.calls: dict[str, list[tuple[tuple[Any, ...], Any]]] = {}
        self._module = module
        self._inside = False

    def take(self, name: str) -> None:
        """Note calls of a function, but not those that another noted function makes."""
        plain, calls = getattr(self._module, name), self.calls.setdefault(name, [])

        def noted(*args: Any, **options: Any) -> Any:
            outermost, self._inside = not self._inside, True
            try:
                result = plain(*args, **options)
            finally:
                self._inside = not outermost
            if outermost:
                calls.append((args, result))
            return result

        setattr(self._module, name, noted)


def from_training() -> dict[str, Any]:
    """Return what one round of training by trl 1.12 gave."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", *"abcdefgh"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")), pad_token="<pad>", eos_token="<eos>"
    )
    tokenizer.padding_side = "left"

    def shape(seed: int) -> LlamaConfig:
        torch.manual_seed(seed)
        return LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0, eos_token_id=1, bos_token_id=None,
            initializer_range=0.4, num_labels=1,
        )  # fmt: skip

    policy, reference = LlamaForCausalLM(shape(0)), LlamaForCausalLM(shape(1))
    value_model, reward_model = LlamaForSequenceClassification(shape(2)), LlamaForSequenceClassification(shape(3))
    prompts = torch.randint(2, len(tokenizer), (8, 4), generator=torch.Generator().manual_seed(0))
    rows = Dataset.from_dict({"input_ids": prompts.tolist()})
    notes = Notes(ppo_trainer)
    for name in ("get_reward", "selective_log_softmax", "forward", "masked_whiten", "masked_mean"):
        notes.take(name)
    orders: list[np.ndarray] = []
    permutation = np.random.permutation
    np.random.permutation = lambda count: orders.append(permutation(count)) or orders[-1]  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder, per_device_train_batch_size=8, gradient_accumulation_steps=1, num_mini_batches=2,
            num_ppo_epochs=2, total_episodes=8, response_length=6, stop_token="eos", local_rollout_forward_batch_size=8,
            learning_rate=0.01, kl_coef=KL_COEF, temperature=0.9, num_sample_generations=0, bf16=False, use_cpu=True,
            report_to="none", gradient_checkpointing=False, save_strategy="no", seed=0, **SETTINGS,
        )  # fmt: skip
        trainer = PPOTrainer(
            args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward_model,
            value_model=value_model, train_dataset=rows, eval_dataset=rows,
        )  # fmt: skip
        trainer.train()
    told = _told(notes, orders, context=prompts.shape[1])
    logged = trainer.state.log_history[-1]
    return {**told, "logged": {name: float(logged[f"loss/{name}_avg"]) for name in ("policy", "value")}}


def _told(notes: Notes, orders: list[np.ndarray], context: int) -> dict[str, Any]:
    (_, (values, _, _)), (_, (_, scores, _)) = notes.calls["get_reward"]
    logprobs, ref_logprobs, *new_logprobs = [result for _, result in notes.calls["selective_log_softmax"]]
    ((advantages, mask), whitened) = notes.calls["masked_whiten"][0]
    new_values = [
        result[1][:, context - 1 : -1, 0] for _, result in notes.calls["forward"] if isinstance(result, tuple)
    ]
    means = notes.calls["masked_mean"]  # per step: value error, share clipped, policy loss, share clipped
    updates = []
    for number, rows in enumerate(row for order in orders for row in order.reshape(2, 4)):
        value_error, clipped_value, policy_loss, clipped = (result for _, result in means[4 * number : 4 * number + 4])
        updates.append(
            {
                "rows": torch.tensor(rows),
                "value_mask": means[4 * number][0][1].long(),
                "new_logprobs": new_logprobs[number],
                "new_values": new_values[number],
                "policy_loss": policy_loss,
                "value_error": value_error,
                "clipped": clipped,
                "clipped_value": clipped_value,
            }
        )
    inputs = {
        "mask": mask.long(),
        "logprobs": logprobs,
        "ref_logprobs": ref_logprobs,
        "scores": scores,
        "values": values[:, context - 1 : -1, 0],
    }
    return {
        "inputs": inputs,
        "outputs": {"advantages": advantages, "whitened_advantages": whitened},
        "updates": updates,
    }


def plain(content: Any) -> Any:
    """Turn tensors into lists."""
    if isinstance(content, Tensor):
        return content.detach().tolist()
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    return [plain(value) for value in content] if isinstance(content, list) else content


def main() -> None:
    """Write the file for the TRL that is installed."""
    found = from_methods() if trl.__version__.startswith("0.4") else from_training()
    content = {"trl": trl.__version__, "settings": {**SETTINGS, "kl_coef": KL_COEF}, **plain(found)}
    path = Path(__file__).with_name(f"ppo_trl_{trl.__version__}.json")
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
