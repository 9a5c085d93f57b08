"""Turn a resident base model into a mix of whole models, tensor by tensor, without writing it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from rsoup.adapters.tensorfile import DTYPES, Array
from rsoup.errors import ModelError
from rsoup.evaluation.applying import Change
from rsoup.mixing.checkpoints import Mixture
from rsoup.mixing.checkpoints.alignment import Target
from rsoup.mixing.checkpoints.mixture import Reader, mixed_tensor
from rsoup.mixing.chunks import THREADS
from rsoup.mixing.parallel import parallel
from rsoup.models.language_model import LanguageModel


@torch.no_grad()
def turned_into(model: LanguageModel, mixture: Mixture, *, keep_base: bool) -> Change:
    """Return the change from the base to a mix of models, each weight rounded as ``rsoup mix`` writes it.

    With ``keep_base`` the base stays in memory beside the mix, and comes back after each use, bit for bit. Without, the
    mix is written over the resident weights, where it stays: all takes the memory of one model. ModelError if the
    tensors of the models are not the parameters of the base.
    """
    change = Change()
    places = _places(model, mixture)

    def turn(place: tuple[Target, Tensor]) -> None:
        target, own = place
        value = _tensor(mixed_tensor(reader, target))
        if keep_base:
            change.put(own, value.to(own.device))
        else:
            own.data.copy_(value)

    with Reader(mixture) as reader:
        reader.open([target for target, _ in places])
        parallel(turn, places, at_most=THREADS)
    return change


def _places(model: LanguageModel, mixture: Mixture) -> list[tuple[Target, Tensor]]:
    """Return each tensor of a mix with the parameter that it becomes."""
    inner = model.model
    own: dict[str, Tensor] = {**dict(inner.named_buffers()), **dict(inner.named_parameters())}
    left = {name for name, _ in inner.named_parameters()}
    found = []
    for target in mixture.alignment.targets:
        name = _name(target.name, own, str(getattr(inner, "base_model_prefix", "")))
        if name is None and target.copied:
            continue  # a constant that is computed anew
        if name is None:
            raise _not_alike(model, mixture, f"{target.name} is no parameter of {model.name} in memory")
        if target.dtype not in DTYPES:
            continue
        if own[name].shape != target.shape:
            shapes = f"{tuple(own[name].shape)}, here {target.shape}"
            raise _not_alike(model, mixture, f"{target.name} has the shape {shapes}")
        found.append((target, own[name]))
        left.discard(name)
    if left:
        raise _not_alike(model, mixture, f"{model.name} has the parameter {min(left)}, which the models' files lack")
    return found


def _name(tensor: str, own: dict[str, Tensor], prefix: str) -> str | None:
    """Return the parameter of a tensor, whose name in a file may lack the trunk's or have one in front.

    transformers calls the head of GPT-NeoX lm_head in memory only.
    """
    renamed = ["lm_head.weight"] if tensor == "embed_out.weight" else []
    for name in (tensor, f"{prefix}.{tensor}", tensor.removeprefix(f"{prefix}."), *renamed):
        if name in own:
            return name
    return None


def _not_alike(model: LanguageModel, mixture: Mixture, reason: str) -> ModelError:
    return ModelError(
        f"{mixture.models[0].source} cannot take the place of {model.name} in memory: {reason}.",
        "Give a base of the same kind, embeddings tied alike (--model), or mix the models into folders (rsoup mix).",
    )


def _tensor(array: Array) -> Tensor:
    """Return an array as a tensor of its own dtype; torch does not know numpy's bfloat16."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array))
