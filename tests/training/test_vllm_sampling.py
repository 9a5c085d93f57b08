"""Sampling by vLLM while training. That vLLM itself says what rsoup says is ``make vllm-check``; here a stand-in for
its package samples with transformers and PEFT from what it is handed."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, RLOOConfig

from rsoup.errors import MissingPackageError, RecipeError
from rsoup.models.load import load_language_model
from rsoup.progress import Silent
from rsoup.recipe import GenerationSection, LoraSection, TrainingSection, VllmSection
from rsoup.recipe_file import parse_recipe
from rsoup.resolve import resolve
from rsoup.training.expert import train_adapter
from rsoup.training.finished import training_fingerprint
from rsoup.training.policy import Policy, fresh_config
from rsoup.training.sampling_checks import check_sampling
from rsoup.training.trl_settings import trainer_settings
from rsoup.training.vllm_sampling import Place, lent_to_vllm, mismatch
from tiny import recipe_content

from .directly import metrics


class Engine:
    """What ``vllm.LLM`` is to rsoup: completes token ids by base plus adapter folder, and says log-probabilities."""

    honest = True
    started: dict[str, Any]

    def __init__(self, *, model: str, **options: Any) -> None:
        Engine.started = options
        self.base = AutoModelForCausalLM.from_pretrained(model)

    @torch.no_grad()
    def generate(
        self, prompts: list[dict[str, list[int]]], params: list[dict[str, Any]], *, lora_request: Any, use_tqdm: bool
    ) -> list[Any]:
        assert not use_tqdm
        model = PeftModel.from_pretrained(self.base, lora_request.lora_path)
        try:
            return [self._answer(model, *own) for own in zip(prompts, params, strict=True)]
        finally:
            self.base = model.unload()

    def _answer(self, model: Any, prompt: dict[str, list[int]], params: dict[str, Any]) -> Any:
        random = torch.Generator().manual_seed(params["seed"])
        ids, said = list(prompt["prompt_token_ids"]), []
        while len(said) < params["max_tokens"]:
            logits = model(torch.tensor([ids])).logits[0, -1]
            logs = (logits / params["temperature"]).log_softmax(-1)
            token = int(torch.multinomial(logs.exp(), 1, generator=random))
            told = logs if self.honest else logits.log_softmax(-1)
            said.append({token: SimpleNamespace(logprob=float(told[token]))})
            ids.append(token)
            if token in params["stop_token_ids"]:
                break
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids[-len(said) :], logprobs=said)])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of vLLM's name."""
    package, lora = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.__spec__ = SimpleNamespace(name="vllm")  # type: ignore[assignment]
    package.LLM, package.SamplingParams = Engine, dict  # type: ignore[attr-defined]
    lora.LoRARequest = lambda name, number, path: SimpleNamespace(lora_path=path)  # type: ignore[attr-defined]
    for name, module in {"vllm": package, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": lora}.items():
        monkeypatch.setitem(sys.modules, name, module)


def trained(folder: Path, model: Path, **more: Any) -> list[dict[str, Any]]:
    content = recipe_content(folder, model)
    content["rewards"], content["morl"] = ["brief"], []
    content["training"] |= {"sampling": "vllm", "completions_per_prompt": 4}
    content["generation"] |= {"temperature": 0.7, **more}
    out = train_adapter(resolve(parse_recipe(content, "test")), "brief", {"brief": 1.0}, "expert", Silent())
    return metrics(out)


@pytest.mark.usefixtures("stand_in")
def test_the_engine_gets_the_present_factors_and_our_own_pass_says_the_log_probabilities(
    tmp_path: Path, tiny_model: Path
) -> None:
    """With any other adapter, prompt, temperature or order of completions the two would be apart."""
    lines = trained(tmp_path, tiny_model)
    assert lines[-1]["kl"] > 0.1  # the factors have moved far from the start
    for line in lines:
        assert line["sampling"]["gap"] < 1e-5
        assert line["sampling"]["ratio_max"] == pytest.approx(1, abs=1e-4)
        assert 0 < line["ended_by_eos"] + line["completion_tokens"] <= 7
    assert Engine.started["max_model_len"] >= 6 + 6
    assert Engine.started["max_lora_rank"] == 8


@pytest.mark.usefixtures("stand_in")
def test_an_engine_that_samples_otherwise_than_it_says_is_seen(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "honest", False)
    assert min(line["sampling"]["gap"] for line in trained(tmp_path, tiny_model)) > 0.1


@pytest.mark.usefixtures("stand_in")
def test_lengths_are_drawn_and_ends_ignored_as_asked(tmp_path: Path, tiny_model: Path) -> None:
    lines = trained(tmp_path, tiny_model, min_new_tokens=2, stop_at_eos=False)
    assert all(2 <= line["completion_tokens"] < 6 for line in lines)
    assert all(line["sampling"]["gap"] < 1e-5 for line in lines)


def test_a_mismatch_by_hand() -> None:
    """Tokens sampled with probabilities 1/2 and 1/4 that we hold for 1/4 and 1/2; a third one is padding."""
    theirs, ours = torch.tensor([[[0.5, 0.25, 1.0]]]).log(), torch.tensor([[[0.25, 0.5, 0.1]]]).log()
    found = mismatch(ours, theirs, torch.tensor([[[True, True, False]]]))
    assert found == pytest.approx({"gap": math.log(2), "ratio_mean": 1.25, "ratio_min": 0.5, "ratio_max": 2.0})


def test_trl_merges_into_copies_of_the_base(tiny_model: Path) -> None:
    """In bfloat16 W + d - d is not W: merged in place the base would drift."""
    loaded = load_language_model(str(tiny_model), revision=None, dtype="bfloat16")
    policy = Policy(loaded, fresh_config(LoraSection(r=2, alpha=4), loaded))
    for name, factor in policy.factors().items():
        torch.nn.init.normal_(factor, std=0.3 if "lora_B" in name else 1.0)
    before = [weight.clone() for weight in policy.adapted_weights()]
    with lent_to_vllm(policy, Place("elsewhere", None)):
        assert policy.peft.get_base_model().name_or_path == "elsewhere"
        policy.peft.merge_adapter()
        updates = [layer.get_delta_weight("default") for layer in policy._layers()]
        for weight, old, update in zip(policy.adapted_weights(), before, updates, strict=True):
            assert torch.equal(weight, (old + update).bfloat16())
        policy.peft.unmerge_adapter()
        assert all(map(torch.equal, policy.adapted_weights(), before))
    assert loaded.model.name_or_path == str(tiny_model)
    policy.peft.merge_adapter()
    policy.peft.unmerge_adapter()
    assert not all(map(torch.equal, policy.adapted_weights(), before))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("config", [GRPOConfig, RLOOConfig])
def test_trl_is_told_what_the_recipe_says(config: Any, tmp_path: Path) -> None:
    algo = config.__name__.removesuffix("Config").lower()

    def told(**vllm: Any) -> Any:
        training = TrainingSection(algo=algo, sampling="vllm", vllm=VllmSection(**vllm))
        settings = trainer_settings(training, GenerationSection(), 1)
        return config(**settings, output_dir=str(tmp_path), use_cpu=True, bf16=False)

    beside, asked = told(memory=0.4, sleep=True, tensor_parallel=2), told(mode="server", url="http://a:1")
    assert (beside.use_vllm, beside.vllm_mode) == (asked.use_vllm, "colocate") == (True, "colocate")
    assert (beside.vllm_gpu_memory_utilization, beside.vllm_enable_sleep_mode) == (0.4, True)
    assert beside.vllm_tensor_parallel_size == 2
    assert (asked.vllm_mode, asked.vllm_server_base_url) == ("server", "http://a:1")


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"vllm": {"memory": 0.5}}, "sampling is transformers"),
        ({"sampling": "vllm", "vllm": {"mode": "server", "url": "http://a"}}, "an engine in its own process"),
        ({"sampling": "vllm", "gpus": 2}, "one process on one GPU"),
        ({"sampling": "vllm", "algo": "grpo", "vllm": {"mode": "server"}}, "no url is given"),
        ({"sampling": "vllm", "algo": "grpo", "vllm": {"url": "http://a"}}, "vllm.url is for mode server"),
        (
            {"sampling": "vllm", "algo": "grpo", "vllm": {"mode": "server", "url": "http://a", "sleep": True}},
            "vllm.sleep is for mode colocate",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSection.model_validate(training)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"quantization": "4bit"}, "not from its 4bit weights"),
        ({"placement": "sharded"}, "holds a second base, and whole"),
        ({"lora": {"target_parameters": ["experts.up"]}}, "have not been tried with vLLM"),
    ],
)
def test_a_base_that_the_engine_has_not_is_refused(
    tmp_path: Path, tiny_model: Path, model: dict[str, Any], message: str
) -> None:
    content = recipe_content(tmp_path, tiny_model)
    content["model"] |= model
    content["training"]["sampling"] = "vllm"
    with pytest.raises(RecipeError, match=message):
        parse_recipe(content, "test")


