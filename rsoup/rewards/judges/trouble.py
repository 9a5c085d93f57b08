"""What is wrong where an endpoint does not answer, in words; the key is in none of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from openai import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)

from rsoup.errors import RewardError, RewardUnavailableError, did_you_mean, first_line
from rsoup.recipe.judge import JudgeSection

LONGEST = 300
ABOUT_THE_TEXT = (400, 413, 422)
"""Statuses that may be due to a single text."""


@dataclass(frozen=True)
class Trouble:
    """Explains what the client raises for a judge."""

    name: str
    judge: JudgeSection
    key: str = field(repr=False)

    async def explain(self, problem: Exception, client: AsyncOpenAI, *, first: bool) -> RewardError:
        """Return the error of a question; RewardUnavailableError unless it may be due to its text alone.

        A ``first`` question, to which no other has been answered, is never to blame.
        """
        if isinstance(problem, NotFoundError):
            told, hint = self._nothing_there(problem, await _models(client))
        else:
            told, hint = self._told(problem)
        message = f"The reward {self.name}: the judge at {self.judge.base_url} {told}."
        if isinstance(problem, APIStatusError) and problem.status_code in ABOUT_THE_TEXT and not first:
            return RewardError(message, "Leave such rows out, or take a judge that reads them.")
        return RewardUnavailableError(message, hint)

    def _told(self, problem: Exception) -> tuple[str, str]:
        judge, tries = self.judge, _tries(self.judge.retries)
        match problem:
            case AuthenticationError() | PermissionDeniedError():
                told = self._refused_key(problem.status_code)
            case APITimeoutError():
                hint = "Raise the judge's timeout, or lower its concurrency."
                told = f"did not answer within {judge.timeout:g} s, in {tries}", hint
            case APIConnectionError():
                reason = self._without_key(first_line(problem.__cause__ or problem))
                told = f"cannot be reached ({reason}), in {tries}", "Check base_url and the server."
            case RateLimitError():
                hint = "Lower the judge's concurrency, or wait."
                told = f"is still busy after {tries} (429: {self._said(problem)})", hint
            case APIStatusError():
                told = f"answers {problem.status_code}: {self._said(problem)}", _hint(problem.status_code)
            case _:
                reason = self._without_key(first_line(problem))
                hint = "Check base_url: OpenAI-compatible ones mostly end in /v1."
                told = f"sends what is no answer: {reason}", hint
        return told

    def _nothing_there(self, problem: NotFoundError, known: list[str]) -> tuple[str, str]:
        name = self.judge.model
        if known and name not in known:
            return f"has no model {name}", did_you_mean(name, known)
        return f"answers 404 for the model {name}: {self._said(problem)}", "Check model and base_url, often .../v1."

    def _refused_key(self, status: int) -> tuple[str, str]:
        name = self.judge.api_key_env
        if not self.key:
            hint = f"export {name}=..., or name another variable: api_key_env."
            return f"asks for a key ({status}), and {name} is not set", hint
        return f"refuses the key in {name} ({status})", f"Set another key in {name}, or name another variable."

    def _said(self, problem: APIStatusError) -> str:
        """Return what the server says, as far as it can be shown."""
        body = problem.body
        said = body.get("message") if isinstance(body, dict) else None
        return self._without_key(str(said or first_line(problem)))

    def _without_key(self, text: str) -> str:
        text = " ".join((text.replace(self.key, "***") if self.key else text).split()).rstrip(".")
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _hint(status: int) -> str:
    if status in ABOUT_THE_TEXT:
        return "Set what it does not take to null (temperature, max_tokens), and what it wants in options."
    return "It is the server's fault: try again later." if status >= 500 else "Try again later."


def is_torn(problem: Exception) -> bool:
    """Tell whether what came was no whole answer."""
    return isinstance(problem, (ValueError, APIResponseValidationError))


def _tries(retries: int) -> str:
    return "1 try" if retries == 0 else f"{retries + 1} tries"


async def _models(client: AsyncOpenAI) -> list[str]:
    """Return the names of the models that an endpoint tells, if it does."""
    with suppress(Exception):
        found = await client.with_options(timeout=5, max_retries=0).models.list()
        return [model.id for model in found.data]
    return []
