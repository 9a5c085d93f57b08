"""The section of a judge: a language model that scores by a rubric."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rsoup.recipe.base import Count, NonNegative, Positive, Section

OWN_FIELDS = {"model", "messages", "stream", "n", "temperature", "max_tokens"}
"""Fields of a request that rsoup fills in itself."""
ASKED = ("api_key_env", "temperature", "max_tokens", "options", "max_calls", "concurrency", "timeout", "retries")
"""Keys that mean something to an endpoint alone."""
SHARED_ANSWERS = {"api_key_env", "max_calls", "concurrency", "timeout", "retries"}
"""Keys that change no score."""


class JudgeSection(Section):
    """A language model that scores by a rubric: at an OpenAI-compatible endpoint (base_url), or loaded here."""

    rubric: Annotated[str, Field(min_length=1)]
    """What is judged, in plain words."""
    model: str
    """The name of the model at the endpoint; without base_url a causal language model: bundled, a folder or a hub id,
    of which the expected score over the digits counts."""
    base_url: str | None = None
    """The endpoint, such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; an endpoint that needs none is asked without."""
    scale: Annotated[list[int], Field(min_length=2, max_length=2)] = [0, 9]
    """The lowest and the highest score; of a model loaded here within 0 and 9, single digits."""
    pairwise: bool = False
    """Compare with the row's reference answer instead of giving a score, in both orders: the mean of 1 for a win and 0
    for a loss. Does not apply to rows without a reference."""
    temperature: NonNegative | None = 0.0
    """Of the endpoint's answers; null leaves it to the endpoint."""
    max_tokens: Count | None = 64
    """The longest answer of an endpoint, thoughts included; null leaves it to the endpoint."""
    options: dict[str, Any] = {}
    """Further fields of each request to an endpoint, such as reasoning_effort: low."""
    max_calls: Count | None = None
    """So many questions to the endpoint stop a command; what was answered is kept, and the same command goes on."""
    concurrency: Count = 8
    """Questions at an endpoint at the same time."""
    timeout: Positive = 60.0
    """Seconds to wait for an answer of the endpoint."""
    retries: Annotated[int, Field(ge=0, le=100)] = 8
    """Further tries, with growing pauses, where an endpoint is busy, fails or cannot be reached."""

    @field_validator("rubric")
    @classmethod
    def _some_words(cls, rubric: str) -> str:
        if not rubric.strip():
            raise ValueError("the rubric has no words\nSay what makes an answer good.")
        return rubric

    @field_validator("api_key_env")
    @classmethod
    def _a_variable(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError(
                "it is to be the name of an environment variable, in capitals, and never the key itself\n"
                "For example: export OPENAI_API_KEY=..., and api_key_env: OPENAI_API_KEY"
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _an_endpoint(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it is no address of an endpoint\nFor example: http://127.0.0.1:8000/v1")
        if "@" in parts.netloc:
            raise ValueError("it holds a name or a password, which would be kept with the run\nUse api_key_env.")
        return url.rstrip("/")

    @field_validator("options")
    @classmethod
    def _further_fields(cls, options: dict[str, Any]) -> dict[str, Any]:
        if own := OWN_FIELDS & set(options):
            raise ValueError(f"rsoup fills in {min(own)} itself\nLeave it out of options.")
        return options

    @model_validator(mode="after")
    def _consistent(self) -> JudgeSection:
        least, most = self.scale
        if least >= most:
            raise ValueError(f"scale: {least} is not below {most}\nGive the lowest score first, such as [0, 9].")
        if self.base_url is None:
            fields = type(self).model_fields
            if given := [key for key in ASKED if getattr(self, key) != fields[key].default]:
                raise ValueError(f"{given[0]} is for a judge at an endpoint\nSet base_url, or leave {given[0]} out.")
            if not self.pairwise and (least < 0 or most > 9):
                raise ValueError(
                    "scale: a model loaded here answers with one digit\nGive a scale within [0, 9], or base_url."
                )
        return self
