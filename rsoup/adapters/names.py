"""One name for one layer: what wrappers, versions and files call a module is brought to one form, and compared.

The text model in a vision-language model is ``language_model.model.layers`` in a file, ``model.language_model.layers``
in memory and ``model.layers`` in an adapter of the text model alone. Two names mean one module if their canonical
forms are equal, or if one is the end of the other and what is before it names no other tower.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from rsoup.errors import AdapterError

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
_OUTER_WRAPPERS = frozenset({"base_model", "module"})
_CONTAINERS = frozenset({"model", "language_model", "text_model", "transformer", "thinker", "vlm", "llm", "backbone"})
_TOWER = re.compile(
    r"vision|visual|\bvit\b|image|video|audio|speech|sound|acoustic|encoder|talker|code_predictor|token2wav|code2wav"
    r"|\bmtp\b|\bsam_|projector|connector|resampler|merger"
)
_RENAMED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^vision_model\.", "vision_tower."),  # Llama 4 and Ernie, between versions
        (r"^(vision_tower\.)vision_model\.", r"\1"),  # CLIP and SigLIP towers before and since transformers 5
        (r"^embed_out(?=\.|$)", "lm_head"),  # GPT-NeoX before and since transformers 5
        (r"block_sparse_moe\.input_linear(\.weight)?$", "block_sparse_moe.experts.gate_up_proj"),  # Granite MoE
        (r"block_sparse_moe\.output_linear(\.weight)?$", "block_sparse_moe.experts.down_proj"),
        (r"block_sparse_moe\.router\.layer(?=\.|$)", "block_sparse_moe.router"),
        (r"(^|\.)block_sparse_moe\.", r"\1mlp."),  # Mixtral, MiniMax, PhiMoE before and since transformers 5
        (r"\.mlp\.router(?=\.|$)", ".mlp.gate"),
        (r"experts\.fc1\.weight$", "experts.gate_up_proj"),  # Aria
        (r"experts\.fc2\.weight$", "experts.down_proj"),
        (r"\.self_attn\.g_proj(?=\.|$)", ".self_attn.gate_proj"),  # LFM 3
        (r"\.self_attn\.to_(q|k|v)(?=\.|$)", r".self_attn.\1_proj"),  # Cosmos 3
        (r"\.self_attn\.to_out(?=\.|$)", ".self_attn.o_proj"),
        (r"\.linear_gate(?=\.|$)", ".gate_proj"),  # Hunyuan 4
        (r"\.mlp\.shared_mlp(?=\.|$)", ".mlp.shared_experts"),  # Hunyuan 3
        (r"^vision_projector(?=\.|$)", "projector"),  # HyperCLOVA X
        (r"(\.experts\.\d+)\.w1(?=\.|$)", r"\1.gate_proj"),
        (r"(\.experts\.\d+)\.w2(?=\.|$)", r"\1.down_proj"),
        (r"(\.experts\.\d+)\.w3(?=\.|$)", r"\1.up_proj"),
    )
)


def unwrapped(name: str) -> str:
    """Return a name without what compilers, sharded training and PEFT put around or into it."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] in _OUTER_WRAPPERS:
        parts = parts[2:] if parts[:2] == ["base_model", "model"] else parts[1:]
    return ".".join(parts)


@lru_cache(maxsize=1 << 17)
def split_stem(name: str) -> tuple[str, str]:
    """Return the containers that open a name, with their dots, and the rest: ``model.`` and ``layers.0.mlp``."""
    rest = unwrapped(name)
    stem = ""
    while "." in rest and rest.partition(".")[0] in _CONTAINERS:
        head, _, rest = rest.partition(".")
        stem += f"{head}."
    return stem, rest


@lru_cache(maxsize=1 << 17)
def canonical(name: str) -> str:
    """Return the one form of a module's or tensor's name."""
    _, rest = split_stem(name)
    for pattern, new in _RENAMED:
        rest = pattern.sub(new, rest)
    return rest


class Names:
    """Names to be found by what others call them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._exact = set(names)
        self._canonical: dict[str, list[str]] = {}
        for name in self._exact:
            self._canonical.setdefault(canonical(name), []).append(name)
        self._ends: dict[str, list[str]] | None = None

    def find(self, name: str) -> str | None:
        """Return the name of what somebody calls ``name``, or None; AdapterError if several could be meant."""
        plain = unwrapped(name)
        if plain in self._exact:
            return plain
        wanted = canonical(name)
        found = self._canonical.get(wanted) or self._longer(wanted) or self._shorter(wanted)
        if len(found) > 1:
            raise AdapterError(
                f"{name} could be {' or '.join(sorted(found)[:3])}.",
                "Rename the adapter's tensors as the base names its own.",
            )
        return found[0] if found else None

    def _longer(self, wanted: str) -> list[str]:
        """Return the names that end in ``wanted`` and name no other tower before it."""
        if self._ends is None:
            self._ends = {}
            for form, names in self._canonical.items():
                for head, end in _splits(form):
                    if not _TOWER.search(head):
                        self._ends.setdefault(end, []).extend(names)
        return self._ends.get(wanted, [])

    def _shorter(self, wanted: str) -> list[str]:
        """Return the names that ``wanted`` ends in, if what is before that names no other tower."""
        for head, end in _splits(wanted):
            if not _TOWER.search(head) and end in self._canonical:
                return self._canonical[end]
        return []


def _splits(name: str) -> list[tuple[str, str]]:
    """Return what may be cut off a tensor's name, and what remains; a layer's number stays."""
    parts = name.split(".")
    numbers = [at for at, part in enumerate(parts) if part.isdecimal()]
    last = min(numbers[0], len(parts) - 2) if numbers else len(parts) - 2
    return [(".".join(parts[:at]), ".".join(parts[at:])) for at in range(1, last + 1)]
