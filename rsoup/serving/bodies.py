"""The bodies of requests: strict, as far as they mean something; what cannot be done is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rsoup.errors import did_you_mean
from rsoup.serving.errors import RequestError
from rsoup.tasks.turns import joined

IGNORED = {
    *("metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"),
    *("service_tier", "store", "user"),
}
"""Keys that change no answer here."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "min_p": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Keys that would change answers in ways that are not offered, and the values by which they do not."""

MOST_STOPS, LONGEST_STOP, MOST_CHOICES, MOST_PROMPTS, MOST_LOGPROBS = 16, 1000, 128, 256, 20

Finite = Annotated[float, Field(allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Tokens = list[Annotated[int, Field(ge=0)]]


class Body(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Scale(Body):
    """One adapter as llama.cpp names it."""

    id: int
    scale: Finite


class StreamOptions(Body):
    """What a stream also tells."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Common(Body):
    """What both ways to ask have in common."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[Finite, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Finite, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stop_token_ids: Tokens | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: int | None = None
    weights: dict[str, Finite] | None = None
    lora: list[Scale] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _listed(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Common:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for requests with stream")
        return self


class Message(Body):
    """A turn of a conversation; a list of parts has to be of texts."""

    model_config = ConfigDict(extra="ignore")

    role: str
    content: str
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if given.get("tool_calls") or given.get("function_call"):
            raise ValueError("calls of tools are not supported")
        parts = given.get("content")
        if not isinstance(parts, list):
            return given
        texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("only parts of the type text are supported")
        return {**given, "content": joined(map(str, texts))}


class ChatBody(Common):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    chat_template_kwargs: dict[str, bool | int | Finite | str] | None = None

    @model_validator(mode="after")
    def _agree(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens are one setting; give one")
        return self

    @property
    def most_tokens(self) -> int | None:
        """The longest answer, if it is said."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int | None:
        """How many likeliest tokens are asked for, None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Common):
    """The body of /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)] | Tokens | list[Tokens]
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None

    @property
    def most_tokens(self) -> int | None:
        """The longest answer, if it is said."""
        return self.max_tokens

    @property
    def top(self) -> int | None:
        """How many likeliest tokens are asked for, None for no log-probabilities."""
        return self.logprobs

    @property
    def prompts(self) -> list[str] | list[Tokens]:
        """The prompts, one or several."""
        given: Any = self.prompt
        return [given] if isinstance(given, str) or not given or isinstance(given[0], int) else given


class ScoreBody(Body):
    """The body of /rsoup/score."""

    prompt: str = ""
    completion: str


B = TypeVar("B", bound=Body)


def parse(text: bytes, kind: type[B]) -> B:
    """Return the body that a request sends; RequestError with the first thing that is wrong."""
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise RequestError(f"The body is not valid JSON: {problem}.", "Send a JSON object.") from problem
    if not isinstance(content, dict):
        raise RequestError("The body is not a JSON object.", "Send a JSON object.")
    content = {key: value for key, value in content.items() if key not in IGNORED and not _is_neutral(key, value)}
    for key in content:
        if key in NEUTRAL and key not in kind.model_fields:
            raise RequestError(f"{key} is not supported.", "Leave it out.", param=key, code="unsupported_parameter")
    try:
        return kind.model_validate(content)
    except ValidationError as problem:
        raise _explained(problem, kind) from problem


def _is_neutral(key: str, value: Any) -> bool:
    return key in NEUTRAL and (value is None or any(value == neutral for neutral in NEUTRAL[key]))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _explained(problem: ValidationError, kind: type[Body]) -> RequestError:
    """Return the first error of a validation, with the key it is about; a misspelt key comes first."""
    errors = problem.errors(include_url=False)
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    loc = [str(part) for part in error["loc"]]
    param = ".".join(loc[:3]) or None
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(loc[-1], kind.model_fields) if len(loc) == 1 else "Leave it out."
        return RequestError(f"There is no parameter {param:.100}.", hint, param=param, code="unknown_parameter")
    if error["type"] == "missing":
        return RequestError(f"{param} is missing.", "Give it.", param=param, code="missing_parameter")
    message = error["msg"].removeprefix("Value error, ")
    if loc[:1] == ["prompt"]:
        param, message = "prompt", "it is not a text, a list of texts, of tokens, or of lists of tokens"
    where = f"{param}: " if param else ""
    return RequestError(f"{where}{message}.", "Correct the body.", param=param, code="invalid_value")
