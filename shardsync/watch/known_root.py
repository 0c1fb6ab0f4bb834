"""The root that the sync process knows the Tree by, as state.db has it; read only.

A Watcher that begins while the root's disk is not mounted yet would take the
empty mount point for the root. What has been the root before tells them apart.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from shardsync.errors import StateUnusable
from shardsync.journal.state_reader import StateReader
from shardsync.mounts import filesystem_name, mount_of, read_mounts


class KnownRoot:
    """Asked when a Watcher begins, and once a second while it is halted for it."""

    def __init__(self, *, state_db: Path, tree: str, boot_id: str) -> None:
        self._state_db = state_db
        self._tree = tree
        self._boot_id = boot_id

    def is_another(self, path: bytes) -> bool:
        """Whether what stands at `path` is not what was the root; False where nobody knows."""
        known = self._identity()
        if known is None:
            return False
        try:
            return self._differs(known, path)
        except (OSError, KeyError):
            return False

    def _identity(self) -> dict[str, object] | None:
        if not self._state_db.exists():
            return None
        with contextlib.closing(StateReader(self._state_db)) as reader:
            try:
                text = reader.root_identity(self._tree)
            except StateUnusable:
                return None
        identity: dict[str, object] | None = json.loads(text) if text else None
        return identity

    def _differs(self, known: dict[str, object], path: bytes) -> bool:
        """By inode and file system; a device number tells more, but only within one boot."""
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if found.st_ino != known["inode"]:
                return True
            is_same_device = found.st_dev == known["device"]
            if is_same_device and known["boot_id"] == self._boot_id:
                return False
            mount = mount_of(descriptor, read_mounts())
        finally:
            os.close(descriptor)
        name = "unknown" if mount is None else filesystem_name(mount)
        if name != known["filesystem"]:
            return True
        return known["boot_id"] == self._boot_id and not name.startswith("uuid:")
