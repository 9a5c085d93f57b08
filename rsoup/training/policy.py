"""The trained model: a base model with LoRA factors, a value head, and the frozen start as the KL reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from rsoup.adapters import read_adapter
from rsoup.adapters.reading import WEIGHTS_FILE
from rsoup.errors import AdapterError, ModelError, first_line
from rsoup.mixing.naming import NAMING_KEYS, named_as
from rsoup.models.adapted import settled, shorten
from rsoup.models.language_model import LanguageModel, folded
from rsoup.models.layout import layout_of
from rsoup.models.products import packed
from rsoup.models.targets import lora_targets, order_targets
from rsoup.recipe import LoraSection, TrainingSection

DEFAULT = "default"
"""What PEFT calls an adapter that is alone."""


@dataclass(frozen=True)
class Thoughts:
    """What a policy thinks of completions: log-probabilities, values and, if asked for, entropies. (P, G, T) each."""

    logprobs: Tensor
    values: Tensor
    entropies: Tensor | None = None


def join(parts: Sequence[Thoughts]) -> Thoughts:
    """Put what was thought in several passes together."""
    entropies = [part.entropies for part in parts if part.entropies is not None]
    return Thoughts(
        torch.cat([part.logprobs for part in parts]),
        torch.cat([part.values for part in parts]),
        torch.cat(entropies) if entropies else None,
    )


class Policy:
    """LoRA factors, injected into the layers of ``language_model``, and a value head on its last hidden states."""

    def __init__(self, language_model: LanguageModel, config: Any, beside: Policy | None = None) -> None:
        self.language_model = language_model
        try:
            if beside is None:
                self.adapter = DEFAULT
                self.peft = get_peft_model(language_model.model, config)
            else:
                self.adapter = f"beside-{len(beside.peft.peft_config)}"
                self.peft = beside.peft
                self.peft.add_adapter(self.adapter, config)
                self.peft.set_requires_grad(self.adapter)
        except ValueError as problem:
            raise ModelError(
                f"{language_model.name}: the adapter does not fit: {first_line(problem)}.",
                "Set model.lora.target_modules to linear layers of this model.",
            ) from problem
        order_targets(self.config)
        shorten(self._layers())
        self.peft.eval()  # the new layers come with their dropout on
        if not isinstance(language_model.head, nn.Linear) or isinstance(language_model.head, LoraLayer):
            raise ModelError(
                f"{language_model.name}: an adapter on the output layer cannot be trained here.",
                "Leave the output layer out of model.lora.target_modules.",
            )
        if isinstance(self.peft.get_base_model().get_input_embeddings(), LoraLayer):
            raise ModelError(
                f"{language_model.name}: an adapter on the input embeddings cannot be trained here.",
                "Leave the embeddings out of model.lora.target_modules.",
            )
        width = language_model.head.in_features
        self.value_head = nn.Linear(width, 1, device=language_model.device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self._start: dict[str, Tensor] | None = None
        self._checkpoints = False

    def twin(self) -> Policy:
        """Return another policy that begins at this one's start, on the same resident base.

        The model's own forward pass is still that of the first policy; ``models.abreast`` lets rows choose.
        """
        assert self._start is not None
        other = Policy(self.language_model, copy.deepcopy(self.config), beside=self)
        other.load_factors(self._start, f"the start of {other.adapter}")
        other.remember_start()
        return other

    @property
    def config(self) -> Any:
        """The adapter's configuration."""
        return self.peft.peft_config[self.adapter]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        own = (parameter for name, parameter in self.peft.named_parameters() if self.adapter in name.split("."))
        return [*(parameter for parameter in own if parameter.requires_grad), *self.value_head.parameters()]

    @property
    def rank(self) -> int:
        """The highest rank of a factor."""
        config = self.peft.peft_config[self.adapter]
        ranks: list[int] = [config.r, *(config.rank_pattern or {}).values()]
        return max(ranks)

    def factors(self) -> dict[str, Tensor]:
        """Return the adapter's tensors under their names in a file."""
        tensors: dict[str, Tensor] = get_peft_model_state_dict(
            self.peft, adapter_name=self.adapter, save_embedding_layers=False
        )
        return tensors

    def load_factors(self, tensors: dict[str, Tensor], where: str) -> None:
        """Set the adapter's tensors; every one has to be there and to have a place."""
        expected = {name: tuple(tensor.shape) for name, tensor in self.factors().items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                raise AdapterError(
                    f"{where}: does not fit {self.language_model.name}: "
                    f"{name} is {found.get(name, 'missing')}, not {expected.get(name, 'there')}.",
                    "Give an adapter that was trained on this base model.",
                )
        result = set_peft_model_state_dict(self.peft, tensors, adapter_name=self.adapter)
        assert not result.unexpected_keys

    def remember_start(self) -> None:
        """Take the present factors as the KL reference."""
        self._start = {name: tensor.detach().clone() for name, tensor in self.factors().items()}

    @property
    def starts_at_base(self) -> bool:
        """Tell whether the start is a fresh adapter, which changes nothing."""
        assert self._start is not None
        return not any(tensor.any() for name, tensor in self._start.items() if ".lora_B." in name)

    @contextmanager
    def as_start(self) -> Iterator[None]:
        """Be the frozen start within the block."""
        with self.peft.disable_adapter() if self.starts_at_base else self.with_start_factors():
            yield

    @contextmanager
    def with_start_factors(self) -> Iterator[None]:
        """Have the start's factors in the place of the present ones within the block."""
        present = {name: tensor.detach().clone() for name, tensor in self.factors().items()}
        set_peft_model_state_dict(self.peft, self._start, adapter_name=self.adapter)
        try:
            yield
        finally:
            set_peft_model_state_dict(self.peft, present, adapter_name=self.adapter)

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Carry the factors inside float32 weights within the block, for sampling at the base model's speed.

        Narrower weights would round small updates away, and parts of weights have no place for them: there the factors
        stay beside.
        """
        if not self.language_model.folds:
            with settled(self._layers(), self.adapter), packed(self.peft):
                yield
            return
        updates = ((_weight_of(layer), layer.get_delta_weight(self.adapter)) for layer in self._layers())
        with torch.no_grad(), folded(updates), self.peft.disable_adapter():
            yield

    def adapted_weights(self) -> list[nn.Parameter]:
        """Return the base's weights that the adapter updates."""
        return [_weight_of(layer) for layer in self._layers()]

    def _layers(self) -> list[Any]:
        return [module for module in self.peft.modules() if isinstance(module, LoraLayer)]

    def values(self, states: Tensor) -> Tensor:
        """Return the value of each state. (..., d) -> (...)."""
        with torch.autocast(states.device.type, enabled=False):
            values: Tensor = self.value_head(states.float()).squeeze(-1)
        return values

    def think(
        self, prompt_ids: Tensor, prompt_mask: Tensor, ids: Tensor, temperature: float, *, with_entropy: bool = False
    ) -> Thoughts:
        """Return what the policy thinks of completions. (P, L), (P, L), (P, G, T) -> (P, G, T) each."""
        states = self.language_model.completion_states(prompt_ids, prompt_mask, ids)
        return self.thoughts(states, ids, temperature, with_entropy=with_entropy)

    def thoughts(self, states: Tensor, ids: Tensor, temperature: float, *, with_entropy: bool = False) -> Thoughts:
        """Return what the policy thinks of completions from the states before them. (P, G, T, d) -> (P, G, T) each."""
        model = self.language_model
        if with_entropy:
            logprobs, entropies = model.logprobs_and_entropies(states, ids, temperature)
            return Thoughts(logprobs, self.values(states), entropies)
        return Thoughts(model.logprobs(states, ids, temperature), self.values(states))

    def serves_first_update(self, training: TrainingSection) -> bool:
        """Tell whether the forward pass over a rollout is also that of the first optimiser step."""
        whole = training.ppo.mini_batches == 1 and training.prompts_per_pass is None
        return whole and not training.gradient_checkpointing and self.config.lora_dropout == 0

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's format."""
        self.peft.save_pretrained(folder, selected_adapters=[self.adapter], save_embedding_layers=False)
        if self.adapter != DEFAULT:  # which PEFT writes into a folder of its own
            for path in (folder / self.adapter).iterdir():
                path.rename(folder / path.name)
            (folder / self.adapter).rmdir()

    @contextmanager
    def learning(self, *, gradient_checkpointing: bool) -> Iterator[None]:
        """Turn on the adapter's dropout, and none of the base model's, within the block.

        With ``gradient_checkpointing`` the decoder's layers keep no activations for the backward pass.
        """
        modules = [
            module
            for name, layer in self.peft.named_modules()
            if name.endswith("lora_dropout")
            for module in layer.modules()
        ]
        if gradient_checkpointing:
            self._enable_checkpointing()
            modules += [layer for layer in self.peft.modules() if isinstance(layer, GradientCheckpointingLayer)]
        for module in modules:
            module.training = True  # of this module alone: what else lies below a layer stays in evaluation mode
        try:
            yield
        finally:
            for module in modules:
                module.training = False

    def _enable_checkpointing(self) -> None:
        if self._checkpoints:
            return
        model = self.language_model.model
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        try:
            enable({"use_reentrant": False})
        except ValueError as problem:
            raise ModelError(
                f"{self.language_model.name}: has no gradient checkpointing.",
                "Set training.gradient_checkpointing to false; a smaller training.prompts_per_pass saves memory too.",
            ) from problem
        self._checkpoints = True


def fresh_config(lora: LoraSection, language_model: LanguageModel) -> LoraConfig:
    """Return the PEFT configuration of a new adapter."""
    if lora.target_parameters and lora.dropout:
        raise ModelError(
            "model.lora.target_parameters: PEFT has no dropout on bare parameters.", "Set model.lora.dropout to 0."
        )
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        base_model_name_or_path=language_model.path,
        task_type="CAUSAL_LM",
        **lora_targets(lora, language_model.model),
    )


