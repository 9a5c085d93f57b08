"""A plugin of vLLM: names such as soup:positive=0.7,faithful=0.3 become adapters when they are first asked for.

vLLM finds ``register`` through the entry point group ``vllm.general_plugins`` in every process that it starts, and asks
for adapters that it does not know where VLLM_ALLOW_RUNTIME_LORA_UPDATING is set. ``rsoup serve RUN --engine vllm`` sets
all that up.
"""

from __future__ import annotations

import os
from pathlib import Path

RUN, METHOD, STARTS, FOLDER = "RSOUP_RUN", "RSOUP_METHOD", "RSOUP_ALLOW_DIFFERENT_STARTS", "RSOUP_SOUPS"
"""Environment variables: the run that is served; how it mixes (default: as it was evaluated); whether adapters that
began elsewhere are mixed (1); where its mixes are kept (default: soups/ in the run)."""


def register() -> None:
    """Let vLLM ask for soups, where a run is named."""
    run = os.environ.get(RUN)
    if run is None:
        return
    from vllm.lora.resolver import LoRAResolverRegistry

    from rsoup.serving.vllm_resolver import resolver_of  # with torch: only where it is needed

    resolver = resolver_of(
        run,
        os.environ.get(METHOD),
        Path(os.environ.get(FOLDER) or f"{run}/soups"),
        allow_different_starts=os.environ.get(STARTS) == "1",
    )
    LoRAResolverRegistry.register_resolver("rsoup", resolver)
