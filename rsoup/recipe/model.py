"""The sections of the base model and of the adapter that is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rsoup.recipe.base import (
    Count,
    Positive,
    Section,
)


class LoraSection(Section):
    """The adapter that is trained (Hu et al., 2021); defaults are the paper's (Table 1)."""

    r: Count = 16
    """Rank."""
    alpha: Positive = 16
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input. The paper's code has 0.05; 0 keeps the first PPO ratio at exactly 1."""
    target_modules: list[str] | None = None
    """Names of the linear layers that get an adapter; none: q_proj, k_proj, v_proj and o_proj as in the paper, or where
    a model has none of these names all linear layers of its language model."""
    target_parameters: list[str] = []
    """Names of bare parameters that get an adapter, such as a layer's experts in one tensor
    (mlp.experts.gate_up_proj)."""


class ModelSection(Section):
    """The base model and where the adapters start."""

    base: str
    """A model bundled with an extra (smollm2-135m-instruct), a local folder, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights while training; auto is bfloat16 where the device computes in it, else float32."""
    quantization: Literal["8bit", "4bit"] | None = None
    """Load the base in 8 or 4 bits through bitsandbytes; the adapters stay in full precision."""
    placement: Literal["auto", "sharded", "spread"] = "auto"
    """Where the base lies: auto whole on the device of each process; sharded with its layers split over the processes
    of a launcher (FSDP2); spread with its layers over all GPUs of one process. Adapters and checkpoints are the same.
    Sharded was tried on CPUs, spread on one device; no machine with several GPUs was at hand."""
    lora: LoraSection = LoraSection()
    start: str | None = None
    """An adapter (folder or hub id) that training continues and that is the KL reference; none: a fresh one."""

    @model_validator(mode="after")
    def _splittable(self) -> ModelSection:
        if self.placement == "sharded" and self.quantization is not None:
            raise ValueError(
                f"placement sharded: FSDP2 splits tensors by rows, and those of {self.quantization} weights are packed "
                "with scales that belong to the whole\nSet placement to spread, or leave quantization out."
            )
        return self

    @model_validator(mode="after")
    def _lora_of_start(self) -> ModelSection:
        if self.start is not None and self.lora != LoraSection():
            raise ValueError("lora is that of the adapter start; leave the section out")
        return self
