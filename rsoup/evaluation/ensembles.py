"""The baselines that mix what models say instead of their weights: N passes for each token instead of one.

``ensemble`` averages the experts' next-token distributions. ``mod`` averages their logits: for policies tuned against
a KL penalty from one start that is the optimum of the weighted rewards (Shi et al. 2024, arXiv 2406.18853).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from rsoup.models.language_model import LanguageModel

Rule = Literal["ensemble", "mod"]


@dataclass(frozen=True)
class Ensemble(LanguageModel):
    """N models that share a base as one: its hidden state is theirs side by side, (..., N * d).

    Each of its rows is N rows of the base, the first model's before the second's; ``applying.side_by_side`` makes
    them differ.
    """

    rule: Rule = "ensemble"
    weights: tuple[float, ...] = ()

    def cache_rows(self, rows: Tensor, count: int) -> Tensor:
        """Return the rows of each model."""
        return torch.cat([rows + index * count for index in range(len(self.weights))])

    def hidden_states(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """Return every model's last hidden states side by side. (B, L) -> (B, L, N * d)."""
        ids, mask, positions = (
            torch.cat([tensor] * len(self.weights)) for tensor in (ids, mask, positions.expand(len(ids), -1))
        )
        return torch.cat(super().hidden_states(ids, mask, positions, cache).chunk(len(self.weights)), dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the mixed distribution. (n, N * d) -> (n, V)."""
        each = super().logits(torch.cat(hidden.chunk(len(self.weights), dim=-1))).float()
        logits = torch.stack(each.chunk(len(self.weights)))  # (N, n, V)
        weights = torch.tensor(self.weights, device=logits.device)[:, None, None]
        if self.rule == "mod":
            return (weights * logits).sum(0)
        return (logits.log_softmax(-1) + weights.log()).logsumexp(0)


def ensemble_of(model: LanguageModel, rule: Rule, weights: tuple[float, ...]) -> Ensemble:
    """Return N models on one base as a single one."""
    own = {field.name: getattr(model, field.name) for field in fields(LanguageModel)}
    return Ensemble(**own, rule=rule, weights=weights)
