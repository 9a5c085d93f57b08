"""Reward models are found, loaded once and run once: adapters on their base, dtypes, models with code of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, LlamaForTokenClassification

from rewards.models import CHATS, GROUPED, PAIRS, decoder, encoder, save, word_tokenizer
from rewards.texts import score_texts
from rsoup.errors import RewardError
from rsoup.recipe import RewardSection
from rsoup.rewards import reward_identity
from rsoup.rewards.classifier import Classifier
from rsoup.rewards.samples import plain_samples
from rsoup.rewards.scoring import make_scorer, make_scorers, score_all
from tiny import build_classifier, build_judge_adapter, build_tiny_model

POSTS, COMPLETIONS = ["the kettle boils fast", "a", "the lid broke , and it gets hot"], ["good", "a lid is fine", "bad"]
TEMPLATE = "{post}{eos}{completion}"


def scores(model: Path | str, **settings: Any) -> np.ndarray:
    section = RewardSection.model_validate({"model": str(model), **settings})
    return score_texts("judge", make_scorer("judge", section), POSTS, COMPLETIONS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model: its classifier is in the adapter."""
    tokenizer = word_tokenizer()
    return build_tiny_model(
        tmp_path_factory.mktemp("base"), 0, vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=2
    )


def lora(base: Path, folder: Path, *, name: str | None = None, **settings: Any) -> Path:
    """Save an adapter with a score of its own on a base, as TRL's RewardTrainer does."""
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    config = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "SEQ_CLS", "init_lora_weights": False}
    get_peft_model(model, LoraConfig(**{**config, **settings})).save_pretrained(folder)
    if name is not None:
        content = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**content, "base_model_name_or_path": name}))
    return folder


def by_peft(base: Path, adapter: Path, tokenizer: Any) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    adapted = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        return [
            float(adapted(**tokenizer(f"{post}</s>{completion}", return_tensors="pt")).logits[0, 0])
            for post, completion in zip(POSTS, COMPLETIONS, strict=True)
        ]


def test_an_adapter_scores_as_peft_does_with_the_tokenizer_of_its_folder(base: Path, tmp_path: Path) -> None:
    adapter, tokenizer = lora(base, tmp_path / "adapter"), word_tokenizer()
    tokenizer.save_pretrained(adapter)
    expected = by_peft(base, adapter, tokenizer)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(scores(adapter, template=TEMPLATE), expected, atol=1e-5)


def test_an_adapter_without_a_tokenizer_has_that_of_its_base(base: Path, tmp_path: Path) -> None:
    judge = save(
        tmp_path / "base", AutoModelForSequenceClassification.from_pretrained(base, num_labels=1), word_tokenizer()
    )
    adapter = lora(judge, tmp_path / "adapter", name="base")  # found beside it, wherever the command is called
    (tmp_path / "adapter" / "base").symlink_to(judge)
    found = scores(adapter, template=TEMPLATE)
    lora(judge, adapter, name=str(judge))  # PEFT looks for the base where the command is called
    np.testing.assert_allclose(found, by_peft(judge, adapter, word_tokenizer()), atol=1e-5)


def test_an_adapter_whose_base_is_gone_says_so(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "adapter", name="/gone/llama")
    with pytest.raises(RewardError, match="the adapter's base model /gone/llama is not there") as caught:
        scores(adapter)
    assert "base_model_name_or_path" in caught.value.hint
    with pytest.raises(RewardError, match="is not there"):
        reward_identity("judge", RewardSection(model=str(adapter)))


def test_a_half_copied_adapter_says_what_it_lacks(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(RewardError, match=r"the adapter has no weights \(adapter_model\.safetensors\)"):
        scores(adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(RewardError, match=r"adapter_config\.json cannot be read"):
        scores(adapter)


def test_an_adapter_for_another_task_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "adapter")
    content = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**content, "task_type": "CAUSAL_LM"}))
    with pytest.raises(RewardError, match=r"is an adapter for another task \(CAUSAL_LM\)"):
        scores(adapter)


def test_an_adapter_that_does_not_fit_its_base_is_refused(base: Path, tmp_path: Path) -> None:
    bert = build_classifier(tmp_path / "bert", id2label={0: "good"}, label2id={"good": 0})
    adapter = lora(base, tmp_path / "adapter", name=str(bert))
    with pytest.raises(RewardError, match=f"the adapter does not fit its base model {bert}"):
        scores(adapter)


def test_an_adapter_without_a_score_on_a_base_without_one_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "adapter")
    word_tokenizer().save_pretrained(adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "score" not in key}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(RewardError, match=r"it lacks the weights score\.weight"):
        scores(adapter)


