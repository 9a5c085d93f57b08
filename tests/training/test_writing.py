"""What a run leaves of its trainings."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from rsoup.files import sha256_file

from .directly import metrics, provenance

WEIGHTS = "adapter_model.safetensors"


def test_all_adapters_of_a_run_share_one_start(tiny_run: Path) -> None:
    adapters = tiny_run / "run" / "adapters"
    start = sha256_file(adapters / "init" / WEIGHTS)
    assert {path.name for path in adapters.iterdir()} == {"init", "positive", "brief", "morl-0.50-0.50"}
    for folder in adapters.iterdir():
        found = provenance(folder)
        assert found["init_sha256"] == start
        assert found["sha256"] == sha256_file(folder / WEIGHTS)
        assert found["name"] == folder.name
    assert all(not array.any() for name, array in load_file(adapters / "init" / WEIGHTS).items() if "lora_B" in name)


def test_an_adapter_tells_where_it_comes_from(tiny_run: Path, tiny_model: Path) -> None:
    found = provenance(tiny_run / "run/adapters/morl-0.50-0.50")
    assert (found["schema"], found["kind"], found["steps"], found["seed"]) == (1, "morl", 3, 0)
    assert found["rewards"] == {"positive": 0.5, "brief": 0.5}
    assert found["base_model"] == {"name": str(tiny_model), "sha256": sha256_file(tiny_model / "model.safetensors")}
    assert set(found["versions"]) == {"rsoup", "torch", "transformers", "peft"}
    assert provenance(tiny_run / "run/adapters/positive")["rewards"] == {"positive": 1.0}


def test_metrics_have_a_line_a_step_and_begin_at_the_start(tiny_run: Path) -> None:
    for name in ("positive", "brief", "morl-0.50-0.50"):
        lines = metrics(tiny_run / "run/adapters" / name)
        assert [line["step"] for line in lines] == [1, 2, 3]
        assert lines[0]["kl"] == 0.0
        assert lines[1]["kl"] != 0.0
        assert all(set(line["scores"]) == {"positive", "brief"} for line in lines)


def test_the_first_step_of_every_training_samples_the_same_completions(tiny_run: Path) -> None:
    first = [metrics(tiny_run / "run/adapters" / name)[0] for name in ("positive", "brief", "morl-0.50-0.50")]
    assert first[0]["scores"] == first[1]["scores"] == first[2]["scores"]
    assert first[0]["completion"] == first[1]["completion"]


def test_peft_loads_every_adapter_of_a_run(tiny_run: Path, tiny_model: Path) -> None:
    ids = torch.tensor([[4, 5, 6, 7]])
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    outputs = {}
    with torch.no_grad():
        outputs["base"] = base(input_ids=ids).logits
        for name in ("init", "positive", "brief", "morl-0.50-0.50"):
            loaded = PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(tiny_model), tiny_run / "run/adapters" / name
            )
            outputs[name] = loaded.eval()(input_ids=ids).logits
    assert torch.equal(outputs["init"], outputs["base"])
    assert not torch.equal(outputs["positive"], outputs["base"])
    assert not torch.equal(outputs["positive"], outputs["brief"])


def test_the_model_card_opens_with_what_the_hub_reads(tiny_run: Path) -> None:
    _, front, text = (tiny_run / "run/adapters/brief/README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "peft"
    assert "| brief |" in text
    assert "one reward" in text
