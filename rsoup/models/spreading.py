"""A frozen base whose layers lie on several GPUs of one process (accelerate's device map)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn


def layers_of(decoder: nn.Module) -> nn.ModuleList:
    """Return the list of a decoder's layers: the list of modules that holds the most."""
    lists = [module for module in decoder.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=_numbers)


def spread(layers: Sequence[int], others: int, devices: int) -> list[int]:
    """Return the device of each layer, in order: the largest sum on a device is as small as it gets.

    The first device also holds the ``others``: embeddings, norms, output layer. Sizes in any unit.
    """
    low, high = max([*layers, others]), others + sum(layers)
    while low < high:
        middle = (low + high) // 2
        if len(_filled(layers, others, middle)) <= devices:
            high = middle
        else:
            low = middle + 1
    return [device for device, count in enumerate(_filled(layers, others, low)) for _ in range(count)]


def _filled(layers: Sequence[int], others: int, room: int) -> list[int]:
    """Return how many layers go on each device of so much room, filled one after the other."""
    counts, left = [0], room - others
    for size in layers:
        if size > left:
            counts.append(0)
            left = room
        counts[-1] += 1
        left -= size
    return counts


def device_map(loader: Any, config: Any, devices: Sequence[torch.device]) -> dict[str, torch.device]:
    """Return where each part of a model goes: layers over the devices, everything else on the first.

    So what comes in and goes out of the decoder, the output layer and value heads are on one device.
    """
    with init_empty_weights():
        model = loader.from_config(config)
    layers = layers_of(model.get_decoder())
    names = {id(module): name for name, module in model.named_modules()}
    sizes = [_numbers(layer) for layer in layers]
    places = spread(sizes, _numbers(model) - sum(sizes), len(devices))
    found = {names[id(layer)]: devices[place] for layer, place in zip(layers, places, strict=True)}
    return found | dict.fromkeys(_beside(model, names[id(layers)]), devices[0])


def _beside(model: nn.Module, path: str) -> list[str]:
    """Return the names of the parts that hold everything but the module at ``path``."""
    found, prefix, module = [], "", model
    for step in path.split("."):
        found += [f"{prefix}{name}" for name, _ in module.named_children() if name != step]
        found += [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)]
        found += [f"{prefix}{name}" for name, _ in module.named_buffers(recurse=False)]
        prefix, module = f"{prefix}{step}.", getattr(module, step)
    return found


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
