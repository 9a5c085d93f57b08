"""What pareto.json holds: every figure of a report, for programs and for the page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rsoup.evaluation.results import Kind, Record
from rsoup.recipe import Direction

SCHEMA: Literal[1] = 1

Interval = tuple[float, float]
Verdict = Literal["holds", "holds within error", "fails", "unknown"]
Rule = Literal["lambda = mu", "validation", "at least", "at most", "bounds", "knee", "choices"]


class Estimate(Record):
    """A figure with its standard error, if known, and its 95 % interval, None where no single scores are known."""

    value: float
    stderr: float | None = None
    interval: Interval | None = None


class ScoreEstimate(Record):
    """A mean score with its standard error, number of scores and 95 % interval."""

    mean: float
    stderr: float | None
    n: int | None = Field(description="scores behind the mean, None if the input does not say")
    interval: Interval | None


class ReportPoint(Record):
    """One model: its scores and whether another beats it."""

    id: str
    kind: Kind
    weights: dict[str, float]
    lam: Annotated[float | None, Field(alias="lambda")]
    mu: dict[str, float] | None
    scores: dict[str, ScoreEstimate]
    measures: dict[str, float] = Field(default={}, description="means of what was measured beside the rewards")
    on_front: bool
    front_probability: float | None
    dominated_by: str | None


class Volume(Record):
    """The front of one kind of points; area, sparsity and spacing are of rewards scaled over every point.

    The volume lies between the points and the reference point, which has the rewards' own sign.
    """

    value: float
    stderr: float | None
    interval: Interval | None
    reference_point: dict[str, float]
    points: list[str]
    area_over_curve: float
    sparsity: float | None
    spacing: float | None


class Gap(Record):
    """How far a mix lies above (or, negative, below) the line between its experts on one reward.

    Above is better, but worse where the reward is minimised.
    """

    id: str
    lam: Annotated[float | None, Field(alias="lambda")]
    weights: dict[str, float]
    gap: float
    stderr: float | None
    interval: Interval | None
    exceeds_stderr: bool = Field(
        description="the mix is worse than the line by more than the standard error, or 0 if unknown"
    )


class Lmc(Record):
    """The gaps of one reward; the worst is taken over real mixes, as the gap of an expert is 0."""

    gaps: list[Gap]
    minimum: Gap | None = Field(description="the worst gap: the smallest, or if the reward is minimised the largest")
    shortfall: Gap | None = Field(description="the worst gap if a mix is worse than the line, beyond chance if any is")
    verdict: Verdict


class Hypothesis(Record):
    """A claim of the paper, the verdict of these points on it, and why, in plain words."""

    claim: str
    verdict: Verdict
    words: str


class MorlRun(Record):
    """A MORL run against the soup that serves its preference best."""

    id: str
    mu: dict[str, float] | None
    best_soup: str | None
    difference: Estimate | None = Field(
        description="mu . R of the best soup minus that of the run, minimised rewards negative"
    )
    verdict: Verdict = Field(description="whether a soup does as well, judged for all runs at once")
    dominated_by: list[str]
    dominates: list[str]
    dominated_probability: float | None


class Against(Record):
    """One front against another; epsilon and coverage on scaled rewards."""

    hypervolume_ratio: Estimate | None
    epsilon_soup_covers_morl: float
    epsilon_morl_covers_soup: float
    coverage_of_morl_by_soup: float
    coverage_of_soup_by_morl: float


class Comparison(Against):
    """The soups' front, experts included, against MORL's, whose corners are the experts too.

    ``runs_alone`` has the same figures for the MORL runs without the experts. ``trainings`` counts those of the soups,
    the MORL runs, and the corners that both fronts share.
    """

    runs_alone: Against
    corners: list[str]
    trainings: dict[str, int]
    runs: list[MorlRun]


class Cost(Record):
    """What the trainings of a front took together, on average over seeds; tokens are those of sampled completions."""

    optimizer_steps: float
    tokens: float
    seconds: float | None = Field(description="None where timing.json does not tell them")


class FrontAtCost(Record):
    """A front, what it took to train, and how much it dominates; measuring and choosing points is not counted."""

    name: str
    points: list[str]
    trainings: list[str]
    cost: Cost | None = Field(description="None where an adapter does not tell what its training took")
    passes: int = Field(description="of the model, for each token that a point of it writes")
    hypervolume: Estimate
    soups_lead: Estimate | None = Field(description="the soups' hypervolume minus this one, paired")


class Choice(Record):
    """A model chosen by a rule, and the command that makes it."""

    rule: Rule
    asked: dict[str, float]
    weights: dict[str, float]
    lam: Annotated[float | None, Field(alias="lambda")]
    nearest: str = Field(description="the measured point whose scores are given")
    scores: dict[str, ScoreEstimate]
    regret: Estimate | None
    probability: float | None = Field(
        default=None, description="of meeting the bounds asked for, or of being near the best mix for the choices made"
    )
    intervals: dict[str, Interval] | None = Field(default=None, description="of the preference read from choices")
    folder: str = Field(description="the name the command gives the model")
    command: str
    words: str


class Check(Record):
    """How a condition of ``--fail-if`` turned out, read of a point or of the whole front."""

    condition: str
    failed: bool
    point: str | None
    value: float
    interval: Interval | None
    clear: bool | None = Field(description="whether the interval does not reach over the limit")
    words: str


class Preference(Record):
    """The measured point with the largest mu . R, where minimised rewards count negatively."""

    mu: dict[str, float]
    id: str
    weights: dict[str, float]
    lam: Annotated[float | None, Field(alias="lambda")]


class Bootstrap(Record):
    """How intervals were made."""

    draws: int
    seed: int
    level: float
    prompts: int
    seeds: int


class Made(Record):
    """A file the report was made from."""

    path: str
    sha256: str
    about: dict[str, Any]


class Report(Record):
    """Everything ``rsoup pareto`` found."""

    schema_number: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    rewards: list[str]
    directions: dict[str, Direction] = Field(description="which way each reward is better; scores keep their sign")
    points: list[ReportPoint]
    front: list[str]
    reference_rule: str
    hypervolume: dict[str, Volume]
    mean_inner_product: float | None = Field(description="of weights and scores, minimised ones negative")
    controllability: dict[str, float | None] = Field(description="1: more of its expert always makes a reward better")
    comparison: Comparison | None
    fronts: list[FrontAtCost] = Field(default=[], description="the soups' first; none where it is the only one")
    lmc: dict[str, Lmc]
    hypotheses: dict[str, Hypothesis]
    preferences: list[Preference]
    choices: list[Choice]
    checks: list[Check] = Field(default=[], description="what --fail-if asked for")
    experts: dict[str, str] = Field(description="reward -> name of the adapter trained on it")
    adapters: dict[str, str] = Field(description="name -> folder")
    starts: dict[str, str] = Field({}, description="name -> SHA-256 of the adapter that its training began at")
    method: str | None
    bootstrap: Bootstrap | None
    notes: list[str]
    made_from: list[Made]
    rsoup: str

    @property
    def minimized(self) -> frozenset[str]:
        """The rewards of which lower scores are better."""
        return frozenset(name for name, way in self.directions.items() if way == "minimize")

    def better(self, name: str) -> str:
        """Say which way a reward is better; nothing where larger is better for all."""
        if not self.minimized:
            return ""
        return "lower is better" if name in self.minimized else "higher is better"

    def point(self, point_id: str) -> ReportPoint:
        """Return the point of that id."""
        return next(point for point in self.points if point.id == point_id)
