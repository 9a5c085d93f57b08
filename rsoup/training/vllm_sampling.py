"""PPO's completions from a vLLM engine: it gets the present factors as a LoRA adapter, and only samples.

Log-probabilities are always those of our own forward pass. The engine's own, which come from other kernels and other
types, tell how far the two distributions are apart (``mismatch``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsoup.models.language_model import LanguageModel, masked_tokens
from rsoup.models.sampling import Completions
from rsoup.models.vllm import VllmEngine
from rsoup.recipe import GenerationSection, VllmSection
from rsoup.training.policy import Policy

MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""
SEEDS = 2**31


@dataclass(frozen=True)
class Place:
    """Where the base lies, for vLLM to read."""

    source: str
    revision: str | None


class VllmSampler:
    """Samples with a vLLM engine, which is started by the first call."""

    def __init__(
        self, place: Place, settings: VllmSection, generation: GenerationSection, *, longest: int, seed: int
    ) -> None:
        """Sample completions of prompts of up to ``longest`` tokens."""
        self._place, self._settings, self._generation = place, settings, generation
        self._length, self._seed = longest + generation.max_new_tokens, seed
        self._engine: VllmEngine | None = None

    def __call__(
        self, policy: Policy, prompt_ids: Tensor, prompt_mask: Tensor, uniforms: Tensor, lengths: Tensor | None
    ) -> tuple[Completions, Tensor]:
        """Complete prompts (P, L); return the completions and vLLM's log-probabilities of their tokens, (P, G, T).

        Each completion draws from a seed that follows from its first uniform number of (P, G, T); it ends after
        ``lengths`` (P, G) tokens, if they are given.
        """
        engine = self._started(policy)
        prompts = [row for row in masked_tokens(prompt_ids, prompt_mask) for _ in range(uniforms.shape[1])]
        seeds = (uniforms[..., 0].double() * SEEDS).long().flatten().tolist()
        limits = [self._generation.max_new_tokens] * len(prompts) if lengths is None else lengths.flatten().tolist()
        sampling = [self._params(policy.language_model, *own) for own in zip(seeds, limits, strict=True)]
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            policy.save(Path(folder))
            if self._settings.sleep:
                engine.llm.wake_up()
            outputs = [output.outputs[0] for output in engine.complete(prompts, sampling, Path(folder))]
            if self._settings.sleep:
                engine.llm.sleep(level=1)
        return gathered(outputs, policy.language_model, uniforms.shape[:2])

    def _started(self, policy: Policy) -> VllmEngine:
        if self._engine is None:
            model = policy.language_model.model
            self._engine = VllmEngine(
                self._place.source,
                self._place.revision,
                dtype=str(model.dtype).removeprefix("torch."),
                seed=self._seed,
                rank=policy.rank,
                max_model_len=self._length,
                gpu_memory_utilization=self._settings.memory,
                enable_sleep_mode=self._settings.sleep,
                generation_config="vllm",  # what the model's own settings add to sampling, no log-probability knows
                logprobs_mode="processed_logprobs",  # after the temperature
            )
        return self._engine

    def _params(self, model: LanguageModel, seed: int, limit: int) -> dict[str, Any]:
        stops = self._generation.stop_at_eos
        return {
            "temperature": self._generation.temperature,
            "max_tokens": limit,
            "seed": seed,
            "logprobs": 0,
            "ignore_eos": not stops,
            "stop_token_ids": model.stop_ids if stops else [],
            "detokenize": False,
        }


def gathered(outputs: Sequence[Any], model: LanguageModel, shape: Sequence[int]) -> tuple[Completions, Tensor]:
    """Return vLLM's outputs as completions (P, G, T) and the log-probabilities of their tokens; 0 beyond the end."""
    rows = [list(own.token_ids) for own in outputs]
    said = [[own.logprobs[at][token].logprob for at, token in enumerate(own.token_ids)] for own in outputs]
    longest, view = max(map(len, rows)), (*shape, -1)
    ids = torch.tensor([row + [model.pad_id] * (longest - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows], device=model.device)
    logprobs = torch.tensor([row + [0.0] * (longest - len(row)) for row in said], device=model.device)
    return Completions(ids.view(view), mask.view(view)), logprobs.view(view)


def mismatch(ours: Tensor, theirs: Tensor, mask: Tensor) -> dict[str, float]:
    """Return how far two models' log-probabilities of sampled tokens are apart. (P, G, T) each.

    ``gap`` is the mean of |log p_vllm - log p_ours|; the ratios are p_ours / p_vllm of tokens, whose mean is 1 if the
    engine samples from what it says (importance sampling), and the largest of which an unbiased gradient would weigh.
    """
    apart = (ours.detach().float() - theirs)[mask]
    ratios = apart.exp()
    return {
        "gap": float(apart.abs().mean()),
        "ratio_mean": float(ratios.mean()),
        "ratio_min": float(ratios.min()),
        "ratio_max": float(ratios.max()),
    }


@contextmanager
def lent_to_vllm(policy: Policy, place: Place) -> Iterator[None]:
    """Let TRL read, within the block, the base from its place and its weights with the factors merged in.

    TRL merges the factors in place and takes them out again, and narrow types would keep the rounding of each time.
    So it merges into copies of the weights, which live as long as they are merged.
    """
    peft, model = policy.peft, policy.language_model.model
    originals: list[tuple[nn.Parameter, Tensor]] = []
    merge, unmerge, name = peft.merge_adapter, peft.unmerge_adapter, model.name_or_path

    def merge_copies(*given: Any, **named: Any) -> None:
        for weight in policy.adapted_weights():
            originals.append((weight, weight.data))
            weight.data = weight.data.clone()
        merge(*given, **named)

    def unmerge_copies() -> None:
        unmerge()
        while originals:
            weight, data = originals.pop()
            weight.data = data

    peft.merge_adapter, peft.unmerge_adapter, model.name_or_path = merge_copies, unmerge_copies, place.source
    try:
        yield
    finally:
        del peft.merge_adapter, peft.unmerge_adapter
        model.name_or_path = name
