"""What happens in a round of TRL's trainers: completions are scored, steps are counted, noted and kept."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from rsoup.models.language_model import LanguageModel
from rsoup.models.sampling import generator_for
from rsoup.progress import Progress
from rsoup.recipe import TrainingSection
from rsoup.rewards.functions import NO_TRAINING, TrainerState
from rsoup.rewards.logs import Log
from rsoup.rewards.samples import sample_of
from rsoup.rewards.scoring import mean_of, score_all
from rsoup.tasks.loading import Example
from rsoup.tasks.responses import read_responses, reads_after_thought, unfinished_thoughts
from rsoup.training.checkpoint import Checkpoint, Keep, TrainingState
from rsoup.training.loop import SHOW_EVERY, Objective
from rsoup.training.metrics import note, scored, shown, told, unfinished_share
from rsoup.training.policy import Policy
from rsoup.training.scores import Running, check_applies, objective_scores
from rsoup.training.team import Team
from rsoup.training.trl_settings import passes_per_step
from rsoup.training.update import diverged

RATIOS = ("mean", "min", "max")
"""What is said of importance ratios."""

Logs = Sequence[Mapping[str, float]]
"""What TRL logs of the optimiser steps of a round."""


@dataclass(frozen=True)
class Heard:
    """The completions of a round in this process: their texts, lengths in tokens, ends and scores, (n,) each.

    ``log`` has what rewards told beside scores.
    """

    posts: Sequence[str]
    texts: Sequence[str]
    lengths: np.ndarray
    ended: np.ndarray
    scores: Mapping[str, np.ndarray]
    log: Log
    unfinished: np.ndarray | None = None


class Judge:
    """Scores the completions of a round with every reward; ``running`` holds the statistics of all rounds.

    ``state`` says how far the training is.
    """

    def __init__(
        self,
        objective: Objective,
        training: TrainingSection,
        model: LanguageModel,
        examples: Sequence[Example],
        running: Mapping[str, Running],
        team: Team,
    ) -> None:
        self.running = dict(running)
        self.weights = objective.weights
        self.state = NO_TRAINING
        self.heard: Heard | None = None
        self._objective = objective
        self._training = training
        self._model = model
        self._examples = examples
        self._team = team

    def hear(self, rows: Sequence[int], ids: Sequence[Sequence[int]]) -> Heard:
        """Score completions of some examples and take them into the statistics; those heard before are forgotten."""
        examples = [self._examples[row] for row in rows]
        texts = read_responses(self._model.tokenizer, examples, ids)
        samples = [sample_of(*answer) for answer in zip(examples, texts, ids, strict=True)]
        log = Log()
        scores = score_all(self._objective.scorers, samples, self.state, log)
        for name, values in scores.items():
            self.running[name] = self.running.get(name, Running()).with_batch(self._team.gather(values))
        lengths = np.array([len(row) for row in ids])
        ended = np.array([row[-1] in self._model.stop_ids for row in ids])
        marks = unfinished_thoughts(self._model.tokenizer, examples, ids)
        unfinished = np.array(marks, dtype=np.float64) if reads_after_thought(examples) else None
        self.heard = Heard([sample.post for sample in samples], texts, lengths, ended, scores, log, unfinished)
        return self.heard

    def rewards(self, heard: Heard) -> np.ndarray:
        """Return what each completion earns, before the KL penalty, as with PPO: NaN where no reward applies."""
        objective = self._objective
        scores = objective_scores(heard.scores, objective.weights, self.running, self._training, objective.minimized)
        return np.asarray(scores - self._training.missing_eos_penalty * ~heard.ended)

    def objective_rewards(
        self, completion_ids: Sequence[Sequence[int]], row: Sequence[int], **_: Any
    ) -> list[float | None]:
        """Score completions as a reward function of TRL's, which gets their token ids and the columns of the data.

        A completion to which no reward applies has None: TRL then gives it the advantage 0.
        """
        rewards = self.rewards(self.hear(row, completion_ids))
        return [None if math.isnan(reward) else reward for reward in rewards.tolist()]

    def metrics(self, logs: Logs) -> dict[str, Any]:
        """Return what metrics.jsonl says of the last round; ``logs`` are those of its first pass.

        The KL divergence is TRL's estimate per token times the length of a completion: that of sampled tokens for
        RLOO, Schulman's (2020) for GRPO, none where the KL coefficient is 0.
        """
        assert self.heard is not None
        length = float(self._team.gather(self.heard.lengths).mean())
        kl = logged_mean(logs, "kl")
        scores = {name: self._team.gather(values) for name, values in self.heard.scores.items()}
        return {
            "scores": {name: mean_of(values) for name, values in scores.items()},
            "scored": {name: scored(values) for name, values in scores.items()},
            "sampled": len(self.heard.texts) * self._team.size,
            **told(self.heard.log, self._team),
            "kl": None if kl is None else kl * length,
            "entropy": logged_mean(logs, "entropy"),
            "completion_tokens": length,
            "ended_by_eos": float(self._team.gather(self.heard.ended.astype(np.float64)).mean()),
            **unfinished_share(self.heard.unfinished, self._team),
            **sampling_of(logs),
            "prompt": self.heard.posts[0],
            "completion": self.heard.texts[0],
            "reward": mean_of(self._team.gather(self.rewards(self.heard))),
        }


@dataclass(eq=False)
class Rounds(TrainerCallback):
    """Follows a trainer: seeds each round of sampling, and notes and keeps what its optimiser steps came to."""

    state: TrainingState
    judge: Judge
    policy: Policy
    optimizer: torch.optim.Optimizer
    training: TrainingSection
    seed: int
    team: Team
    progress: Progress
    log: Callable[[Mapping[str, Any]], None]
    keep: Keep
    after_step: Callable[[TrainingState], None]
    _logs: list[Mapping[str, float]] = field(default_factory=list)
    _began: float = 0.0

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Begin a round, if the one before is done."""
        if state.global_step % passes_per_step(self.training) == 0:
            self._logs.clear()
            self._began = time.perf_counter()
            self.judge.state = TrainerState(self.state.step, self.training.steps)
            purpose = "sampling" if self.team.leads else f"sampling/{self.team.rank}"
            torch.manual_seed(generator_for(self.seed, purpose, self.state.step).initial_seed())

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """Take the logs of an optimiser step, and end the round if it was the last one."""
        if "loss" not in logs:  # the summary at the end
            return
        if not math.isfinite(logs["grad_norm"]):
            raise diverged()
        self._logs.append(logs)
        if len(self._logs) == passes_per_step(self.training):
            self._end_round()

    def _end_round(self) -> None:
        check_applies(self.judge.running, self.judge.weights, self.state.step + 1, self.training.steps)
        metrics = self.judge.metrics(self._logs[: self.training.ppo.mini_batches])
        losses = {"policy": "loss", "clipped": "clip_ratio/region_mean", "grad_norm": "grad_norm"}
        figures = {name: logged_mean(self._logs, key) for name, key in losses.items()}
        seconds = time.perf_counter() - self._began
        step = self.state.step + 1
        self.state = replace(
            self.state, step=step, seconds=self.state.seconds + seconds, running=dict(self.judge.running)
        )
        total = round(self.state.seconds, 3)
        self.log({"step": step, **metrics, "kl_coef": self.state.kl_coef, **figures, "seconds": total})
        due = step % self.training.checkpoint_every == 0 or step == self.training.steps
        self.after_step(self.state)  # before the checkpoint: a step that is done is whole
        self.keep(Checkpoint.of(self.state, self.policy, self.optimizer), save=due)
        samples = self.training.prompts_per_step * self.training.completions_per_prompt
        self.progress.advance(note(metrics, metrics["completion_tokens"] * samples / seconds))
        if (step - 1) % SHOW_EVERY == 0 and self.judge.heard is not None:
            self.progress.say(shown(step, self.judge.heard.texts[0], self.judge.heard.scores))


def sampling_of(logs: Logs) -> dict[str, Any]:
    """Return what TRL's GRPO says of the log-probabilities of vLLM and ours, under the names of PPO's."""
    ratio = "sampling/importance_sampling_ratio"
    keys = {"gap": "sampling/sampling_logp_difference/mean", **{f"ratio_{own}": f"{ratio}/{own}" for own in RATIOS}}
    found = {name: value for name, key in keys.items() if (value := logged_mean(logs, key)) is not None}
    return {"sampling": found} if found else {}


def logged_mean(logs: Logs, key: str) -> float | None:
    """Return the mean of a figure over the logs that have it."""
    values = [log[key] for log in logs if key in log]
    return statistics.fmean(values) if values else None
