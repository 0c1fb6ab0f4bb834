"""How long to wait before what failed is tried again. Pure but for the dice."""

from __future__ import annotations

import random
from dataclasses import dataclass

_DICE = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential between two bounds (seconds)."""

    first: float
    longest: float

    def delay_us(self, attempts: int) -> int:
        """The wait (microseconds) after so many failures; with jitter, so that many Nodes do not
        come back in step.
        """
        seconds = min(self.longest, self.first * 2.0 ** min(attempts - 1, 30))
        return int(seconds * _DICE.uniform(0.75, 1.25) * 1_000_000)