def read_start(language_model: LanguageModel, folder: Path) -> Policy:
    """Return the policy that an adapter folder describes, with the folder's factors as its start.

    Its names may be those of another version, wrapper or file: they become the model's own.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        raise AdapterError(f"{folder}: is not an adapter: it has no {WEIGHTS_FILE}.", "Give a folder in PEFT's format.")
    config = PeftConfig.from_pretrained(folder)
    trains_more = ("use_dora", "modules_to_save", "trainable_token_indices", "lora_bias")
    if (
        not isinstance(config, LoraConfig)
        or config.bias != "none"
        or any(getattr(config, key, None) for key in trains_more)
    ):
        raise AdapterError(
            f"{folder}: only plain LoRA adapters can be continued (no DoRA, bias, trained tokens or modules_to_save).",
            "Start from a plain LoRA adapter, or leave model.start out.",
        )
    given = read_adapter(folder)
    adapter = named_as(given, layout_of(language_model))
    for key in NAMING_KEYS if adapter is not given else ():
        setattr(config, key, adapter.config.raw.get(key))
    config.inference_mode = False
    config.base_model_name_or_path = language_model.path
    policy = Policy(language_model, config)
    tensors = {name: torch.from_numpy(array.astype(np.float32)) for name, array in adapter.tensors().items()}
    policy.load_factors(tensors, str(folder))
    policy.remember_start()
    return policy


def _weight_of(layer: Any) -> nn.Parameter:
    """Return the parameter that a layer of PEFT updates."""
    return layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight
