"""A frozen base whose layers are split over the processes that train together (FSDP2).

Each process holds an equal part of every decoder layer; a layer is put together while it computes, and let go again.
Embeddings, the last norm and the output layer, adapters and value heads stay whole everywhere, so gradients, files and
checkpoints are those of whole models. Putting a layer together is the work of all processes at once: a process that
has nothing to compute takes part in the passes of the others (``Shards.idle``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import init_empty_weights
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from rsoup.errors import ModelError, RsoupError
from rsoup.models.processes import this_process
from rsoup.models.spreading import layers_of


class Shards:
    """The layers of a model, split over processes; ``decoder`` is the module that runs them in order."""

    def __init__(self, decoder: nn.Module, layers: list[FSDPModule], device: torch.device) -> None:
        self._decoder, self._layers, self._device = decoder, layers, device
        self._alone = False

    def anyone(self, *, goes_on: bool) -> bool:
        """Tell whether any process goes on; within ``led`` the leading one asks itself."""
        if self._alone:
            return goes_on
        flag = torch.tensor(int(goes_on), device=self._device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def idle(self) -> None:
        """Take part in a pass of the other processes without computing anything."""
        for layer in self._layers:
            layer.unshard()
            layer.reshard()

    @contextmanager
    def led(self) -> Iterator[None]:
        """Let this process alone compute within the block, while the others ``lend`` it their parts."""

        def call(*_: Any) -> None:
            self._alone = False
            self.anyone(goes_on=True)
            self._alone = True

        handle = self._decoder.register_forward_pre_hook(call, prepend=True)
        self._alone = True
        try:
            yield
        finally:
            handle.remove()
            self._alone = False
            self.anyone(goes_on=False)

    def lend(self) -> None:
        """Take part in all passes of the process that leads, until it is done."""
        while self.anyone(goes_on=False):
            self.idle()


def load_by_leader(load: Callable[[], Any], empty: Callable[[], Any]) -> Any:
    """Return the model that the leading process loads; in the others one of its shape, without weights.

    What the leader raises, all raise.
    """
    state, told, model = this_process(), list[Any]([None]), None
    if state.is_main_process:
        try:
            model = load()
            told = [model.generation_config]
        except RsoupError as problem:
            told = [problem]
    broadcast_object_list(told)
    if isinstance(told[0], RsoupError):
        raise told[0]
    if model is None:
        with init_empty_weights(include_buffers=False):
            model = empty()
        model.tie_weights()
        model.generation_config = told[0]
    return model


def share_out(model: Any, decoder: nn.Module, device: torch.device) -> Shards:
    """Split the layers of a model that only the leading process has, moving them to the device one by one."""
    layers = layers_of(decoder)
    mesh = init_device_mesh(device.type, (this_process().num_processes,))
    plan: list[dict[str, torch.dtype]] = [{name: tensor.dtype for name, tensor in tensors_of(model)}]
    own = plan[0].keys()
    broadcast_object_list(plan)
    if plan[0].keys() != own:
        raise ModelError(
            f"{model.name_or_path}: its configuration describes other tensors than its files hold.",
            "Set model.placement to auto.",
        )
    names = {id(module): name for name, module in model.named_modules()}
    for layer in layers:
        _receive(layer, names[id(layer)], plan[0], device)
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    _receive(model, "", plan[0], device)
    whole = {parameter for parameter in decoder.parameters() if not isinstance(parameter, DTensor)}
    fully_shard(decoder, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    model._is_fsdp_managed_module = True  # transformers then keeps the processes in step while it generates
    return Shards(decoder, list(layers), device)


def tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return all tensors of a module, tied ones under each of their names."""
    parameters = module.named_parameters(remove_duplicate=False)
    return [*parameters, *module.named_buffers(remove_duplicate=False)]


def resident_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's tensors that lie in this process, tied ones once."""
    found = {id(tensor): tensor for _, tensor in tensors_of(module)}
    local = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in found.values())
    return sum(tensor.nbytes for tensor in local)


def _receive(root: nn.Module, name: str, plan: Mapping[str, torch.dtype], device: torch.device) -> None:
    """Give every tensor of a module that is not split yet the leading process's values, on the device."""
    moved: dict[int, tuple[Tensor, Tensor]] = {}  # by the identity of the old one, which is kept for that to be unique
    for path, module in root.named_modules(prefix=name):
        for own in (module._parameters, module._buffers):
            for key, tensor in own.items():
                if tensor is None or isinstance(tensor, DTensor):
                    continue
                if id(tensor) not in moved:
                    moved[id(tensor)] = tensor, _received(tensor, plan[f"{path}.{key}".lstrip(".")], device)
                own[key] = moved[id(tensor)][1]


def _received(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    leads = this_process().is_main_process
    value = tensor.detach().to(device) if leads else torch.empty(tensor.shape, dtype=dtype, device=device)
    value = value.contiguous()
    dist.broadcast(value, src=0)
    return nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value
