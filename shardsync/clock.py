"""Time as a collaborator: monotonic for intervals, wall clock for stamps.

Nothing else in the package reads the clock, so tests can hold time still.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Protocol


class Clock(Protocol):
    """What shardsync asks about time."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back. For intervals."""
        ...

    def wall_us(self) -> int:
        """Unix time in microseconds. For stamps; may jump."""
        ...

    def boottime_us(self) -> int:
        """Microseconds since boot, suspend included.

        The wall clock less this changes only when somebody sets the wall clock.
        """
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def boottime_us(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def rfc3339(unix_us: int | None) -> str | None:
    """`2026-11-23T08:00:00.000000Z` for Unix microseconds; None stays None."""
    if unix_us is None:
        return None
    moment = dt.datetime.fromtimestamp(unix_us // 1_000_000, tz=dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_us % 1_000_000:06d}Z"
