"""How long a slow judge will take, told once its first batch shows it."""

from __future__ import annotations

from dataclasses import dataclass

from rsoup.rewards.judges.usage import tell

WAIT = 20.0
"""Seconds from which on it is worth a line."""


@dataclass
class Pace:
    """Tells once how long the rest of what is asked together will take; ``name`` is that of the reward."""

    name: str
    told: bool = False

    def after(self, done: int, asked: int, seconds: float, share: float | None = None) -> None:
        """Note how many answers there are after some seconds; ``share`` is the part of the work that they were."""
        if self.told or not done:
            return
        share = share or done / asked
        left = seconds / share * (1 - share)
        if done < asked and left >= WAIT:
            self.told = True
            each = seconds / share / asked
            tell(
                f"{self.name}: its judge takes {each:.2g} s an answer: about {lasting(left)} more for the "
                f"{asked - done:,} others that are asked for together here."
            )


def lasting(seconds: float) -> str:
    """Return a time in words: 40 seconds, 7 minutes, 2.5 hours."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
