"""An example for each command: the end of its help."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": ("rsoup run quickstart --seed 1 -o runs/second",),
    "train": (
        "rsoup train quickstart --reward positive",
        "rsoup train --model path/to/model --data tickets.jsonl --reward brief -o runs/mine",
    ),
    "morl": ("rsoup morl quickstart --weights positive=0.4,faithful=0.6",),
    "mix": (
        "rsoup mix runs/quickstart/adapters/positive runs/quickstart/adapters/faithful --lambda 0.3 -o soup",
        "rsoup mix INSTRUCT THINKING --lambda 0.3 -o OUT",
    ),
    "eval": ("rsoup eval quickstart --lambdas 5 --refine 4",),
    "pareto": ("rsoup pareto runs/quickstart --prefer positive=0.6,faithful=0.4 -o report",),
    "serve": ("rsoup serve runs/quickstart --port 8000",),
    "chat": ("rsoup chat runs/quickstart --temperature 0.7",),
    "init": ("rsoup init tickets.jsonl", "rsoup init tickets.jsonl --reward brief --reward my.py:kind --yes"),
    "doctor": ("rsoup doctor --hub",),
    "recipes": ("rsoup recipes quickstart",),
    "rewards": ("rsoup rewards brief --completion 'A kettle.'", "rsoup rewards check quickstart --rows 16"),
    "rewards show": ("rsoup rewards my.py:kind --completion 'A kettle.' --column level=2",),
    "rewards check": ("rsoup rewards check quickstart --rows 16",),
}


def epilog(command: str) -> str:
    """Return the end of a command's help."""
    lines = [f"[dim]Example:[/] {escaped(line)}" for line in EXAMPLES[command]]
    return "\n\n".join(lines)


def escaped(line: str) -> str:
    """Return a line as rich shows it unchanged."""
    return line.replace("[", r"\[")