def test_the_identity_of_an_adapter_follows_its_base(tmp_path: Path) -> None:
    first, second = build_classifier(tmp_path / "first"), build_classifier(tmp_path / "second", seed=1)
    adapters = [
        build_judge_adapter(tmp_path / name, first, base=str(base)) for name, base in (("a", first), ("b", second))
    ]
    one, other = (reward_identity("judge", RewardSection(model=str(adapter))) for adapter in adapters)
    assert one["base"] != other["base"]


# What decides a score


def test_the_identity_of_a_classifier_follows_how_it_reads_and_its_dtype(tmp_path: Path) -> None:
    folder = save(tmp_path / "judge", *CHATS["llama"]())
    section = RewardSection(model=str(folder))
    before = reward_identity("judge", section, "cpu")
    assert reward_identity("judge", RewardSection(model=str(folder), dtype="float32"), "cpu") == before
    assert reward_identity("judge", section, "cuda") != before
    assert reward_identity("judge", RewardSection(model=str(folder), dtype="bfloat16"), "cpu") != before
    assert reward_identity("judge", RewardSection(model=str(folder), template="text"), "cpu") != before
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    moved = reward_identity("judge", RewardSection(model=str(other)), "cpu")
    (other / "chat_template.jinja").write_text("{{ messages[1].content }}")
    assert moved["files"] == before["files"]


def test_narrow_weights_are_widened_on_the_cpu_unless_told(tmp_path: Path) -> None:
    model, tokenizer = CHATS["llama"]()
    folder = save(tmp_path, model.to(torch.bfloat16), tokenizer)
    alone = scores(folder, batch_size=1)
    np.testing.assert_allclose(scores(folder), alone, atol=1e-5)
    narrow = scores(folder, dtype="bfloat16")
    assert 0 < np.abs(narrow - alone).max() < 0.1
    assert torch.equal(torch.tensor(narrow), torch.tensor(narrow).bfloat16().double())


# Shared models


def test_rewards_of_one_model_are_one_model_and_one_pass(tmp_path: Path) -> None:
    """Counted by a hook on the real model: three rewards, one pass for each batch."""
    folder = str(build_classifier(tmp_path / "judge"))
    sections = {
        "good": RewardSection(model=folder, format="positive"),
        "bad": RewardSection(model=folder, format="negative"),
        "both": RewardSection(model=folder, format="positive-negative"),
    }
    scorers = make_scorers(sections)
    models = [scorer._resident.model for scorer in scorers.values() if isinstance(scorer, Classifier)]
    assert models[0] is models[1] is models[2]
    passes = list[int]()
    models[0].register_forward_hook(lambda module, given, output: passes.append(1))
    found = score_all(scorers, plain_samples(POSTS, COMPLETIONS))
    assert len(passes) == 1
    np.testing.assert_allclose(found["both"], found["good"] - found["bad"], atol=1e-12)
    score_all(scorers, plain_samples(POSTS, COMPLETIONS[::-1]))
    assert len(passes) == 2
    alone = RewardSection(model=folder, format="positive", dtype="bfloat16")
    other = make_scorer("narrow", alone)
    assert isinstance(other, Classifier)
    assert other._resident.model is not models[0]


def test_a_text_that_comes_twice_is_read_once_and_a_changed_folder_anew(tmp_path: Path) -> None:
    folder = build_classifier(tmp_path / "judge")
    first = make_scorer("judge", RewardSection(model=str(folder), batch_size=2))
    assert isinstance(first, Classifier)
    rows = list[int]()
    first._resident.model.register_forward_hook(lambda module, given, output: rows.append(len(output.logits)))
    found = score_texts("judge", first, ["the kettle"] * 4, ["good", "bad", "good", "bad"])
    assert rows == [2]
    assert found[:2].tolist() == found[2:].tolist()
    build_classifier(folder, seed=1)
    second = make_scorer("judge", RewardSection(model=str(folder)))
    assert score_texts("judge", second, ["the kettle"], ["good"])[0] != found[0]


# Models that are none


OWN = """
import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput
from dataclasses import dataclass
@dataclass
class Scores(ModelOutput):
    rewards: torch.Tensor = None
    logits: torch.Tensor = None
class Gated(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.heads = torch.nn.Linear(config.hidden_size, 5, bias=False)
        self.post_init()
    def forward(self, input_ids=None, attention_mask=None):
        rewards = self.heads(self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, -1])
        return Scores(rewards=rewards, logits=rewards.mean(-1))
"""


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    """A model of its own code, that reads the last position, whatever it is: five rewards and their mean."""
    model, tokenizer = CHATS["llama"]()
    folder = save(tmp_path / "gated", model, tokenizer)
    weights = load_file(folder / "model.safetensors")
    weights["heads.weight"] = torch.randn(
        5, len(weights.pop("score.weight")[0]), generator=torch.Generator().manual_seed(1)
    )
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    content |= {"auto_map": {"AutoModelForSequenceClassification": "own.Gated"}, "architectures": ["Gated"]}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "own.py").write_text(OWN)
    return folder


