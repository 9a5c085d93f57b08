"""What an interrupted training needs in order to go on as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rsoup.errors import AdapterError
from rsoup.files import whole_file
from rsoup.training.policy import Policy

KEPT = 2
"""Checkpoints that stay; older ones are removed."""


@dataclass(frozen=True)
class TrainingState:
    """The numbers beside the tensors: ``step`` rounds are done."""

    step: int
    kl_coef: float
    seconds: float
    fingerprint: str


def save_checkpoint(folder: Path, state: TrainingState, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    """Write the policy, the value head, the optimiser and the state as one file, and remove the oldest ones."""
    tensors = {f"factor/{name}": tensor for name, tensor in policy.factors().items()}
    tensors |= {f"value_head/{name}": tensor for name, tensor in policy.value_head.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": tensor for slot, tensor in slots.items()}
    with whole_file(folder / f"step-{state.step:06d}.safetensors") as partial:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, partial, metadata={"state": json.dumps(vars(state))})
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a training, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def read_state(path: Path) -> TrainingState:
    """Return the numbers of a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            return TrainingState(**json.loads(file.metadata()["state"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as problem:
        raise AdapterError(
            f"{path}: is not a checkpoint that this version of rsoup reads.", "Delete it; training then starts over."
        ) from problem


def load_checkpoint(path: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Set the policy, the value head and the optimiser to a checkpoint and return its numbers."""
    state = read_state(path)
    factors: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    slots: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
            kind, _, rest = name.partition("/")
            tensor = file.get_tensor(name)
            if kind == "factor":
                factors[rest] = tensor
            elif kind == "value_head":
                head[rest] = tensor
            else:
                index, _, slot = rest.partition("/")
                slots.setdefault(int(index), {})[slot] = tensor
    policy.load_factors(factors, str(path))
    policy.value_head.load_state_dict(head)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return state
