"""Import packages one after the other and tell how it went: a script for a process of its own.

An import may raise, hang or kill its process (code for another processor), so it is tried where that does no harm. A
line of JSON for each event goes to standard output, what packages print to standard error. It imports nothing of rsoup.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any


def main(targets: list[str]) -> None:
    """Import each target (``module`` or ``module:attribute``), then tell what torch sees, if it is among them."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(**event: Any) -> None:
        told.write(json.dumps(event) + "\n")
        told.flush()

    for target in targets:
        tell(begun=target)
        module, _, attribute = target.partition(":")
        try:
            found = importlib.import_module(module)
            if attribute:
                getattr(found, attribute)
        except BaseException as problem:  # whatever another package raises is what is asked
            lines = str(problem).strip().splitlines()
            tell(failed=target, why=f"{type(problem).__name__}: {lines[0] if lines else ''}".rstrip(": "))
        else:
            tell(imported=target)
    if "torch" in targets and "torch" in sys.modules:
        try:
            tell(devices=_devices(sys.modules["torch"]))
        except Exception as problem:  # a driver that does not fit
            tell(failed="torch", why=f"{type(problem).__name__}: {str(problem).strip().splitlines()[0]}")


def _devices(torch: Any) -> list[dict[str, Any]]:
    """Return the accelerators that torch can use."""
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        bf16 = (facts.major, facts.minor) >= (8, 0) or torch.version.hip is not None
        found.append({"kind": "cuda", "name": facts.name, "memory": facts.total_memory, "bf16": bf16})
    if torch.backends.mps.is_available():
        found.append({"kind": "mps", "name": "Apple GPU", "memory": None, "bf16": False})
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
