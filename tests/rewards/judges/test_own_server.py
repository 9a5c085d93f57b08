"""A judge that rsoup itself serves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewards.judges.server import listening
from rsoup.errors import FailedSampleError
from rsoup.recipe import RewardSection, TaskSection
from rsoup.rewards.samples import Sample
from rsoup.rewards.scoring import make_scorer, score, score_each
from rsoup.serving.app import Access
from rsoup.serving.opening import open_run
from rsoup.serving.server import Settings, make_api, make_engine
from rsoup.serving.source import Source
from rsoup.serving.worker import Worker
from rsoup.tiny.models import build_policy
from tiny import build_adapter


def always(folder: Path, word: str) -> Path:
    """Make a model say a word: each layer adds nothing, and after the last token of a prompt the word is likeliest."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    last = tokenizer("assistant: ")["input_ids"][-1]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer(word)["input_ids"][0]] = model.model.embed_tokens.weight[last]
    model.save_pretrained(folder)
    return folder


def test_a_model_that_rsoup_serves_judges_and_what_it_babbles_is_shown(tmp_path: Path) -> None:
    policy = always(build_policy(tmp_path / "judge", "llama", TaskSection(name="reviews"), 0), "7")
    adapter = build_adapter(tmp_path / "adapter", policy, 1)
    opened = open_run(Source(model=str(policy), adapters=[f"one={adapter}"]))
    settings = Settings(rows=8, cache_tokens=16384, queue=16, max_tokens=6)
    said: list[str] = []
    worker = Worker(make_engine(opened.served, settings, said.append), said.append)
    worker.start()
    try:
        with listening(make_api(opened, worker, Access(), settings, said.append).app()) as url:
            judge = {"rubric": "How good?", "model": "base", "base_url": url, "max_tokens": 1}
            samples = [Sample("a kettle", "it boils"), Sample("a kettle", "it leaks")]
            own = RewardSection.model_validate({"judge": judge})
            assert score("kind", make_scorer("kind", own), samples).tolist() == [7, 7]
            own = RewardSection.model_validate({"judge": {**judge, "scale": [0, 5]}})
            found = score_each("kind", make_scorer("kind", own), samples)
            assert isinstance(found.problem, FailedSampleError)
            assert "answered '7', cut at max_tokens (1) in the place of a number from 0 to 5" in found.problem.message
    finally:
        worker.engine.stop(at_once=True)
        worker.join()


@pytest.fixture(autouse=True)
def without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server wants no key, and there is none."""
    monkeypatch.delenv("OPENAI_API_KEY")
