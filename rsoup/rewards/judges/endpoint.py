"""A judge at an OpenAI-compatible endpoint: asked many questions at once, each once, within a budget."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rsoup.errors import MissingPackageError, RewardError, RewardUnavailableError
from rsoup.installing import pip_line
from rsoup.recipe.judge import JudgeSection
from rsoup.rewards.judges.answers import Answers
from rsoup.rewards.judges.judge import Judge
from rsoup.rewards.judges.texts import Question, asked_again, questions, wanted
from rsoup.rewards.judges.usage import note, usage_of
from rsoup.rewards.judges.verdicts import read_answer
from rsoup.rewards.loop import wait_for
from rsoup.rewards.samples import Sample

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

    from rsoup.rewards.judges.trouble import Trouble

PROBE = Sample("What is the capital of France?", "Paris.", reference="It is Paris.")
"""What a judge is asked about first, before anything depends on it."""
TORN = 3
"""Tries at a reply that is no whole JSON."""
SHOWN = 300
"""Characters of an unreadable answer that are shown."""


class EndpointJudge(Judge):
    """Asks an endpoint through OpenAI's client, which repeats what failed in passing, with growing, random pauses.

    Answers are kept on disk as they come, and all of them in memory, also those that cannot be read: asking again
    within a process costs nothing.
    """

    def __init__(self, name: str, judge: JudgeSection) -> None:
        super().__init__(name, judge)
        self._trouble = _trouble(name, judge)
        self._kept = Answers(judge, note)
        self._known: dict[str, str | RewardError] = {}
        self._reached = False

    def ready(self) -> None:
        """Ask a first question, unless its answer is there; an answer that cannot be read is no hindrance."""
        wait_for(self._ask(questions(self.judge, PROBE)[:1]))

    def values(self, asked: Sequence[Question]) -> list[float]:
        """Return the number each answer gives."""
        values = [read_answer(self.judge, answer) for answer in self.answers(asked)]
        return [value for value in values if value is not None]

    def answers(self, asked: Sequence[Question]) -> list[str]:
        """Return the answers; RewardError for the first that there is not, with how many others are kept."""
        try:
            if asked:
                wait_for(self._ask(asked))
        except RewardUnavailableError as gone:
            raise self._with_kept(gone, asked) from gone.__cause__
        found = [self._known[question.text] for question in asked]
        problem = next((own for own in found if isinstance(own, RewardError)), None)
        if problem is not None:
            raise self._with_kept(problem, asked)
        return [own for own in found if isinstance(own, str)]

    def _with_kept(self, problem: RewardError, asked: Sequence[Question]) -> RewardError:
        """Return a problem with how many of all answers that were asked for are kept, if any are."""
        there = sum(isinstance(answer, str) for answer in self._known.values())
        if not there or self._kept.lost:
            return problem
        every = len({*self._known, *(question.text for question in asked)})
        told = f"{there:,} of {every:,} answers are kept in {self._kept.folder}: the same command goes on from there."
        return type(problem)(problem.message, f"{problem.hint} {told}")

    async def _ask(self, asked: Sequence[Question]) -> None:
        """Have an answer, or what is wrong with it, for each question; raise what all of them would meet."""
        missing = self._recall(asked)
        if not missing:
            return
        async with _client(self.judge, self._trouble.key) as client:
            if not self._reached:  # one alone shows what is wrong with all
                await self._learn(client, missing.pop(0))
            await self._learn_all(client, missing)

    async def _learn_all(self, client: AsyncOpenAI, texts: Sequence[str]) -> None:
        """Ask questions at the same time; after one that shows that none can be answered, no other is begun."""
        places = asyncio.Semaphore(self.judge.concurrency)
        gone: list[RewardUnavailableError] = []
        began, done = time.monotonic(), 0

        async def one(text: str) -> None:
            nonlocal done
            async with places:
                if gone:
                    return
                try:
                    await self._learn(client, text)
                except RewardUnavailableError as problem:
                    gone.append(problem)
                    return
                done += 1
                if done == self.judge.concurrency:
                    self.pace.after(done, len(texts), time.monotonic() - began)

        await asyncio.gather(*(one(text) for text in texts))
        if gone:
            raise gone[0]

    def _recall(self, asked: Sequence[Question]) -> list[str]:
        """Return the questions without an answer, each once, after reading those that are kept."""
        usage, missing = usage_of(self.name), []
        for text in dict.fromkeys(question.text for question in asked):
            answer = self._known.get(text) or self._kept.get(self._kept.key(text))
            if isinstance(answer, RewardError):
                continue
            if answer is None or read_answer(self.judge, answer) is None:
                missing.append(text)
            else:
                self._known[text] = answer
                usage.kept += 1
        return missing

    async def _learn(self, client: AsyncOpenAI, text: str) -> None:
        """Ask a question, and once more if the answer cannot be read; keep what it comes to."""
        messages: list[Any] = [{"role": "user", "content": text}]
        try:
            reply = await self._call(client, messages)
            answer = _text_of(reply)
            if read_answer(self.judge, answer) is None:
                messages += [{"role": "assistant", "content": answer or "..."}]
                messages += [{"role": "user", "content": asked_again(self.judge)}]
                reply = await self._call(client, messages)
                answer = _text_of(reply)
        except RewardUnavailableError:
            raise
        except RewardError as problem:
            self._known[text] = problem
            return
        if read_answer(self.judge, answer) is None:
            self._known[text] = self._unreadable(reply, answer)
            return
        self._known[text] = answer
        self._kept.keep(self._kept.key(text), answer)

    async def _call(self, client: AsyncOpenAI, messages: list[Any]) -> ChatCompletion:
        """Return the reply to a conversation; RewardUnavailableError if no other could be answered either."""
        judge, usage = self.judge, usage_of(self.name)
        if judge.max_calls is not None and usage.calls >= judge.max_calls:
            raise RewardUnavailableError(
                f"The reward {self.name}: its judge was asked {usage.calls:,} times, which is max_calls.",
                "The same command asks as many times again; or raise max_calls.",
            )
        from rsoup.rewards.judges.trouble import is_torn

        usage.calls += 1
        fields: dict[str, Any] = {"temperature": judge.temperature, "max_tokens": judge.max_tokens}
        fields = {name: value for name, value in fields.items() if value is not None}
        for attempt in range(TORN):
            try:
                reply: ChatCompletion = await client.chat.completions.create(
                    model=judge.model, messages=messages, extra_body=judge.options or None, **fields
                )
                if not (getattr(reply, "choices", None) and reply.choices[0].message):
                    raise ValueError("the reply has no choices with a message")
                break
            except Exception as problem:  # whatever the client raises for what came over the wire
                if attempt + 1 < TORN and is_torn(problem):
                    await asyncio.sleep(0.5 * 2**attempt)
                    continue
                raise await self._trouble.explain(problem, client, first=not self._reached) from problem
        self._reached = True
        if reply.usage is not None:
            usage.prompt_tokens += reply.usage.prompt_tokens or 0
            usage.completion_tokens += reply.usage.completion_tokens or 0
        return reply

    def _unreadable(self, reply: ChatCompletion, answer: str) -> RewardError:
        shown = repr(answer if len(answer) <= SHOWN else f"{answer[:SHOWN]}...")
        cut = reply.choices[0].finish_reason == "length"
        how = f", cut at max_tokens ({self.judge.max_tokens})" if cut else ""
        hint = "Raise the judge's max_tokens: thoughts count." if cut else "Say in the rubric what to reply with."
        return RewardError(
            f"The reward {self.name}: its judge, asked twice, answered {shown}{how} in the place of "
            f"{wanted(self.judge)}.",
            hint,
        )


def _text_of(reply: ChatCompletion) -> str:
    message = reply.choices[0].message
    return message.content or message.refusal or ""


def _trouble(name: str, judge: JudgeSection) -> Trouble:
    try:
        from rsoup.rewards.judges.trouble import Trouble
    except ModuleNotFoundError as problem:
        command = pip_line("judge")
        raise MissingPackageError("openai", f"The reward {name}: a judge at an endpoint", command) from problem
    return Trouble(name, judge, os.environ.get(judge.api_key_env, ""))


def _client(judge: JudgeSection, key: str) -> AsyncOpenAI:
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=judge.base_url, api_key=key or "none", timeout=judge.timeout, max_retries=judge.retries)
