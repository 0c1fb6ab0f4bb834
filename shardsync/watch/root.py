"""The root of the Tree as the Watcher guards it: missing or replaced, the Shard is halted.

Nothing below a root that is not there is gone from the Tree, so nothing is
journaled until it is back, or an operator accepts what stands in its place.
"""

from __future__ import annotations

import os
from pathlib import Path

from shardsync.escape import printable
from shardsync.log import ChangeOnly, Log
from shardsync.model import EpochReason, ShardState
from shardsync.watch.catching_up import CatchingUp
from shardsync.watch.cookies import Cookies
from shardsync.watch.guard import look_at
from shardsync.watch.known_root import KnownRoot
from shardsync.watch.ledger import Ledger
from shardsync.watch.scan import Scanner
from shardsync.watch.standing import Standing
from shardsync.watch.territory import Territory


class WatchedRoot:
    """Halts the Watcher while its root is not there, and has it catch up afterwards."""

    def __init__(
        self,
        *,
        path: bytes,
        standing: Standing,
        scanner: Scanner,
        territory: Territory,
        ledger: Ledger,
        cookies: Cookies,
        catching_up: CatchingUp,
        known: KnownRoot | None,
        said: ChangeOnly,
        log: Log,
    ) -> None:
        self._path = path
        self._known = known
        self._standing = standing
        self._scanner = scanner
        self._territory = territory
        self._ledger = ledger
        self._cookies = cookies
        self._catching_up = catching_up
        self._said = said
        self._log = log
        self._seen: tuple[int, int, str] | None = None
        self._taken: set[tuple[int, int]] = set()

    def is_there_at_start(self) -> bool:
        """Whether to begin; if not, the Shard is halted until `look` finds it."""
        trouble = self._trouble()
        if not trouble:
            return True
        self._log.error("root.missing", root=self._path, reason=trouble)
        self._halt(trouble)
        return False

    def look(self) -> None:
        """The root missing, or an empty mount point in its place: halted until it is back."""
        if self._cookies.take_root_accepted():
            self._log.warning("root.accepted", root=self._path)
            self._seen = None
            self._known = None
            self._taken.clear()
        trouble = self._trouble()
        if trouble:
            self._lost(trouble)
        elif self._standing.is_halted:
            self._log.info("root.back", root=self._path)
            self._ledger.root_trouble = ""
            self._ledger.commit({})
            self._catching_up.new_epoch(EpochReason.ROOT_LOST, self._standing.safe_us())
        elif not self._territory.catching_up:
            missing = self._territory.tops.check()
            if missing and self._said.is_due(repr(missing)):
                self._log.warning("prefix.missing", prefixes=b" ".join(missing))

    def _lost(self, trouble: str) -> None:
        if not self._standing.is_halted:
            self._log.error("root.lost", root=self._path, reason=trouble)
            self._scanner.agenda.abandon()
        self._halt(trouble)

    def _halt(self, trouble: str) -> None:
        self._standing.state = ShardState.HALTED
        if trouble != self._ledger.root_trouble:
            self._ledger.root_trouble = trouble
            self._ledger.commit_wanted = True

    def _trouble(self) -> str:
        """Why the root is not there, in words for people, or ""."""
        found = look_at(self._path)
        if found is None:
            return f"root {printable(self._path)} is missing, or no directory"
        seen = self._seen
        here = (found.st_dev, found.st_ino)
        if seen is None and self._known is not None and self._known.is_another(self._path):
            # Not mounted yet, perhaps. To follow it would be to forget all that is remembered.
            return f"root {printable(self._path)} is another one than before"
        if seen is None or here == seen[:2]:
            identity = seen[2] if seen else self._ledger.identify(found.st_dev)
            self._seen = (*here, identity)
            self._taken.add(here)
            return ""
        identity = self._ledger.identify(found.st_dev)
        # One that was the root before may be mounted elsewhere too by now, and be called after it.
        if identity != seen[2] and here not in self._taken:
            return f"root {printable(self._path)} is on another file system than before"
        self._seen = (*here, identity)
        self._taken.add(here)
        if self._standing.state not in {ShardState.HALTED, ShardState.STARTING}:
            # Replaced, or mounted anew: catch up from scratch.
            self._standing.state = ShardState.HALTED
        return ""


def root_of(path: Path) -> bytes:
    """The root as the kernel knows it: a root that is a symlink is resolved once, at the start."""
    return os.path.realpath(os.fsencode(path))
