"""A conversation in the terminal, and through a pipe."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from command import Command, assert_refused
from rsoup.cli.chatting import LEFT, prompt_of, read_key
from rsoup.models.rowwise import Mix
from rsoup.serving.conversation import Conversation, Manner
from rsoup.serving.errors import RequestError
from rsoup.serving.jobs import Request
from rsoup.serving.opening import open_run
from rsoup.serving.server import Settings, make_engine, make_tradeoffs
from rsoup.serving.source import Source
from serving.asking import greedy_alone

Folders = dict[str, Path]


@pytest.fixture(scope="module")
def two(chat_model: Path, expert_folders: Folders) -> Any:
    """A model that chats, with two experts."""
    adapters = [f"{name}={expert_folders[name]}" for name in ("positive", "calm")]
    return open_run(Source(model=str(chat_model), adapters=adapters))


def begin(opened: Any, **manner: Any) -> Conversation:
    settings = Settings(rows=1, cache_tokens=1024)
    engine = make_engine(opened.served, settings, print)
    return Conversation(opened, engine, make_tradeoffs(opened, settings), Manner(**{"max_tokens": 5, **manner}))


def expected(opened: Any, prompt: str, mix: Mix) -> str:
    tokenizer = opened.served.model.tokenizer
    tokens = greedy_alone(opened.served, Request(tuple(tokenizer(prompt)["input_ids"]), mix, 5))
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def test_turns_build_on_each_other_under_weights_that_change(two: Any) -> None:
    conversation = begin(two)
    assert (conversation.chosen.name, conversation.position) == ("soup:positive=0.5,calm=0.5", 0.5)
    first = "".join(conversation.ask("the kettle"))
    assert first == expected(two, "the kettle : ", Mix((0.5, 0.5)))
    conversation.weigh("positive=0.9")
    second = "".join(conversation.ask("late"))
    assert second == expected(two, f"the kettle : {first} : late : ", Mix((0.9, 1 - 0.9)))
    conversation.weigh("expert:calm")
    again = "".join(conversation.again())
    assert again == expected(two, f"the kettle : {first} : late : ", Mix((0.0, 1.0)))
    conversation.renew()
    assert "".join(conversation.ask("late")) == expected(two, "late : ", Mix((0.0, 1.0)))


def test_weights_move_along_the_line_and_stay_on_it(two: Any) -> None:
    conversation = begin(two)
    found = []
    for steps in (1, 1, -1, 9, 1, -20):
        conversation.move(steps)
        found.append(conversation.position)
    assert found == [0.6, 0.7, 0.6, 1.0, 1.0, 0.0]
    assert conversation.chosen.name == "expert:positive"
    conversation.weigh("positive=0.5,base=0.5")
    assert conversation.position is None
    conversation.move(1)
    assert conversation.position == 0.5


def test_the_prompt_shows_the_place_within_80_columns(two: Any) -> None:
    conversation = begin(two)
    assert prompt_of(conversation) == "positive ----------o---------- calm 0.50 > "
    conversation.weigh("positive=1")
    assert prompt_of(conversation) == "positive o-------------------- calm 0.00 > "
    conversation.weigh("positive=0.5,base=0.5")
    assert prompt_of(conversation) == "soup:positive=0.5,base=0.5 > "
    conversation.line = ("p" * 50, "q" * 50)
    assert len(prompt_of(conversation)) < 80


def test_what_is_refused_leaves_the_conversation_as_it_was(two: Any) -> None:
    conversation = begin(two)
    with pytest.raises(RequestError, match="no question to answer again"):
        next(conversation.again())
    before = conversation.chosen
    for text in ("positive=2", "calm=-0.1", "nobody=1", "expert:nobody", "gpt-5", "positive=x"):
        with pytest.raises(RequestError):
            conversation.weigh(text)
    assert conversation.chosen == before
    conversation.instruct("be quiet")  # which this model's template does not take
    with pytest.raises(RequestError, match="no system messages"):
        next(conversation.ask("the kettle"))
    conversation.instruct("")
    assert "".join(conversation.ask("the kettle")) == expected(two, "the kettle : ", Mix((0.5, 0.5)))


def test_a_stopped_answer_is_what_was_said(two: Any) -> None:
    conversation = begin(two, max_tokens=50)
    pieces = conversation.ask("the kettle")
    told = [next(pieces), next(pieces)]
    conversation.stop()
    assert list(pieces) == []
    assert conversation._messages[-1].content == "".join(told)
    assert not conversation._engine.running


def test_lines_from_a_pipe_are_turns(
    rsoup: Command, monkeypatch: pytest.MonkeyPatch, two: Any, chat_model: Path, expert_folders: Folders
) -> None:
    """Answers alone go to stdout; a mistake is told and the conversation goes on."""
    lines = [
        "the kettle",
        "",
        "/weights positive=1",
        "/again",
        "/weights nobody=1",
        "/nothing",
        "/new",
        "late",
        "/quit",
        "no",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    adapters = [f"{name}={expert_folders[name]}" for name in ("positive", "calm")]
    called = rsoup("chat", "--model", chat_model, "--adapters", *adapters, "--max-tokens", 5)
    assert called.code == 0
    assert called.lines == [
        expected(two, "the kettle : ", Mix((0.5, 0.5))),
        expected(two, "the kettle : ", Mix((1.0, 0.0))),
        expected(two, "late : ", Mix((1.0, 0.0))),
    ]
    told = [line for line in called.err.splitlines() if not line.startswith("warning:")]
    assert told == [
        "expert:positive",
        "error: There is no adapter 'nobody' here.",
        "try:   Known: base, calm, positive.",
        "error: There is no command /nothing.",
        "try:   /help tells them.",
        "A new conversation.",
    ]


def test_answers_are_scored_by_the_rewards_of_the_run(
    rsoup: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Path, chat_model: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("the kettle lid\n"))
    called = rsoup("chat", tiny_run / "run", "--model", chat_model, "--max-tokens", 4)
    assert called.code == 0, called.err
    last = called.err.splitlines()[-1].split()
    assert (last[0], last[2]) == ("positive", "brief")
    assert float(last[3]) == -len(called.lines[0].split())


def test_a_model_without_a_chat_template_is_refused(rsoup: Command, tiny_run: Path) -> None:
    assert_refused(rsoup("chat", tiny_run / "run"), "This model has no chat template", "/v1/completions")


@pytest.mark.timeout(60)
def test_keys_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrows, characters of several bytes, sequences of other keys; keys that follow at once stay their own."""
    master, slave = os.openpty()
    with os.fdopen(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        sent = ["\x1b[D", "\x1b[D", "é", "日", "🙂", "\x1b[3~", "a", "\x1bOC", "\n"]
        writer = threading.Thread(target=lambda: (time.sleep(0.2), os.write(master, "".join(sent).encode())))
        writer.start()
        assert [read_key() for _ in sent] == sent
        assert sent[0] in LEFT
        writer.join()
    os.close(master)
