"""How a reward model reads a post and a completion: a text, a pair of texts, or its own chat template."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rsoup.errors import RewardError, first_line
from rsoup.recipe import RewardSection
from rsoup.rewards import CHAT, DEFAULT_TEMPLATE, JUDGES, PAIR, TEXT
from rsoup.rewards.samples import Sample
from rsoup.rewards.tokens import (
    added_tokens,
    joins_pairs,
    named_tokens,
    offered_tokens,
    runs_together,
    stand_in,
    without,
)
from rsoup.tasks.given import tools_of
from rsoup.tasks.prompts import parts_of, spells_parts

PROBES = (
    Sample("Is it?", "Yes."),
    Sample("What is the kettle like, and does it boil?", "It boils fast, but it leaks."),
)
"""Two samples of different lengths to try a model on."""


@dataclass(frozen=True)
class Encoded:
    """What a model reads of a sample: tokens, their segments (None: the model has none).

    ``cut`` is the number of tokens that were left out, ``left_out`` says of what.
    """

    texts: tuple[str, ...]
    ids: tuple[int, ...]
    segments: tuple[int, ...] | None
    cut: int = 0
    left_out: str = ""

    @property
    def inputs(self) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """What decides the model's output."""
        return self.ids, self.segments


class Reading(ABC):
    """A way to read samples with a tokenizer, in at most ``limit`` tokens."""

    told: str
    """What is said of it after "reads"."""
    asked = "the post"
    """What comes before the completion."""

    def __init__(self, what: str, tokenizer: Any, limit: int) -> None:
        self._what, self._tokenizer, self._limit = what, tokenizer, limit

    @abstractmethod
    def texts(self, sample: Sample) -> tuple[str, ...]:
        """Return the text, or the two, that a sample is."""

    def encode(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Return what the model reads of each sample. What does not fit is cut off the post, then the completion."""
        texts = [self.texts(sample) for sample in samples]
        rows = self._tokens(texts)
        for number, sample in enumerate(samples):
            if len(rows[number].ids) > self._limit:
                rows[number] = self._shortened(sample, rows[number])
        return rows

    @abstractmethod
    def _tokens(self, texts: Sequence[tuple[str, ...]]) -> list[Encoded]: ...

    @abstractmethod
    def _shortened(self, sample: Sample, whole: Encoded) -> Encoded: ...

    def _call(self, texts: list[str], pairs: list[str] | None = None, **options: Any) -> list[tuple[list[int], Any]]:
        """Return the ids and the segments that the tokenizer makes; of a text without tokens, a special token."""
        encoded = self._tokenizer(texts, pairs, verbose=False, **options)
        segments = encoded.get("token_type_ids") or [None] * len(texts)
        return [
            (ids, own) if ids else ([stand_in(self._tokenizer)], None if own is None else [0])
            for ids, own in zip(encoded["input_ids"], segments, strict=True)
        ]

    def _fit(self, whole: Encoded, parts: list[str], front: Sequence[bool], read: Callable[[], Encoded]) -> Encoded:
        """Shorten ``parts`` in place, one after the other, until what ``read`` makes of them fits.

        The last one is the completion; ``front`` tells of which of them the beginning is given up.
        """
        found, before = whole, list(parts)
        for number, text in enumerate(before):
            count = 0
            while parts[number] and len(found.ids) > self._limit:
                count += len(found.ids) - self._limit
                parts[number] = without(self._tokenizer, text, count, front=front[number])
                found = read()
        if len(found.ids) > self._limit:
            raise RewardError(
                f"{self._what} reads {self._limit} tokens, and an empty post and completion already make "
                f"{len(found.ids)}.",
                "Raise max_tokens, or shorten template.",
            )
        shorter = [one != other for one, other in zip(before, parts, strict=True)]
        names = [self.asked] * any(shorter[:-1]) + ["the completion"] * shorter[-1]
        return replace(found, cut=len(whole.ids) - len(found.ids), left_out=f"of {' and '.join(names)}")


class TextReading(Reading):
    """The recipe's template as one text. A special token at an end of it that the tokenizer adds too counts once."""

    told = "one text, made by the template"

    def __init__(self, what: str, tokenizer: Any, limit: int, template: str, *, verbatim: bool) -> None:
        super().__init__(what, tokenizer, limit)
        self._template, self._special = template, _special_tokens(what, template, tokenizer)
        self._before, self._after = ([], []) if verbatim else added_tokens(tokenizer)
        post = template.find("{post}")
        self._post_first = -1 < post < template.find("{completion}")

    def texts(self, sample: Sample) -> tuple[str, ...]:
        """Return the template, filled in once."""
        fields = {**self._special, "post": sample.post, "completion": sample.completion}
        return (re.sub(r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), self._template),)

    def _tokens(self, texts: Sequence[tuple[str, ...]]) -> list[Encoded]:
        rows = zip(texts, self._call([text for (text,) in texts]), strict=True)
        return [self._once(text, *row) for text, row in rows]

    def _once(self, texts: tuple[str, ...], ids: list[int], segments: list[int] | None) -> Encoded:
        """Drop a first or last special token of the text that the tokenizer added again."""
        first, last = len(self._before), len(ids) - len(self._after) - 1
        drop = set[int]()
        if last >= first and self._before and ids[first] == self._before[-1]:
            drop.add(first)
        if last > first and self._after and ids[last] == self._after[0]:
            drop.add(last)
        kept = [index for index in range(len(ids)) if index not in drop]
        own = None if segments is None else tuple(segments[index] for index in kept)
        return Encoded(texts, tuple(ids[index] for index in kept), own)

    def _shortened(self, sample: Sample, whole: Encoded) -> Encoded:
        parts = [sample.post, sample.completion]
        return self._fit(
            whole, parts, [self._post_first, False], lambda: self._tokens([self.texts(Sample(parts[0], parts[1]))])[0]
        )


