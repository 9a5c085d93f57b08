"""The resident model as lm-eval asks it: its own way of tokenizing, batching, decoding and stopping, on our weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from rsoup.errors import ModelError
from rsoup.evaluation.answers import Answers, key_of
from rsoup.evaluation.memory import SHARE, automatic_batch_size, bytes_per_prompt, free_bytes, is_out_of_memory
from rsoup.models.language_model import LanguageModel
from rsoup.recipe import LmEvalSection

LOGITS = 3
"""Copies of the logits of all tokens of a batch that lm-eval has at the same time."""

Document = tuple[str | None, Hashable]


class _Taking:
    """Takes each answer as it is found (lm-eval's cache hook)."""

    def __init__(self, take: Callable[[str, Sequence[Any], Any], None]) -> None:
        self._take = take

    def add_partial(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        self._take(kind, arguments, answer)


class ResidentLM(HFLM):
    """lm-eval's model of transformers around a resident one, which has to be the base while this is made.

    It reads its ``tokenizer`` (a folder or a hub id) as lm-eval does. What it answers is what the resident model is at
    the time. ``on_documents`` is told how many have all their answers,
    and how many of these had them before.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: str,
        revision: str | None,
        settings: LmEvalSection,
        say: Callable[[str], None],
        on_documents: Callable[[int, int], None],
    ) -> None:
        super().__init__(
            pretrained=model.model,
            backend="causal",
            tokenizer=tokenizer,
            revision=revision or "main",
            trust_remote_code=False,
            batch_size=1,
        )
        self._resident, self._settings, self._say, self._on_documents = model, settings, say, on_documents
        self._most: int | None = None  # requests at once, after memory has run out
        self._answers: Answers | None = None
        self._asked: dict[str, list[Document]] = {}
        self._left: dict[Document, int] = {}
        self.cache_hook = _Taking(self._take)

    def with_answers(self, answers: Answers) -> ResidentLM:
        """Find answers in these, and keep new ones there, from now on."""
        self._answers = answers
        return self

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return how likely continuations are, and whether they are the greedy ones."""
        found = self._answer("loglikelihood", requests, super().loglikelihood)
        return [(float(likelihood), bool(greedy)) for likelihood, greedy in found]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return how likely whole texts are."""
        return [float(own) for own in self._answer("loglikelihood_rolling", requests, super().loglikelihood_rolling)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Return continuations, up to what ends them."""
        return [str(own) for own in self._answer("generate_until", requests, super().generate_until)]

    def _answer(self, kind: str, requests: list[Instance], ask: Callable[..., list[Any]]) -> list[Any]:
        """Return answers in the order of the requests; what was answered before is not asked."""
        answers = self._answers
        assert answers is not None
        keys = [key_of(kind, request.args) for request in requests]
        self._begin(requests, keys)
        sampled: dict[int, Any] = {}
        while left := [number for number, key in enumerate(keys) if self._open(key, number, sampled)]:
            own = [requests[number] for number in left]
            try:
                self._size(kind, own)
                given = ask(own, disable_tqdm=True)
                answers.keep()
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem):
                    raise
                self._halve(problem)
                continue
            finally:
                answers.write()
            for number, answer in zip(left, given, strict=True):
                if keys[number] is None:
                    sampled[number] = answer
        return [sampled[number] if key is None else answers.find(key) for number, key in enumerate(keys)]

    def _open(self, key: str | None, number: int, sampled: dict[int, Any]) -> bool:
        assert self._answers is not None
        return number not in sampled if key is None else self._answers.find(key) is None

    def _begin(self, requests: list[Instance], keys: list[str | None]) -> None:
        """Note which documents each request belongs to, and how many are there already."""
        assert self._answers is not None
        self._asked, self._left = {}, {}
        for request, key in zip(requests, keys, strict=True):
            document = request.task_name, request.doc_id
            there = key is not None and self._answers.find(key) is not None
            self._left[document] = self._left.get(document, 0) + (not there)
            if not there:
                self._asked.setdefault(key or _shown(request.args), []).append(document)
        before = sum(not left for left in self._left.values())
        if before:
            self._on_documents(before, before)

    def _take(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        key = key_of(kind, arguments)
        if key is not None and self._answers is not None:
            self._answers.add(key, answer)
        for document in self._asked.pop(key or _shown(arguments), ()):
            self._left[document] -= 1
            if not self._left[document]:
                self._on_documents(1, 0)

    def _size(self, kind: str, requests: list[Instance]) -> None:
        """Choose how many requests to answer at once."""
        size = self._settings.batch_size
        if size == "auto":
            longest, new = self._longest(kind, requests)
            size = _fitting(self._resident, longest, new)
        self.batch_size_per_gpu = min(size, self._most or size)

    def _longest(self, kind: str, requests: list[Instance]) -> tuple[int, int]:
        """Return the tokens of the longest request, and those to generate at most."""
        texts = ["".join(part for part in request.args if isinstance(part, str)) for request in requests]
        longest = min(len(self.tok_encode(max(texts, key=len))), self.max_length)
        if kind != "generate_until":
            return longest, 0
        told = [request.args[1].get("max_gen_toks", self.max_gen_toks) for request in requests]
        return longest, max(map(int, told))

    def _halve(self, problem: BaseException) -> None:
        size = int(self.batch_size_per_gpu)
        if size == 1:
            raise ModelError(
                "Memory is too small for a single request of a benchmark.", "Set evaluation.dtype, or leave it out."
            ) from problem
        self._most = size // 2
        self._say(f"A batch of {size} is too much for the memory; going on with {self._most}.")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        self._between()
        logits: Tensor = super()._model_call(inps, attn_mask, labels)
        return logits

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **settings: Any) -> Tensor:
        self._between()
        settings.setdefault("synced_gpus", False)  # processes that lend their layers do not generate
        found: Tensor = super()._model_generate(context, max_length, stop, **settings)
        return found

    def _between(self) -> None:
        """Keep the answers of the batches before this one."""
        assert self._answers is not None
        self._answers.keep()


def _fitting(model: LanguageModel, longest: int, new: int) -> int:
    """Return how many requests of up to ``longest`` tokens, and ``new`` ones, fit into the memory at once."""
    free = free_bytes(model.device)
    most = automatic_batch_size(model, longest, max(new, 1), 1, free)
    if new:
        return most
    row = bytes_per_prompt(model, longest, 1, 1) + 4 * LOGITS * longest * model.head.weight.shape[0]
    return max(1, min(most, int(SHARE * free / row)))


def _shown(arguments: Iterable[Any]) -> str:
    return repr(tuple(arguments))
