"""Tell quantised models by what their configurations and tensors say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rsoup.adapters.tensorfile import Header

_KINDS = {"gptq": "GPTQ", "awq": "AWQ", "bitsandbytes": "bitsandbytes", "fp8": "FP8", "mxfp4": "MXFP4"}
_PACKED = {
    ".qweight": "GPTQ or AWQ",
    ".absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_packed": "compressed-tensors",
    "_proj_blocks": "MXFP4",
}
_NARROW = ("F8_", "F6_", "F4")


def told_by(config: Mapping[str, Any]) -> str | None:
    """Return how a model is quantised by its configuration or one of its parts, None if it is not."""
    for part in (config, *config.values()):
        for key in ("quantization_config", "compression_config"):
            found = part.get(key) if isinstance(part, Mapping) else None
            if found:
                method = str(found.get("quant_method", "unnamed")) if isinstance(found, dict) else "unnamed"
                return f"{_KINDS.get(method, method)!s:.40}, {key}"
    return None


def held_by(shards: Iterable[Header]) -> str | None:
    """Return how a model is quantised by its tensors, None if it is not."""
    for shard in shards:
        for tensor, info in shard.tensors.items():
            packed = next((kind for suffix, kind in _PACKED.items() if tensor.endswith(suffix)), None)
            if packed or info.dtype.startswith(_NARROW):
                return f"{packed or info.dtype}, tensor {tensor}"
    return None
