"""The work that trainings are timed on: reviews to summarise, SmolLM2, LoRA of rank 8, one reward."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from rsoup.models.bundled import bundled_folder  # noqa: E402
from rsoup.models.load import load_language_model, load_tokenizer, pick_device, pick_dtype  # noqa: E402
from rsoup.progress import Silent  # noqa: E402
from rsoup.recipe import (  # noqa: E402
    GenerationSection,
    LoraSection,
    PPOSection,
    RewardSection,
    TaskSection,
    TrainingSection,
)
from rsoup.rewards.scoring import make_scorer  # noqa: E402
from rsoup.tasks import resolve_task  # noqa: E402
from rsoup.tasks.loading import Example, load_examples  # noqa: E402
from rsoup.training.loop import Objective, train  # noqa: E402
from rsoup.training.policy import Policy, fresh_config  # noqa: E402
from rsoup.training.team import Team  # noqa: E402

BASE = "smollm2-135m-instruct"
DTYPE: Literal["bfloat16", "float32"] = (
    "bfloat16" if pick_dtype("auto", pick_device(), exact=False) is torch.bfloat16 else "float32"
)
"""Of the base on both sides: bfloat16 where this machine computes in it, as rsoup takes it; else it is emulated."""
KL_COEF = 0.02
LEARNING_RATE = 1e-4
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
SIZES = {
    "21M": (256, 704, 12, 4, 2),
    "135M": (576, 1536, 30, 9, 3),
    "360M": (960, 2560, 32, 15, 5),
    "1.1B": (2048, 5632, 22, 32, 4),
}
"""Shapes of models with random weights and the base's vocabulary, by their number of weights."""


@dataclass(frozen=True)
class Work:
    """A step: ``prompts`` of about ``prompt_tokens`` tokens with ``group`` completions of at most ``tokens`` each."""

    prompts: int = 8
    group: int = 8
    prompt_tokens: int = 80
    tokens: int = 20
    rank: int = 8
    stop_at_eos: bool = True

    @property
    def samples(self) -> int:
        """Completions of a step."""
        return self.prompts * self.group


def examples_for(work: Work) -> list[Example]:
    """Return reviews whose prompts have the length asked for, within two tokens, or else cuts of all of them."""
    tokenizer = load_tokenizer(BASE, None)
    rows = load_examples(resolve_task(TaskSection(name="reviews")), tokenizer, "train").rows
    near = [row for row in rows if abs(len(row.tokens) - work.prompt_tokens) <= 2]
    if len(near) >= work.prompts:
        return sorted(near, key=lambda row: (abs(len(row.tokens) - work.prompt_tokens), row.id))[: work.prompts]
    text = [token for row in rows for token in row.tokens]
    cut = [tuple(text[i * work.prompt_tokens : (i + 1) * work.prompt_tokens]) for i in range(work.prompts)]
    return [Example(str(i), "", tokenizer.decode(tokens), tokens) for i, tokens in enumerate(cut)]


def make_policy(base: str = BASE, rank: int = 8) -> Policy:
    """Load a base model with a fresh adapter."""
    model = load_language_model(base, revision=None, dtype=DTYPE)
    torch.manual_seed(0)
    policy = Policy(model, fresh_config(LoraSection(r=rank, alpha=2 * rank), model))
    policy.remember_start()
    return policy


def write_model(folder: Path, size: str) -> Path:
    """Write a model of a size with random weights, in bfloat16, and the base's tokenizer."""
    config = AutoConfig.from_pretrained(base_folder())
    for key, value in zip(SHAPE, SIZES[size], strict=True):
        setattr(config, key, value)
    config.head_dim = config.hidden_size // config.num_attention_heads
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / size)
    load_tokenizer(BASE, None).save_pretrained(folder / size)
    return folder / size


class Clock(Silent):
    """Notes the time on the wall and that of the processor at the start and after each step."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """Begin."""
        self.note()

    def advance(self, note: str = "") -> None:
        """Note a step."""
        self.note()

    def note(self) -> None:
        """Take both times."""
        self.times.append((time.perf_counter(), time.process_time()))

    def steps(self) -> list[dict[str, float]]:
        """Return what each step took."""
        return [
            {"seconds": end[0] - begin[0], "cpu": end[1] - begin[1]}
            for begin, end in zip(self.times, self.times[1:], strict=False)
        ]


def run_ppo(
    policy: Policy, examples: Sequence[Example], work: Work, steps: int, *, per_pass: int | None = None
) -> list[dict[str, Any]]:
    """Train with rsoup's PPO, one optimisation pass a step; return each step's metrics, seconds and processor time.

    Gradients are taken of ``per_pass`` prompts at a time.
    """
    training = TrainingSection(
        steps=steps,
        prompts_per_step=work.prompts,
        completions_per_prompt=work.group,
        learning_rate=LEARNING_RATE,
        checkpoint_every=1000,
        prompts_per_pass=per_pass,
        ppo=PPOSection(epochs=1, kl_coef=KL_COEF),
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        train(
            policy,
            examples,
            Objective({"positive": make_scorer("positive", RewardSection())}, {"positive": 1.0}),
            training,
            GenerationSection(max_new_tokens=work.tokens, stop_at_eos=work.stop_at_eos),
            seed=0,
            folder=Path(folder),
            fingerprint="",
            progress=clock,
            team=Team(),
        )
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{**line, **times} for line, times in zip(lines, clock.steps(), strict=True)]


def present_time() -> float:
    """Return the time that tells one program's speed: the processor's where one thread computes, else the wall's."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def base_folder() -> Path:
    """Return the folder of the base model, for code that does not know rsoup."""
    return Path(bundled_folder(BASE))


def product_rate(rows: int = 1024, inner: int = 576, columns: int = 1536, seconds: float = 1.0) -> float:
    """Return what a matrix product in DTYPE reaches on this machine now, in FLOP/s."""
    dtype = getattr(torch, DTYPE)
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    best, deadline = float("inf"), present_time() + seconds
    while present_time() < deadline:
        began = present_time()
        for _ in range(4):
            left @ right
        best = min(best, (present_time() - began) / 4)
    return 2 * rows * inner * columns / best
