"""Where a Batch stands: the Tree's pinned root, with what was mounted below it at its start.

Checked again and again while the Batch is under way; whatever is not as it was then
ends it, so that nothing is taken for missing that was merely away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from shardsync.journal.records import NodeKey
from shardsync.ship.batch import IsExcluded
from shardsync.ship.look import Looker, LookKind
from shardsync.ship.shipping import RootLost
from shardsync.ship.view import NodeView


class Footing:
    """What one Node takes of the Tree, as a Batch may rely on it. Every method raises RootLost."""

    def __init__(self, *, key: NodeKey, view: NodeView) -> None:
        self._key = key
        self.view = view
        self._mounts: tuple[tuple[bytes, int], ...] | None = None

    @property
    def stand(self) -> tuple[object, ...]:
        """The same as long as neither the root nor a mount below it was away since the start."""
        return (self.view.root.guard.pins, self._mounts)

    def take(self) -> None:
        """Here a Batch begins: what is mounted now must be so until its end."""
        self.leave()
        # What the Tick began with will do: it is checked again once the paths were looked at.
        if not self.view.root.was_well_just_now:
            self.check()
        self._mounts = self.view.root.guard.mount_numbers

    def leave(self) -> None:
        """Mounts may come and go from here on: nothing is concluded from what is missing."""
        self._mounts = None

    def check(self) -> None:
        """Raise RootLost unless all is as it was when the paths of this Batch were looked at."""
        trouble = self.view.check()
        if trouble is not None:
            raise RootLost(trouble.message)
        now = self.view.root.guard.mount_numbers
        if self._mounts is not None and now != self._mounts:
            # It was away while paths were looked at, perhaps: what was missing may be there.
            raise RootLost(f"tree {self._key[0]}: what is mounted below its root just changed")

    def check_after_run(self) -> None:
        """As `check`, where something is mounted below the root.

        Only the root is pinned: what is mounted below may have gone under rsync's feet, who then
        took its files for missing. Nothing counts, so they are sent when it is back.
        """
        if self._mounts:
            self.check()

    @contextlib.contextmanager
    def looking(self) -> Iterator[Looker]:
        """A Looker for what the Node takes."""
        try:
            with self.view.looking() as looker:
                yield looker
        except OSError as error:
            raise RootLost(f"node {self._key[1]}: its subtree: {error.strerror}") from error

    def directories(self, paths: Iterable[bytes], is_excluded: IsExcluded) -> list[bytes]:
        """Those that are directories now, and not excluded, in order."""
        with self.looking() as looker:
            return [
                path
                for path in sorted(paths)
                if looker.look(path).kind is LookKind.DIRECTORY and not is_excluded(path, True)
            ]

    async def names_in_root(self, is_excluded: IsExcluded) -> tuple[list[bytes], list[bytes]]:
        """(directories, everything else) directly in the root, less what is excluded."""
        folders: list[bytes] = []
        files: list[bytes] = []
        try:
            names = await asyncio.to_thread(self.view.names)
        except OSError as error:
            raise RootLost(f"node {self._key[1]}: its subtree: {error.strerror}") from error
        for name, is_dir in names:
            if not is_excluded(name, is_dir):
                (folders if is_dir else files).append(name)
        return folders, files
