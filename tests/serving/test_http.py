"""The HTTP of a server: OpenAI's shapes, every trade-off, and what is refused in words."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from starlette.requests import Request as HttpRequest

from rsoup.models.rowwise import Mix
from rsoup.serving.app import Access
from rsoup.serving.jobs import Request
from rsoup.serving.source import Source
from rsoup.serving.wire import GoneError, read_body
from serving.asking import greedy_alone
from serving.conftest import Client


def events(response: Any) -> list[Any]:
    """Return the events of a stream, which ends with [DONE]."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def refused(response: Any, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert error["type"] == {429: "rate_limit_error", 500: "server_error", 503: "server_error"}.get(
        status, "invalid_request_error"
    )
    assert param is None or error["param"] == param
    assert code is None or error["code"] == code


def alone(client: Client, mix: Mix, count: int = 6, prompt: str = "the kettle lid") -> str:
    """Return the greedy answer of the materialised mix, as it goes on from a prompt."""
    served = client.opened.served
    tokens = tuple(served.model.tokenizer(prompt)["input_ids"])
    return " " + served.model.tokenizer.decode(greedy_alone(served, Request(tokens, mix, count)))


def test_the_weights_are_said_in_five_ways(client: Client) -> None:
    """By name, by expert, by weights, by scales, for a preference; each is the materialised mix."""
    half = Mix((0.5, 0.5, 0.0))
    scaled = Mix((0.5, 0.0, 0.0), 0.5)
    asked: list[tuple[Mix, str, dict[str, Any]]] = [
        (Mix((0.0, 0.0, 0.0), 1.0), "base", {}),
        (Mix((0.0, 1.0, 0.0)), "expert:brief", {}),
        (Mix((0.0, 0.0, 1.0)), "expert:morl-0.50-0.50", {}),
        (half, "soup:positive=0.5,brief=0.5", {}),
        (half, "soup", {"weights": {"brief": 0.5, "positive": 0.5}}),
        (half, "soup", {"lora": [{"id": 0, "scale": 0.5}, {"id": 1, "scale": 0.5}]}),
        (scaled, "soup", {"lora": [{"id": 0, "scale": 0.5}]}),
        (scaled, "soup:positive=0.5,base=0.5", {}),
    ]
    for mix, model, body in asked:
        answer = client.complete(model, temperature=0, **body).json()
        assert answer["choices"][0]["text"] == alone(client, mix)
        assert answer["choices"][0]["finish_reason"] in ("length", "stop")
        named = client.complete(answer["model"], temperature=0).json()  # the name says the weights in full
        assert named["choices"][0]["text"] == answer["choices"][0]["text"]


def test_a_preference_is_read_through_the_report(client: Client) -> None:
    """``rsoup pareto --prefer`` on the same results chooses the same soup by validation."""
    from rsoup.report.analysis import analyse
    from rsoup.report.inputs import read_inputs
    from rsoup.report.options import Options

    assert client.opened.recipe is not None
    measured = read_inputs([client.opened.recipe.folder], {}, {})
    for mu in ({"positive": 1.0}, {"positive": 0.3, "brief": 0.7}, {"brief": 1.0}):
        chosen = analyse(measured, Options(prefer=(mu,), draws=100)).choices
        weights = next(choice.weights for choice in chosen if choice.rule == "validation")
        name = "prefer:" + ",".join(f"{reward}={share}" for reward, share in mu.items())
        found = client.http.get(f"/v1/models/{name}").json()["id"]
        assert (
            found
            == client.http.get(
                "/v1/models/soup:" + ",".join(f"{expert}={weight}" for expert, weight in weights.items())
            ).json()["id"]
        )


def test_models_are_listed_and_any_mix_is_one(client: Client) -> None:
    listed = [model["id"] for model in client.http.get("/v1/models").json()["data"]]
    assert listed[:4] == ["base", "expert:positive", "expert:brief", "expert:morl-0.50-0.50"]
    assert client.http.get("/v1/models/soup:brief=1").json()["id"] == "expert:brief"
    refused(client.http.get("/v1/models/gpt-5"), 404, "'gpt-5' does not exist", code="model_not_found")


