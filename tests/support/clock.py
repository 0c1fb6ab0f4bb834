"""Clocks that can be set."""

from __future__ import annotations

from shardsync.clock import SystemClock


class ShiftedClock(SystemClock):
    """The machine's, but for the wall clock, which is `ahead_us` ahead."""

    def __init__(self, *, ahead_us: int = 0) -> None:
        self.ahead_us = ahead_us

    def wall_us(self) -> int:
        return super().wall_us() + self.ahead_us


class FakeClock:
    """Only moves when told. Starts at a round moment; `advance` moves all its hands."""

    def __init__(self, *, wall_us: int = 1_700_000_000_000_000) -> None:
        self._wall_us = wall_us
        self._seconds = 1000.0

    def monotonic(self) -> float:
        return self._seconds

    def wall_us(self) -> int:
        return self._wall_us

    def boottime_us(self) -> int:
        return int(self._seconds * 1_000_000)

    def advance(self, seconds: float) -> None:
        self._seconds += seconds
        self._wall_us += int(seconds * 1_000_000)

    def set_wall(self, wall_us: int) -> None:
        """Somebody sets the wall clock: the other hands stay."""
        self._wall_us = wall_us
