"""Directories whose time changed with an entry that is excluded: their own Change, once at rest.

The entry is no Node's business, the directory's time is. What comes under an
excluded name is mostly renamed to another one in a moment, which is sent with
its directory: so it waits a little, and is dropped where something beside it
is journaled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

REST_SECONDS = 1.0
"""Less than what a catch-up looks back beyond the Watermark (MARGIN_US), which passes it."""

_MARGIN_US = 5_000_000


class Beside:
    """What waits. `kind`: the inode at a path, None where there is none (Probe's)."""

    def __init__(self, *, kind: Callable[[bytes], os.stat_result | None]) -> None:
        self._kind = kind
        self._waiting: dict[bytes, float] = {}

    def skipped(self, paths: Iterable[bytes], *, now: float, wall_us: int) -> None:
        """These are excluded, and came, went or were written at about `wall_us`."""
        for folder in {path.rpartition(b"/")[0] for path in paths}:
            if folder and folder not in self._waiting and self._is_changed(folder, wall_us):
                self._waiting[folder] = now + REST_SECONDS

    def journaled(self, paths: Iterable[bytes]) -> None:
        """These are sent, and the directories that they lie in with them."""
        if self._waiting:
            for folder in {path.rpartition(b"/")[0] for path in paths}:
                self._waiting.pop(folder, None)

    def due(self, now: float) -> list[bytes]:
        """Take those that have waited long enough."""
        due = [folder for folder, until in self._waiting.items() if until <= now]
        for folder in due:
            del self._waiting[folder]
        return due

    def wait_seconds(self, now: float) -> float | None:
        """How long none becomes due; None where none waits."""
        until = min(self._waiting.values(), default=None)
        return None if until is None else max(0.0, until - now)

    def _is_changed(self, folder: bytes, wall_us: int) -> bool:
        """Not where an excluded file was only written: a directory's ctime tells of its names."""
        found = self._kind(folder)
        return found is not None and found.st_ctime_ns // 1000 >= wall_us - _MARGIN_US