def test_an_engine_that_is_missing_is_told_before_anything_is_written(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingPackageError, match="sampling vllm needs the package vllm"):
        trained(tmp_path, tiny_model)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("settings", "processes", "gpu", "message"),
    [
        ({}, 2, True, "2 processes would each start an engine on the first GPU"),
        ({"vllm": {"sleep": True}}, 1, False, "there is no GPU"),
        ({"algo": "grpo"}, 1, False, "packs its weights on a CPU"),
        ({"algo": "rloo", "vllm": {"mode": "server", "url": "http://localhost:1"}}, 1, False, "NCCL"),
        ({"algo": "rloo", "vllm": {"mode": "server", "url": "http://localhost:1"}}, 1, True, "no server answers"),
        ({"algo": "rloo", "vllm": {"mode": "server", "url": "nowhere"}}, 1, True, "no server answers"),
        ({"algo": "grpo", "vllm": {"tensor_parallel": 2}}, 3, True, "does not divide the 3 processes"),
        ({"algo": "grpo", "vllm": {"tensor_parallel": 2}}, 4, True, None),
    ],
)
def test_what_vllm_cannot_do_here_is_refused(
    settings: dict[str, Any], processes: int, gpu: bool, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    training = TrainingSection.model_validate({"sampling": "vllm", **settings})
    if message is None:
        check_sampling(training, processes)
        return
    with pytest.raises(RecipeError) as caught:
        check_sampling(training, processes)
    assert message in caught.value.message


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A server that answers its configuration with the status in the URL's path."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.split("/")[1]))
            self.end_headers()
            self.wfile.write(json.dumps({}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("status", "message"), [(200, None), (404, "development mode"), (500, "answers 500")])
def test_a_server_has_to_take_weights(
    server: HTTPServer, status: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    url = f"http://127.0.0.1:{server.server_port}/{status}"
    training = TrainingSection(algo="rloo", sampling="vllm", vllm=VllmSection(mode="server", url=url))
    if message is None:
        check_sampling(training, 1)
        return
    with pytest.raises(RecipeError) as caught:
        check_sampling(training, 1)
    assert message in caught.value.message
    assert "VLLM_SERVER_DEV_MODE=1 vllm serve" in caught.value.hint


def test_how_vllm_runs_is_no_part_of_what_a_training_is(tmp_path: Path, tiny_model: Path) -> None:
    def fingerprint(**training: Any) -> str:
        content = recipe_content(tmp_path, tiny_model)
        content["training"] |= training
        return training_fingerprint(resolve(parse_recipe(content, "test")), {"brief": 1.0})

    plain, beside = fingerprint(), fingerprint(sampling="vllm")
    assert plain == fingerprint(sampling="transformers") != beside
    assert beside == fingerprint(sampling="vllm", vllm={"memory": 0.6, "sleep": True})