@pytest.mark.parametrize(
    ("model", "body", "message", "param"),
    [
        ("soup:positive=0.7", {}, "The weights positive=0.7 sum to 0.7, not to 1.", "model"),
        ("soup:positive=1.5,brief=-0.5", {}, "include a negative one", "model"),
        ("soup:positive=nan,brief=1", {}, "'positive=nan' is not NAME=WEIGHT", "model"),
        ("soup:positive=1,positive=0", {}, "'positive' is given twice", "model"),
        ("soup:positive", {}, "'positive' is not NAME=WEIGHT", "model"),
        ("soup:positve=1", {}, "There is no adapter 'positve' here. Did you mean positive?", "model"),
        ("soup:../../etc/passwd=1", {}, "There is no adapter '../../etc/passwd' here", "model"),
        ("soup", {}, "The model soup needs weights", "weights"),
        ("soup", {"weights": {"calm": 1.0}}, "There is no adapter 'calm' here", "weights"),
        ("soup", {"weights": {}}, "The weights (none) sum to 0, not to 1", "weights"),
        ("soup", {"weights": {"positive": 1e308, "brief": 1e308}}, "sum to inf, not to 1", "weights"),
        ("soup", {"lora": [{"id": 0, "scale": 1e308}, {"id": 1, "scale": 1e308}]}, "include a negative one", "lora"),
        ("prefer:positive=1e308,brief=1e308", {}, "not of weights of at least 0 that sum to 1", "model"),
        ("soup", {"weights": {"positive": "1"}}, "weights.positive", "weights.positive"),
        ("soup", {"weights": [1.0]}, "weights: Input should be a valid dictionary", "weights"),
        ("soup", {"lora": [{"id": 7, "scale": 1.0}]}, "no adapter with the id 7. Known: 0 positive", "lora"),
        ("soup", {"lora": [{"id": 0, "scale": 2.0}]}, "include a negative one", "lora"),
        ("soup", {"lora": [{"id": 0, "scale": 1, "path": "x"}]}, "no parameter lora.0.path", "lora.0.path"),
        ("expert:brief", {"weights": {"brief": 1.0}}, "two answers to one question", "weights"),
        ("prefer:calm=1", {}, "'calm' is no reward of this run", "model"),
        ("prefer:brief=0.4", {}, "The preference brief=0.4 is not of weights of at least 0 that sum to 1", "model"),
    ],
)
def test_weights_that_cannot_be_are_refused_with_the_reason(
    client: Client, model: str, body: dict[str, Any], message: str, param: str
) -> None:
    refused(client.complete(model, **body), 400, message, param=param)


@pytest.mark.parametrize("model", ["gpt-4o", "expert:calm", "expert:../init", "positive", "", "base:", "Base"])
def test_a_model_that_is_none_is_not_found(client: Client, model: str) -> None:
    refused(client.complete(model), 404, "does not exist", param="model", code="model_not_found")


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"max_tokns": 3}, "no parameter max_tokns. Did you mean max_tokens?", "max_tokns"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens"),
        ({"max_tokens": "3"}, "max_tokens", "max_tokens"),
        ({"temperature": -1}, "temperature", "temperature"),
        ({"top_p": 2}, "top_p", "top_p"),
        ({"n": 1000}, "n: Input should be less than or equal to 128", "n"),
        ({"stop": [""]}, "stop.0", "stop.0"),
        ({"stop": ["x"] * 17}, "stop", "stop"),
        ({"seed": 1.5}, "seed", "seed"),
        ({"stream_options": {"include_usage": True}}, "stream_options is for requests with stream", None),
        ({"tools": [{"type": "function"}]}, "tools is not supported", "tools"),
        ({"logit_bias": {"5": 10}}, "logit_bias is not supported", "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty is not supported", "presence_penalty"),
        ({"echo": True}, "echo is not supported", "echo"),
        ({"prompt": []}, "prompt", "prompt"),
        ({"prompt": 7}, "prompt: it is not a text", "prompt"),
        ({"prompt": ""}, "The prompt is empty", "prompt"),
        ({"prompt": [5, 100000]}, "The prompt has the token 100000, and the model knows 53", "prompt"),
        ({"prompt": [5] * 120, "max_tokens": 9}, "may have 128 tokens; the prompt has 120, and 9 are to be", "prompt"),
        ({"prompt": [5] * 128}, "may have 128 tokens; the prompt has 128, and 1 are to be added", "prompt"),
        ({"n": 20}, "8 answers at once", None),
    ],
)
def test_bodies_that_say_what_cannot_be_are_refused(
    client: Client, body: dict[str, Any], message: str, param: str | None
) -> None:
    refused(client.complete(**{"prompt": "the kettle", **body}), 400, message, param=param)


