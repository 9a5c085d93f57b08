"""What an interrupted training needs in order to go on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rsoup.errors import AdapterError
from rsoup.files import whole_file
from rsoup.locks import Turn
from rsoup.training.policy import Policy
from rsoup.training.scores import Running

KEPT = 2
"""Checkpoints that stay; older ones are removed."""


@dataclass(frozen=True)
class TrainingState:
    """The numbers beside the tensors: ``step`` rounds are done."""

    step: int
    kl_coef: float
    seconds: float
    fingerprint: str
    running: Mapping[str, Running] = field(default_factory=dict)
    negative_kl_steps: int = 0

    @classmethod
    def from_json(cls, text: str) -> TrainingState:
        """Read what ``to_json`` wrote."""
        content = json.loads(text)
        running = {name: Running(**statistics) for name, statistics in content.pop("running").items()}
        return cls(**content, running=running)

    def to_json(self) -> str:
        """Write the numbers; floats come back bit for bit."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Checkpoint:
    """A training between two steps: its numbers, and copies of the policy, the value head and the optimiser."""

    state: TrainingState
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, state: TrainingState, policy: Policy, optimizer: torch.optim.Optimizer) -> Checkpoint:
        """Copy what a training is made of."""
        tensors = {f"factor/{name}": tensor for name, tensor in policy.factors().items()}
        tensors |= {f"value_head/{name}": tensor for name, tensor in policy.value_head.state_dict().items()}
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{slot}": tensor for slot, tensor in slots.items()}
        return cls(state, {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()})

    def save(self, folder: Path) -> None:
        """Write one file, and remove the oldest ones."""
        told = self.state.to_json()
        with whole_file(folder / f"step-{self.state.step:06d}.safetensors") as partial:
            save_file(dict(self.tensors), partial, metadata={"state": told, "sha256": _sha256(told, self.tensors)})
        for old in list_checkpoints(folder)[:-KEPT]:
            old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a training, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def _sha256(state: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of all that a checkpoint holds."""
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what a file holds; AdapterError if it is not what was written."""
    with path.open("rb"):  # the system says why it cannot be read
        pass
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if told.get("sha256", "") not in ("", _sha256(told["state"], tensors)):
            raise ValueError("its content has another hash than it says")
        return Checkpoint(TrainingState.from_json(told["state"]), tensors)
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as problem:
        raise AdapterError(
            f"{path}: is damaged, or not a checkpoint that this version of rsoup reads.",
            "Delete it; training then goes on from the checkpoint before it, or starts over.",
        ) from problem


def read_state(path: Path) -> TrainingState:
    """Return the numbers of a checkpoint."""
    return read_checkpoint(path).state


def load_checkpoint(path: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Set the policy, the value head and the optimiser to a checkpoint and return its numbers."""
    checkpoint = read_checkpoint(path)
    parts: dict[str, dict[str, Tensor]] = {"factor": {}, "value_head": {}, "optimizer": {}}
    for name, tensor in checkpoint.tensors.items():
        kind, _, rest = name.partition("/")
        parts[kind][rest] = tensor
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, slot = name.partition("/")
        slots.setdefault(int(index), {})[slot] = tensor
    policy.load_factors(parts["factor"], str(path))
    policy.value_head.load_state_dict(parts["value_head"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return checkpoint.state


class Keep(Protocol):
    """Takes the checkpoint of each step, and saves it if told to."""

    def __call__(self, checkpoint: Checkpoint, *, save: bool) -> None: ...


@contextmanager
def keeping(folder: Path, turn: Turn, *, writes: bool) -> Iterator[Keep]:
    """Yield a function that takes each step's checkpoint; the last one is saved whatever ends the block.

    RsoupError once the turn is another worker's; the checkpoints are its own then.
    """
    last: list[Checkpoint] = []
    saved = -1

    def keep(checkpoint: Checkpoint, *, save: bool) -> None:
        nonlocal saved
        turn.check()
        last[:] = [checkpoint]
        if save and writes:
            checkpoint.save(folder)
            saved = checkpoint.state.step

    try:
        yield keep
    except BaseException:
        if writes and last and last[0].state.step > max(saved, 0) and turn.is_ours():
            last[0].save(folder)
        raise