class PairReading(Reading):
    """The post and the completion as the tokenizer joins two texts, with the segments that it gives them."""

    told = "the post and the completion as a pair of texts"

    def texts(self, sample: Sample) -> tuple[str, ...]:
        """Return the post and the completion."""
        return sample.post, sample.completion

    def _tokens(self, texts: Sequence[tuple[str, ...]], **options: Any) -> list[Encoded]:
        posts, completions = [post for post, _ in texts], [completion for _, completion in texts]
        rows = zip(texts, self._call(posts, completions, **options), strict=True)
        return [
            Encoded(text, tuple(ids), None if segments is None else tuple(segments)) for text, (ids, segments) in rows
        ]

    def _shortened(self, sample: Sample, whole: Encoded) -> Encoded:
        excess = len(whole.ids) - self._limit
        post = self._call([sample.post], add_special_tokens=False)[0][0]
        if sample.post and excess < len(post):
            texts = (sample.post, sample.completion)
            found = self._tokens([texts], truncation="only_first", max_length=self._limit)[0]
            return replace(found, cut=excess, left_out=f"of {self.asked}")
        parts = [sample.post, sample.completion]
        return self._fit(whole, parts, [False, False], lambda: self._tokens([(parts[0], parts[1])])[0])


class ChatReading(Reading):
    """The conversation through the model's own chat template, which writes all special tokens."""

    told = "its own chat template"
    asked = "the earlier turns"

    def __init__(self, what: str, tokenizer: Any, limit: int) -> None:
        super().__init__(what, tokenizer, limit)
        self._in_parts = False
        probe = PROBES[1]
        if not _has(self.texts(probe)[0], probe):
            self._in_parts = True
            text = self.texts(probe)[0]
            if not _has(text, probe) or spells_parts(text, (probe.post, probe.completion)):
                raise RewardError(
                    f"{what}: its chat template leaves out what the user or the assistant says.",
                    "Set template to the text that it was trained on.",
                )

    def texts(self, sample: Sample) -> tuple[str, ...]:
        """Return the conversation as the chat template writes it."""
        messages = _messages(sample)
        return (self._render(messages, [message.get("content") for message in messages], tools_of(sample.columns)),)

    def _render(self, messages: Sequence[Mapping[str, Any]], contents: Sequence[Any], tools: list[Any] | None) -> str:
        turns = [
            {**message, "content": self._content(content)} for message, content in zip(messages, contents, strict=True)
        ]
        try:
            text: str = self._tokenizer.apply_chat_template(
                turns, tools=tools, tokenize=False, add_generation_prompt=False
            )
        except Exception as problem:  # whatever a template raises
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise RewardError(
                f"{self._what}: its chat template cannot write the turns {roles}: {first_line(problem)}.",
                "Set template to the text that it was trained on.",
            ) from problem
        return text

    def _content(self, content: Any) -> Any:
        return parts_of(content) if self._in_parts and isinstance(content, str) else content

    def _tokens(self, texts: Sequence[tuple[str, ...]]) -> list[Encoded]:
        rows = zip(texts, self._call([text for (text,) in texts], add_special_tokens=False), strict=True)
        return [
            Encoded(text, tuple(ids), None if segments is None else tuple(segments)) for text, (ids, segments) in rows
        ]

    def _shortened(self, sample: Sample, whole: Encoded) -> Encoded:
        """Give up the beginnings of the oldest turns, but not of the system's, then the completion's end."""
        messages = _messages(sample)
        contents = [message.get("content") for message in messages]
        may = [number for number, own in enumerate(messages) if own.get("role") != "system"]
        may = [number for number in may if isinstance(contents[number], str)]
        parts = [str(contents[number]) for number in may]

        def read() -> Encoded:
            for number, text in zip(may, parts, strict=True):
                contents[number] = text
            return self._tokens([(self._render(messages, contents, tools_of(sample.columns)),)])[0]

        return self._fit(whole, parts, [True] * (len(parts) - 1) + [False], read)