def test_what_changes_nothing_is_taken(client: Client) -> None:
    neutral = {"user": "me", "metadata": {}, "presence_penalty": 0, "logit_bias": None, "best_of": 1, "store": False}
    assert client.complete(**neutral).status_code == 200
    assert client.complete(stop=None, seed=None, weights=None, stream=None, max_tokens=None).status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"model": NaN}', b"[" * 100_000, b'{"model": "base"}']
)
def test_broken_bodies_are_refused(client: Client, content: bytes) -> None:
    answer = client.http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    refused(answer, 400, "")


def test_only_json_of_a_sensible_size_is_read(client: Client) -> None:
    refused(client.http.post("/v1/completions", content=b"{}"), 400, "The Content-Type is missing")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused(
        client.http.post("/v1/completions", content=b"{}", headers=form), 400, "Send Content-Type: application/json"
    )
    refused(client.complete(prompt="a " * (3 << 20)), 400, "more than 4 MiB", code="too_large")


def test_unknown_places_and_methods_are_told_in_the_same_shape(client: Client) -> None:
    refused(client.http.get("/v1/lora"), 404, "There is nothing here")
    refused(client.http.get("/v1/completions"), 405, "Method Not Allowed")
    refused(client.http.get("/../../etc/passwd"), 404, "There is nothing here")


def test_a_stream_is_the_answer_in_pieces(client: Client) -> None:
    asked = {"temperature": 0.8, "seed": 5, "logprobs": 2, "n": 2, "max_tokens": 8}
    whole = client.complete("expert:brief", **asked).json()
    told = events(client.complete("expert:brief", stream=True, stream_options={"include_usage": True}, **asked))
    assert told[-1]["choices"] == []
    assert told[-1]["usage"] == whole["usage"]
    assert all(event["usage"] is None for event in told[:-1])
    assert len({event["id"] for event in told}) == 1
    for choice in whole["choices"]:
        own = [event["choices"][0] for event in told[:-1] if event["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in own) == choice["text"]
        assert [piece["finish_reason"] for piece in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        scored = [piece["logprobs"] for piece in own if piece["logprobs"]]
        for key in ("tokens", "token_logprobs", "text_offset"):
            assert [value for part in scored for value in part[key]] == choice["logprobs"][key]
        offsets = choice["logprobs"]["text_offset"]
        for token, start in zip(choice["logprobs"]["tokens"], offsets, strict=True):
            assert choice["text"][start:].strip().startswith(token)


def test_a_stream_without_usage_tells_none(client: Client) -> None:
    assert all("usage" not in event for event in events(client.complete(stream=True)))


def test_prompts_may_be_several_texts_or_tokens(client: Client) -> None:
    ids = client.opened.served.model.tokenizer(["the kettle lid", "late early"])["input_ids"]
    first, second = (client.complete(prompt=own, temperature=0).json()["choices"][0]["text"] for own in ids)
    for prompt in (["the kettle lid", "late early"], ids):
        answer = client.complete(prompt=prompt, temperature=0, n=2).json()
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
        assert [choice["text"] for choice in answer["choices"]] == [first, first, second, second]
        assert answer["usage"]["prompt_tokens"] == 5


def test_a_seed_makes_draws_come_again_and_none_does_not(client: Client) -> None:
    def texts(**body: Any) -> set[str]:
        return {client.complete(max_tokens=16, **body).json()["choices"][0]["text"] for _ in range(3)}

    assert len(texts(seed=-3)) == 1
    assert len(texts()) == 3


def test_a_chat_goes_through_the_template(chat_client: Client) -> None:
    """The conversation is the template's text as a prompt, greedy or drawn; answers begin without a space."""
    prompt = "the kettle lid : good : late : "
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "the kettle"}, {"type": "text", "text": " lid"}]},
        {"role": "assistant", "content": "good", "refusal": None},
        {"role": "user", "content": "late"},
    ]
    answer = chat_client.chat("soup:positive=0.2,calm=0.8", messages=turns, temperature=0, max_tokens=5).json()
    assert answer["choices"][0]["message"]["role"] == "assistant"
    found = answer["choices"][0]["message"]["content"]
    assert found == alone(chat_client, Mix((0.2, 0.0, 0.8)), 5, prompt).strip()
    assert answer["object"] == "chat.completion"
    assert answer["usage"]["prompt_tokens"] == 8
    quiet = {"chat_template_kwargs": {"quiet": True}}
    assert chat_client.chat(max_tokens=1, **quiet).json()["usage"]["prompt_tokens"] == 6


