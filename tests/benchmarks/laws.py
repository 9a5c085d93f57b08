"""What the laws of ``costs.py`` say, counted on small random models: bytes kept for gradients, and operations."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.costs import Kept, Shape, Work, forward, kept_bytes, learning
from rsoup.models.load import load_language_model
from rsoup.recipe import LoraSection
from rsoup.training.policy import Policy, fresh_config
from tiny import build_tiny_model

HEAD = 16
"""Width of an attention head of the small models."""
SMALL = Shape("small", layers=2, hidden=64, intermediate=192, keys=32, vocabulary=64)
WORK = Work(prompts=2, group=3, length=12, tokens=9, rank=4)
VARIED: Sequence[tuple[dict[str, int], dict[str, int]]] = (
    ({}, {}),
    ({"hidden": 128}, {}),
    ({"hidden": 96, "keys": 96}, {}),
    ({"intermediate": 384}, {}),
    ({"keys": 16}, {}),
    ({}, {"rank": 16}),
    ({"intermediate": 96}, {"rank": 8}),
    ({}, {"length": 60}),
    ({}, {"length": 120, "group": 4}),
    ({"hidden": 128, "keys": 128, "intermediate": 128}, {"length": 40}),
)
"""What is varied from the small model and its work; the law's numbers are the least squares over all."""


def small_policy(folder: Path, shape: Shape, rank: int) -> Policy:
    """Return a random policy of a shape, in bfloat16, with factors on q, k, v and o and the attention of a GPU."""
    build_tiny_model(
        folder,
        seed=0,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // HEAD,
        num_key_value_heads=shape.keys // HEAD,
        max_position_embeddings=1024,
    )
    model = load_language_model(str(folder), revision=None, dtype="bfloat16")
    policy = Policy(model, fresh_config(LoraSection(r=rank), model))
    policy.language_model.decoder.set_attn_implementation("sdpa")
    return policy


def a_pass(policy: Policy, work: Work) -> torch.Tensor:
    """Return a loss of completions, with its graph."""
    device = policy.language_model.device
    ids = torch.randint(4, 30, (work.prompts, work.length), device=device)
    completions = torch.randint(4, 30, (work.prompts, work.group, work.tokens), device=device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    return policy.think(ids, mask, completions, 1.0).logprobs.sum()


def counted_bytes(policy: Policy, work: Work) -> int:
    """Return the bytes that a pass keeps for its gradients, beside the model's own."""
    kept: dict[int, torch.Tensor] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in policy.peft.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        a_pass(policy, work)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def layers_bytes(shape: Shape, work: Work) -> int:
    """Return the bytes that all layers keep: what twice as many keep more."""
    found = []
    for layers in (shape.layers, 2 * shape.layers):
        with tempfile.TemporaryDirectory() as folder:
            own = Shape(shape.name, layers, shape.hidden, shape.intermediate, shape.keys, shape.vocabulary)
            found.append(counted_bytes(small_policy(Path(folder), own, work.rank), work))
    return found[1] - found[0]


def varied() -> list[tuple[Shape, Work]]:
    """Return the models and the work that are counted."""
    return [(Shape(**{**vars(SMALL), **shape}), Work(**{**vars(WORK), **work})) for shape, work in VARIED]


def fitted() -> Kept:
    """Return the law's numbers: the least squares over what was counted."""
    rows, bytes_ = [], []
    for shape, work in varied():
        tokens = work.prompts * work.row * shape.layers
        rows.append([shape.hidden, shape.intermediate, shape.keys, work.rank, work.row])
        bytes_.append(layers_bytes(shape, work) / tokens)
    found: Any = np.linalg.lstsq(np.array(rows, dtype=float), np.array(bytes_), rcond=None)[0]
    return Kept(*(round(float(number), 2) for number in found))


def counted_operations(policy: Policy, work: Work) -> tuple[int, int]:
    """Return the operations of a pass without gradients, and of one with them.

    Attention is that of plain products, which the counter knows; a kernel that computes scores again makes more.
    """
    found = []
    for learns in (False, True):
        plain = sdpa_kernel(SDPBackend.MATH)
        with plain, FlopCounterMode(display=False) as counter, torch.set_grad_enabled(learns):
            loss = a_pass(policy, work)
            if learns:
                loss.backward()
        found.append(counter.get_total_flops())
    return found[0], found[1]


def measure() -> None:
    """Print what was counted beside what the laws say."""
    kept = fitted()
    print(f"bytes kept per token and layer, for each: {kept}")
    for shape, work in varied():
        with tempfile.TemporaryDirectory() as folder:
            policy = small_policy(Path(folder), shape, work.rank)
            passes = counted_operations(policy, work)
            vocabulary = policy.language_model.head.weight.shape[0]
        own = Shape(**{**vars(shape), "vocabulary": vocabulary})
        laws = forward(own, work, work.prompts), learning(own, work, work.prompts)
        ratios = ", ".join(f"{count / law:.3f}" for count, law in zip(passes, laws, strict=True))
        share = layers_bytes(shape, work) / kept_bytes(shape, work, work.prompts, kept)
        print(
            f"{shape.hidden} {shape.intermediate} {shape.keys}, rank {work.rank}, rows of {work.row}: counted over ",
            end="",
        )
        print(f"law: operations {ratios}; bytes {share:.3f}")
