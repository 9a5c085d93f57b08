"""Where the layers of a base lie that is spread over devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

from rsoup.models.load import load_language_model
from rsoup.models.spreading import device_map, layers_of, spread


@pytest.mark.parametrize(
    ("layers", "others", "devices", "places"),
    [
        ([1, 1, 1, 1], 0, 2, [0, 0, 1, 1]),
        ([2, 2, 2, 2], 4, 2, [0, 1, 1, 1]),  # 6 and 6
        ([1, 1], 9, 2, [1, 1]),  # what is beside the layers fills the first device
        ([1] * 6, 0, 4, [0, 0, 1, 1, 2, 2]),  # three devices hold 2 each, and four could do no better
        ([3, 1, 1], 0, 1, [0, 0, 0]),
        ([5], 1, 8, [1]),
    ],
)
def test_the_fullest_device_is_as_empty_as_it_gets(
    layers: list[int], others: int, devices: int, places: list[int]
) -> None:
    assert spread(layers, others, devices) == places


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_map_covers_a_model_and_parts_its_layers_alone(family: str, tiny_model: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_model)
    if family == "gpt2":  # tied, other names, positions that are learnt
        config = GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=4, n_head=2)
    devices = [torch.device("cuda", number) for number in range(2)]
    places = device_map(AutoModelForCausalLM, config, devices)
    model = AutoModelForCausalLM.from_config(config)
    layers = layers_of(model.get_decoder())
    names = {id(module): name for name, module in model.named_modules()}
    assert {places[names[id(layer)]] for layer in layers} == set(devices)
    for name, _ in [*model.named_parameters(), *model.named_buffers()]:
        holders = [place for part, place in places.items() if f"{name}.".startswith(f"{part}.")]
        assert len(holders) == 1, name
    inside = {names[id(layer)] for layer in layers}
    assert {place for part, place in places.items() if part not in inside} == {devices[0]}


def test_a_dispatched_base_says_what_it_says_whole(tiny_model: Path) -> None:
    """Through accelerate's hooks; both devices are the CPU here."""
    whole = load_language_model(str(tiny_model), revision=None, dtype="float32")
    parted = load_language_model(str(tiny_model), revision=None, dtype="float32", placement="spread")
    places = device_map(AutoModelForCausalLM, parted.model.config, [torch.device("cpu")] * 2)
    dispatch_model(parted.model, places, main_device="cpu", force_hooks=True)
    prompts, mask = whole.pad([[5, 6, 7], [8, 9]])
    ids = torch.tensor([[[4, 5], [6, 7]], [[8, 9], [10, 11]]])
    one, other = (model.logprobs(model.completion_states(prompts, mask, ids), ids, 1.0) for model in (whole, parted))
    assert torch.equal(one, other)