def test_a_chat_streams_roles_deltas_and_log_probabilities(chat_client: Client) -> None:
    asked = {"temperature": 0, "logprobs": True, "top_logprobs": 3, "max_completion_tokens": 4}
    whole = chat_client.chat("expert:calm", **asked).json()["choices"][0]
    told = [event["choices"][0] for event in events(chat_client.chat("expert:calm", stream=True, **asked))]
    assert told[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(own["delta"].get("content", "") for own in told) == whole["message"]["content"]
    content = [own for piece in told if piece["logprobs"] for own in piece["logprobs"]["content"]]
    assert content == whole["logprobs"]["content"]
    assert len(content) == 4
    for own in content:
        assert own["logprob"] == own["top_logprobs"][0]["logprob"]  # greedy
        assert bytes(own["bytes"]).decode() == own["token"]
        assert len(own["top_logprobs"]) == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content is missing"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "There is no role 'robot'"),
        ({"messages": [{"role": "system", "content": "x"}]}, "does not take these messages: no system messages"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "no system messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only parts of the type text"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "calls of tools"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "one setting"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template is not one of the template's own"),
        ({"chat_template_kwargs": {"tokenize": True}}, "tokenize is not one of the template's own"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
    ],
)
def test_chats_that_cannot_be_are_refused(chat_client: Client, body: dict[str, Any], message: str) -> None:
    refused(chat_client.chat(**body), 400, message)


def test_a_base_without_a_chat_template_says_so(client: Client) -> None:
    refused(client.chat(), 400, "This model has no chat template", code="no_chat_template")


def test_without_a_run_there_is_no_preference_and_no_reward(chat_client: Client) -> None:
    refused(chat_client.complete("prefer:positive=1"), 400, "nothing is: no run was given", code="no_report")
    refused(chat_client.post("/rsoup/score", completion="good"), 400, "no run was given", code="no_rewards")


def test_the_page_finds_what_it_needs(client: Client) -> None:
    run = client.http.get("/rsoup/run").json()
    assert [(own["id"], own["name"], own["kind"]) for own in run["experts"]] == [
        (0, "positive", "expert"),
        (1, "brief", "expert"),
        (2, "morl-0.50-0.50", "morl"),
    ]
    assert run["rewards"] == ["positive", "brief"]
    assert [point["model"] for point in run["points"]] == [
        "base",
        "expert:positive",
        "soup:positive=0.5,brief=0.5",
        "expert:brief",
        "expert:morl-0.50-0.50",
    ]
    assert set(run["points"][0]["scores"]) == {"positive", "brief"}
    assert client.opened.base in json.dumps(run)  # the name of the model, as the recipe says it
    page = client.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_answers_are_scored_by_the_rewards_of_the_run(client: Client) -> None:
    scores = client.post("/rsoup/score", prompt="the kettle", completion=" good great ").json()["scores"]
    assert scores["brief"] == -2.0
    assert scores["positive"] > 0.5
    refused(client.post("/rsoup/score", prompt="the kettle"), 400, "completion is missing", param="completion")


def test_metrics_count_what_happened(client: Client) -> None:
    def value(name: str) -> float:
        lines = client.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = [value(name) for name in ("rsoup_prompt_tokens_total", "rsoup_completion_tokens_total")]
    client.complete(prompt=[5, 6, 7, 8], max_tokens=3, n=2, stop_token_ids=[])
    after = [value(name) for name in ("rsoup_prompt_tokens_total", "rsoup_completion_tokens_total")]
    assert after[0] - before[0] == 4
    assert 2 <= after[1] - before[1] <= 6
    assert client.idle()
    assert value("rsoup_answers_running") == value("rsoup_requests_waiting") == value("rsoup_cache_tokens ") == 0
    assert value('rsoup_requests_total{endpoint="/v1/completions",status="200"}') > 0


def test_a_full_queue_asks_to_come_later(client: Client) -> None:
    """All rows taken and four requests behind them; the places are free again afterwards."""
    slowly = client.opened.served.model.model.get_decoder().register_forward_hook(lambda *_: time.sleep(0.1))
    asked: list[dict[str, Any]] = [{"n": 8, "max_tokens": 110, "stop_token_ids": []}, *[{}] * 4]
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda body=body: found.append(client.complete(**body).status_code)) for body in asked
    ]
    try:
        threads[0].start()
        while not client.engine.running:
            time.sleep(0.01)
        for thread in threads[1:]:
            thread.start()
        while client.engine.waiting < 4:
            time.sleep(0.01)
        answer = client.complete()
        refused(answer, 429, "4 requests are waiting. Try again in", code="queue_full")
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        slowly.remove()
        for thread in threads:
            thread.join()
    assert found == [200] * 5
    assert client.idle()


