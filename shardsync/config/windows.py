"""Windows: hours of the day in which a Node gets another bandwidth, or nothing at all.

Pure: the moment is an argument. Hours are local time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

UNLIMITED = "unlimited"
DAY = 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From `begin` on and before `end`, minutes since midnight; over midnight where `end` is less.

    `paused`: nothing is sent; else `bandwidth` holds ("": no limit).
    """

    begin: int
    end: int
    bandwidth: str = ""
    paused: bool = False

    def __str__(self) -> str:
        what = "paused" if self.paused else self.bandwidth or UNLIMITED
        return f"{self.hours} {what}"

    @property
    def hours(self) -> str:
        """`22:00-06:00`."""
        return f"{_clock(self.begin)}-{_clock(self.end)}"

    def minutes(self) -> frozenset[int]:
        """All minutes of the day that lie in it."""
        length = (self.end - self.begin) % DAY
        return frozenset((self.begin + number) % DAY for number in range(length))

    def until_us(self, now_us: int) -> int | None:
        """When it ends, Unix microseconds, if `now_us` lies in it; None if not."""
        now = dt.datetime.fromtimestamp(now_us // 1_000_000)  # noqa: DTZ006 (local time is meant)
        minute = now.hour * 60 + now.minute
        length = (self.end - self.begin) % DAY
        if (minute - self.begin) % DAY >= length:
            return None
        day = now.date() if minute < self.end else now.date() + dt.timedelta(days=1)
        end = dt.datetime.combine(day, dt.time(self.end // 60, self.end % 60))
        return int(end.timestamp()) * 1_000_000


def in_force(windows: Iterable[Window], now_us: int) -> tuple[Window, int] | None:
    """The window that holds at a moment and when it ends (Unix microseconds), or None."""
    for window in windows:
        until_us = window.until_us(now_us)
        if until_us is not None:
            return window, until_us
    return None


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
