"""Which way a reward is better, as far as its name tells: a guess that is only ever said, never acted on."""

from __future__ import annotations

import re

_LOWER = re.compile(
    r"loss(es)?|err(ors?)?|toxic(ity)?|ppl|perplexit(y|ies)|nll|entropy|r?mse|map?e|wer|cer|ece|fid|kl|divergence|bp[bc]"
    r"|bits|brier|regret|latency|costs?|harm(s|ful|fulness)?|hallucinat(ed|ions?)|violations?|unsafe|risk|failures?"
    r"|mistakes?|repetitions?|distance|offensive|insult|obscene|threat|profanity|hate(ful)?|spam"
)
"""Words for what there should be little of."""
_TURNED = re.compile(
    r"neg(ative|ated)?|minus|non?|not|anti|invers(e|ed)|inverted|less|free|without|reduc(tion|ed)|avoidance|robustness"
    r"|resistance|detect(ion|or|ed)|acc(uracy)?|auc|auroc|precision|recall|improvement|drop|gain|saved|savings|recovery"
)
"""Words beside them that may mean the opposite."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_OPPOSITE = re.compile(r"\s*-|.*\b1(\.0)?\s*-")


def sounds_lower(name: str) -> bool:
    """Tell whether the name of a score suggests that lower is better: ``toxicity``, but not ``neg_loss``."""
    words = [word.lower() for word in _WORD.findall(name)]
    turned = _OPPOSITE.match(name) or any(map(_TURNED.fullmatch, words))
    return any(map(_LOWER.fullmatch, words)) and not turned