def test_more_prompts_than_may_ever_wait_are_no_matter_of_time(client: Client) -> None:
    refused(client.complete(prompt=[[5]] * 5), 400, "5 prompts are more than the 4 that may wait here", param="prompt")


def test_a_failure_inside_is_told_and_the_next_request_is_answered(client: Client) -> None:
    decoder = client.opened.served.model.model.get_decoder()

    def failing_at(width: int) -> Any:
        def fail(_module: Any, _inputs: Any, kwargs: Any) -> None:
            if kwargs["input_ids"].shape[1] == width:
                raise RuntimeError("a bit fell over")

        return decoder.register_forward_pre_hook(fail, with_kwargs=True)

    for width, message in ((3, "The prompt could not be encoded"), (1, "Computing the answer failed")):
        handle = failing_at(width)
        try:
            refused(client.complete(), 500, f"{message}: a bit fell over", code="failed")
            told = events(client.complete(stream=True))
            assert message in told[-1]["error"]["message"]
        finally:
            handle.remove()
    assert client.complete().status_code == 200
    assert client.said[-1] == "error: RuntimeError: a bit fell over"
    assert client.idle()


def test_a_key_and_a_host_name_are_asked_for(chat_model: Any) -> None:
    client = Client(Source(model=str(chat_model)), Access("sécret", ("localhost",)))
    try:
        client.http.base_url = "http://localhost"  # type: ignore[assignment]
        body = {"model": "base", "prompt": "the", "max_tokens": 1}
        for key in (None, "Bearer sécre", "secre", "Bearer ", "Bearer secret"):
            headers = {} if key is None else {"Authorization": key.encode()}
            refused(client.http.post("/v1/completions", json=body, headers=headers), 401, "API key is missing or wrong")
        refused(client.http.get("/metrics"), 401, "API key")
        assert client.http.get("/health").json() == {"status": "ok"}
        right = {"Authorization": "Bearer sécret".encode()}
        assert client.http.post("/v1/completions", json=body, headers=right).status_code == 200
        other = client.http.post("http://evil.example/v1/completions", json=body, headers=right)
        refused(other, 403, "does not go by the name 'evil.example'", code="forbidden")
        assert client.http.get("/v1/models", headers=right).json()["data"][0]["id"] == "base"  # a base alone
        client.stop()
        refused(client.http.post("/v1/completions", json=body, headers=right), 503, "The server is stopping")
        assert client.http.get("/health").status_code == 503
    finally:
        client.close()


def test_answers_that_outlast_the_server_are_told(chat_model: Any) -> None:
    """Streams end with the error, whole answers with 503; what waits is told as well."""
    client = Client(Source(model=str(chat_model)), rows=1, queue=8)
    decoder = client.opened.served.model.model.get_decoder()
    slowly = decoder.register_forward_hook(lambda *_: time.sleep(0.05))
    found: dict[bool, Any] = {}

    def ask(stream: bool) -> None:
        found[stream] = client.complete(max_tokens=100, temperature=1, seed=1, stream=stream)

    threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False)]
    try:
        threads[0].start()
        while not client.engine.running:
            time.sleep(0.01)
        threads[1].start()
        while not client.engine.waiting:
            time.sleep(0.01)
        client.stop()
        for thread in threads:
            thread.join(10)
    finally:
        slowly.remove()
        client.close()
    refused(found[False], 503, "The server is stopping", code="stopping")
    assert events(found[True])[-1]["error"]["code"] == "stopping"


def test_a_client_that_leaves_while_it_sends_is_gone() -> None:
    """It is no failure of the server: nothing is logged, and the count is that of clients that left."""
    events = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(events)

    scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(GoneError):
        asyncio.run(read_body(HttpRequest(scope, receive)))
