"""The trained model: a base model with LoRA factors, a value head, and the frozen start as the KL reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from rsoup.errors import AdapterError, ModelError, first_line
from rsoup.models.language_model import LanguageModel, folded
from rsoup.recipe import LoraSection, TrainingSection

WEIGHTS_FILE = "adapter_model.safetensors"


class Policy:
    """LoRA factors and a value head on a base model.

    ``completion_states`` etc. come from ``language_model``, whose layers the factors are injected into.
    """

    def __init__(self, language_model: LanguageModel, config: Any) -> None:
        self.language_model = language_model
        try:
            self.peft = get_peft_model(language_model.model, config)
        except ValueError as problem:
            raise ModelError(
                f"{language_model.name}: the adapter does not fit: {first_line(problem)}",
                "Set model.lora.target_modules to linear layers of this model.",
            ) from problem
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

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        factors = [parameter for parameter in self.peft.parameters() if parameter.requires_grad]
        return [*factors, *self.value_head.parameters()]

    def factors(self) -> dict[str, Tensor]:
        """Return the adapter's tensors under their names in a file."""
        tensors: dict[str, Tensor] = get_peft_model_state_dict(self.peft)
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
        result = set_peft_model_state_dict(self.peft, tensors)
        assert not result.unexpected_keys

    def remember_start(self) -> None:
        """Take the present factors as the KL reference."""
        self._start = {name: tensor.detach().clone() for name, tensor in self.factors().items()}

    @contextmanager
    def as_start(self) -> Iterator[None]:
        """Be the frozen start within the block."""
        assert self._start is not None
        if not any(tensor.any() for name, tensor in self._start.items() if ".lora_B." in name):
            with self.peft.disable_adapter():  # a fresh adapter changes nothing: skip its products
                yield
            return
        present = {name: tensor.detach().clone() for name, tensor in self.factors().items()}
        set_peft_model_state_dict(self.peft, self._start)
        try:
            yield
        finally:
            set_peft_model_state_dict(self.peft, present)

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Carry the factors inside float32 weights within the block, for sampling at the base model's speed.

        Narrower weights would round small updates away: there the factors stay beside them.
        """
        if self.language_model.model.dtype != torch.float32:
            yield
            return
        layers = [module for module in self.peft.modules() if isinstance(module, LoraLayer)]
        updates = ((layer.get_base_layer().weight, layer.get_delta_weight("default")) for layer in layers)
        with torch.no_grad(), folded(updates), self.peft.disable_adapter():
            yield

    def values(self, states: Tensor) -> Tensor:
        """Return the value of each state. (..., d) -> (...)."""
        values: Tensor = self.value_head(states.float()).squeeze(-1)
        return values

    def serves_first_update(self, training: TrainingSection) -> bool:
        """Tell whether the forward pass over a rollout is also that of the first optimiser step."""
        return training.ppo.mini_batches == 1 and self.peft.peft_config["default"].lora_dropout == 0

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's format."""
        self.peft.save_pretrained(folder)

    def dropout(self) -> AbstractContextManager[None]:
        """Turn on the adapter's dropout, and none of the base model's, within the block."""
        return _training_mode([layer for name, layer in self.peft.named_modules() if name.endswith("lora_dropout")])


@contextmanager
def _training_mode(modules: list[nn.Module]) -> Iterator[None]:
    for module in modules:
        module.train()
    try:
        yield
    finally:
        for module in modules:
            module.eval()


def fresh_config(lora: LoraSection, language_model: LanguageModel) -> LoraConfig:
    """Return the PEFT configuration of a new adapter."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        base_model_name_or_path=language_model.path,
        task_type="CAUSAL_LM",
    )


def read_start(language_model: LanguageModel, folder: Path) -> Policy:
    """Return the policy that an adapter folder describes, with the folder's factors as its start."""
    if not (folder / WEIGHTS_FILE).is_file():
        raise AdapterError(f"{folder}: is not an adapter: it has no {WEIGHTS_FILE}.", "Give a folder in PEFT's format.")
    config = PeftConfig.from_pretrained(folder)
    if not isinstance(config, LoraConfig) or config.use_dora or config.bias != "none" or config.modules_to_save:
        raise AdapterError(
            f"{folder}: only plain LoRA adapters can be continued (no DoRA, bias or modules_to_save).",
            "Start from a plain LoRA adapter, or leave model.start out.",
        )
    config.inference_mode = False
    config.base_model_name_or_path = language_model.path
    policy = Policy(language_model, config)
    policy.load_factors(load_file(folder / WEIGHTS_FILE), str(folder))
    policy.remember_start()
    return policy