def test_a_model_of_its_own_code_is_padded_where_it_does_not_read_and_has_its_heads(gated: Path) -> None:
    mean = scores(gated, trust_remote_code=True)
    np.testing.assert_allclose(scores(gated, trust_remote_code=True, batch_size=1), mean, atol=1e-5)
    heads = [scores(gated, trust_remote_code=True, format=f"rewards.{index}") for index in range(5)]
    np.testing.assert_allclose(np.mean(heads, 0), mean, atol=1e-5)
    assert np.ptp(mean) > 0.01


def test_a_model_that_scores_each_token_is_refused_for_that(gated: Path) -> None:
    each = OWN.replace(".last_hidden_state[:, -1]", ".last_hidden_state")
    for returned, shape in (("rewards.mean(-1)", r"\(n, \d+\), of a size that changes"), ("rewards", r"\(n, \d+, 5\)")):
        (gated / "own.py").write_text(each.replace("rewards=rewards, logits=rewards.mean(-1)", f"logits={returned}"))
        with pytest.raises(RewardError, match=f"cannot be read as a classifier of texts: it returns logits {shape}"):
            scores(gated, trust_remote_code=True)


def test_code_of_a_folder_is_not_run_by_itself(gated: Path) -> None:
    with pytest.raises(RewardError, match=r"needs code from its repository \(Gated\)") as caught:
        scores(gated)
    assert "trust_remote_code: true" in caught.value.hint


def test_a_token_classifier_and_a_language_model_are_refused_by_what_they_are(base: Path, tmp_path: Path) -> None:
    model, tokenizer = CHATS["llama"]()
    folder = save(tmp_path / "tokens", LlamaForTokenClassification(model.config), tokenizer)
    with pytest.raises(RewardError, match="is a LlamaForTokenClassification: it scores every token"):
        scores(folder)
    with pytest.raises(RewardError, match="It is a LlamaForCausalLM, which was not trained to give a score") as caught:
        scores(base)
    assert "judges in words" in caught.value.hint


def test_a_head_of_which_a_part_would_be_left_out_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "biased", *CHATS["llama"]())
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"lm_head.weight": torch.ones(2, 2)}, folder / "model.safetensors", {"format": "pt"})
    assert np.isfinite(scores(folder)).all()  # which is no part of the score
    save_file(weights | {"score.bias": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RewardError, match=r"LlamaForSequenceClassification has no place for its weights score\.bias"):
        scores(folder)


@pytest.mark.parametrize("name", ["v_head.summary.weight", "score.0.weight"])
def test_a_head_of_another_name_is_told_as_what_it_is(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "renamed", *CHATS["llama"]())
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights.pop("score.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RewardError, match=f"LlamaForSequenceClassification has no place for its weights {name}"):
        scores(folder)


def test_a_head_of_another_size_than_the_configuration_says_is_told_with_both(tmp_path: Path) -> None:
    folder = save(tmp_path / "wide", *CHATS["llama"]())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "bad", "1": "good"}}))
    with pytest.raises(
        RewardError, match=r"score\.weight have the shape \(1, 16\), and by its config\.json .* \(2, 16\)"
    ):
        scores(folder)


def test_a_folder_without_a_tokenizer_and_one_with_another_models_are_named(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    model = decoder("Llama", tokenizer, **{**GROUPED, "vocab_size": 20})
    model.save_pretrained(tmp_path)
    with pytest.raises(RewardError, match="the folder has no tokenizer"):
        scores(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RewardError, match=r"makes the token \d+ \(\S+\), and the model knows 20 tokens"):
        scores(tmp_path, template=TEMPLATE)


def test_an_encoder_decoder_that_gets_no_end_token_is_told_where_it_reads(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 16, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "pad_token_id": 0, "eos_token_id": 2}
    folder = save(tmp_path, encoder("Bart", tokenizer, **layers, **widths), tokenizer)
    with pytest.raises(RewardError, match="reads its score at the token </s>, which the text lacks") as caught:
        scores(folder, template="{post} {completion}")
    assert caught.value.hint == "End template with {eos}."
    assert np.isfinite(scores(folder, template="{post} {completion}{eos}")).all()


def test_texts_with_more_end_tokens_than_others_pass_apart(tmp_path: Path) -> None:
    """Encoder-decoders refuse a batch whose rows differ in them, and a completion may have one."""
    folder = save(tmp_path, *PAIRS["bart"]())
    completions = ["good", "good</s>", "bad"]

    def found(chosen: slice) -> list[float]:
        scorer = make_scorer("judge", RewardSection(model=str(folder)))
        return score_texts("judge", scorer, POSTS[chosen], completions[chosen]).tolist()

    alone = [found(slice(index, index + 1))[0] for index in range(3)]
    np.testing.assert_allclose(found(slice(0, 3)), alone, atol=1e-5)
