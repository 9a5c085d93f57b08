"""From messages and texts to the tokens of a prompt."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from rsoup.errors import first_line
from rsoup.serving.bodies import Message
from rsoup.serving.errors import RequestError
from rsoup.tasks.prompts import parts_of, spells_parts

ROLES = ("system", "user", "assistant")


class Prompter:
    """Makes prompts with a tokenizer of its own: others decode with theirs at the same time."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer, self._vocabulary = copy.deepcopy(tokenizer), vocabulary
        self._lock, self._head = threading.Lock(), _head(self._tokenizer)
        self._reserved = {"conversation", "kwargs", *inspect.signature(tokenizer.apply_chat_template).parameters}

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self._tokenizer.chat_template is not None

    def chat(self, messages: Sequence[Message], settings: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the tokens of a conversation in the model's chat template, up to where the answer begins."""
        if not self.chats:
            raise RequestError(
                "This model has no chat template.",
                "Send the prompt as it is to /v1/completions.",
                param="messages",
                code="no_chat_template",
            )
        for name in settings:
            if name in self._reserved:
                raise RequestError(
                    f"chat_template_kwargs: {name} is not one of the template's own.",
                    "Leave it out.",
                    param="chat_template_kwargs",
                )
        turns = [{"role": _role(message), "content": message.content} for message in messages]
        with self._lock:
            return self._encoded(self._rendered(turns, settings), "messages")

    def text(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """Return the tokens of a prompt given as it is, as text or as tokens."""
        if isinstance(prompt, str):
            with self._lock:
                return self._encoded(prompt, "prompt")
        if any(token >= self._vocabulary for token in prompt):
            raise RequestError(
                f"The prompt has the token {max(prompt)}, and the model knows {self._vocabulary}.",
                "Send text, or tokens of this model.",
                param="prompt",
            )
        return _not_empty(prompt)

    def _rendered(self, turns: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> str:
        """Return what the chat template makes of turns; some templates take their contents as parts."""
        own = {**settings, "tokenize": False, "add_generation_prompt": True}
        reason = ""
        for in_parts in (False, True):
            given = [{**turn, "content": parts_of(turn["content"])} for turn in turns]
            try:
                text: str = self._tokenizer.apply_chat_template(given if in_parts else turns, **own)
            except Exception as problem:  # templates raise what they like
                reason = reason or f"does not take these messages: {first_line(problem)}"
                continue
            if _holds(text, turns) and not (in_parts and spells_parts(text, (turn["content"] for turn in turns))):
                return text
            reason = reason or "leaves out a message"
        raise RequestError(
            f"The model's chat template {reason}.",
            "Change the roles or their order.",
            param="messages",
            code="bad_messages",
        )

    def _encoded(self, text: str, param: str) -> tuple[int, ...]:
        """Return the tokens of a text, with those that the tokenizer begins texts with once, and no end."""
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise RequestError("The text is not Unicode.", "Send whole characters.", param=param) from problem
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        head = self._head
        while head and tokens[: len(head)] == head:
            tokens = tokens[len(head) :]
        return _not_empty([*head, *tokens])


def _head(tokenizer: Any) -> list[int]:
    """Return the tokens that a tokenizer puts before any text."""
    bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    start = next((place for place in range(len(whole)) if whole[place : place + len(bare)] == bare), 0)
    return list(whole[:start])


def _holds(text: str, turns: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether a text has what the user said; templates may change blanks, and take thoughts out of answers."""
    squeezed = "".join(text.split())
    return all("".join(turn["content"].split()) in squeezed for turn in turns if turn["role"] != "assistant")


def _role(message: Message) -> str:
    role = "system" if message.role == "developer" else message.role
    if role not in ROLES:
        raise RequestError(f"There is no role {message.role!r:.40}.", f"Known: {', '.join(ROLES)}.", param="messages")
    return role


def _not_empty(tokens: Sequence[int]) -> tuple[int, ...]:
    if not tokens:
        raise RequestError("The prompt is empty.", "Give at least one token.", param="prompt")
    return tuple(tokens)


def room_for(
    prompt: Sequence[int], wanted: int | None, *, usual: int, context: int | None, limit: int, param: str
) -> int:
    """Return how many tokens to add to a prompt: those ``wanted``, else the ``usual``, as far as there is room.

    RequestError if the context has none, or less than is wanted; ``limit`` stands for a context that is not known.
    """
    count = wanted or max(1, min(usual, (context or limit) - len(prompt)))
    if context is not None and len(prompt) + count > context:
        raise RequestError(
            f"A request may have {context} tokens; the prompt has {len(prompt)}, and {count} are to be added.",
            "Shorten the prompt, or ask for fewer tokens.",
            param=param,
            code="context_length_exceeded",
        )
    return count