def _messages(sample: Sample) -> list[Mapping[str, Any]]:
    """Return the conversation that a sample ends."""
    asked = sample.messages or ({"role": "user", "content": sample.post},)
    return [*asked, {"role": "assistant", "content": sample.completion}]


def _has(text: str, sample: Sample) -> bool:
    return sample.post in text and sample.completion in text


def choose_reading(what: str, section: RewardSection, tokenizer: Any, config: Any, limit: int) -> Reading:
    """Return the way that the recipe names, else the model's own.

    That is its chat template if it has one; a pair if its tokenizer joins two texts by marks or segments of its own;
    else the default template.
    """
    template, chat = section.template, bool(getattr(tokenizer, "chat_template", None))
    if template == CHAT and not chat:
        raise RewardError(
            f"{what} has no chat template.", "Leave template out, or set it to the text it was trained on."
        )
    if template == PAIR and runs_together(tokenizer):
        raise RewardError(
            f"{what}: its tokenizer puts nothing between two texts.", "Set template to the text it was trained on."
        )
    if template == CHAT or (template is None and chat):
        return ChatReading(what, tokenizer, limit)
    if template == PAIR or (template is None and joins_pairs(tokenizer, config)):
        return PairReading(what, tokenizer, limit)
    if template is None and getattr(tokenizer, "sep_token", None) is None:
        raise RewardError(
            f"{what} does not say how it reads a post and a completion: its tokenizer has neither a chat template nor "
            "a sep token.",
            f"Set template to the text it was trained on; its tokenizer has {offered_tokens(tokenizer)}.",
        )
    known = JUDGES.get(section.model or "")
    verbatim = known is not None and template in {known.template, *known.templates.values()}
    text = DEFAULT_TEMPLATE if template in (None, TEXT) else template
    return TextReading(what, tokenizer, limit, text, verbatim=verbatim)


def _special_tokens(what: str, template: str, tokenizer: Any) -> dict[str, str]:
    """Return the special tokens that a template may fill in; RewardError if it names one that the model lacks."""
    tokens = named_tokens(tokenizer)
    for key in ("bos", "eos", "sep", "cls"):
        if key not in tokens and f"{{{key}}}" in template:
            raise RewardError(
                f"{what} reads the template {template!r}, and its tokenizer has no {key} token.",
                f"Set template to the text it was trained on; its tokenizer has {offered_tokens(tokenizer)}.",
            )
    return tokens
