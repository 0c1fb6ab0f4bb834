"""Files that were made or written and not closed: looked at, and journaled when it is time."""

from __future__ import annotations

import stat

from shardsync.clock import Clock
from shardsync.watch.events import Fold
from shardsync.watch.gathered import Filter, Gathered
from shardsync.watch.pending import Look, PendingFiles, Probe
from shardsync.watch.scan import Scanner

PAIR_SECONDS = 1.0
"""A MOVED_FROM waits this long for its MOVED_TO."""


class Unclosed:
    """Takes what the Fold and the Scanner found without a CLOSE_WRITE to its end."""

    def __init__(
        self,
        *,
        fold: Fold,
        gathered: Gathered,
        pending: PendingFiles,
        probe: Probe,
        scanner: Scanner,
        excluded: Filter,
        clock: Clock,
    ) -> None:
        self._fold = fold
        self._gathered = gathered
        self._pending = pending
        self._probe = probe
        self._scanner = scanner
        self._excluded = excluded
        self._clock = clock

    def tick(self, now: float) -> None:
        """Gather what is due at monotonic `now`; stop waiting for halves of moves."""
        for path in self._fold.created:
            if path in self._fold.fresh:
                self._look_at_new(path)
        self._fold.created.clear()
        self._look_at_appeared(now)
        for path in self._pending.due(self._fold.fresh, now):
            self._gathered.entry(path)
        self._fold.age(now - PAIR_SECONDS)

    def _look_at_appeared(self, now: float) -> None:
        appeared = self._scanner.found.appeared
        for path in appeared:
            if self._probe.look(path) is Look.DONE:
                self._gathered.entry(path)
            elif path not in self._pending.opened:
                self._fold.fresh[path] = (now, self._clock.wall_us())
        appeared.clear()

    def _look_at_new(self, path: bytes) -> None:
        """Symlinks, fifos, devices and further names of a file never see a CLOSE_WRITE.

        Of what is excluded nobody waits for the content: that its directory changed is news now.
        """
        if not self._is_excluded(path):
            found = self._probe.kind(path)
            if found is None or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
                return
        del self._fold.fresh[path]
        self._gathered.entry(path)

    def _is_excluded(self, path: bytes) -> bool:
        name = path.rpartition(b"/")[2]
        return self._excluded.suspects(name) and self._excluded.excludes(path, False)
