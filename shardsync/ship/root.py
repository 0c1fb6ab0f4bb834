"""The guard of one Tree's root: pinned by a descriptor, its identity checked. An adapter.

rsync reads through the pinned descriptor, so a root that is unmounted, covered or
swapped under our feet can delete nothing; the checks tell it soon and stop the
Tree. A pinned root makes a plain umount say busy: `release()` while halted or paused.
"""

from __future__ import annotations

import enum
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from shardsync.beneath import open_beneath
from shardsync.escape import printable
from shardsync.mounts import Mount, MountTable, filesystem_name, mount_of
from shardsync.ship.look import Look, Looker
from shardsync.ship.subroots import (
    SeenBelow,
    SubRoot,
    has_entries,
    kept_in_mind,
    see_below,
    trouble_below,
)


class RootTroubleKind(enum.StrEnum):
    """What is wrong with a root."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    REPLACED = "replaced"
    """Another directory stands at its path, or another file system holds it."""
    UNMOUNTED = "unmounted"
    """Its path leads to another file system than the pinned root lies on."""
    EMPTY = "empty"
    """It had entries and has none now."""
    MARKER_GONE = "marker_gone"
    MOUNT_LOST = "mount_lost"
    """A file system that was mounted below it is no longer."""
    MOUNT_REPLACED = "mount_replaced"
    """Another file system is mounted below it where there was one, or covers it."""
    MOUNT_EMPTY = "mount_empty"
    """A file system below it is empty, and was not; or it is new, and may hide what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootTrouble:
    """Why nothing may be deleted on behalf of this root. `message` is for the operator."""

    kind: RootTroubleKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RootIdentity:
    """What tells this root from any other, beyond a reboot. Goes to JSON and back.

    `device` (st_dev) counts only while `boot_id` is the present one. `mounts`: what is
    mounted below it. `had_entries`: it was once seen not empty.
    """

    inode: int
    filesystem: str
    device: int
    boot_id: str
    had_entries: bool
    mounts: tuple[SubRoot, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values; paths as the file system's text, odd bytes escaped by surrogates."""
        return {
            "inode": self.inode,
            "filesystem": self.filesystem,
            "device": self.device,
            "boot_id": self.boot_id,
            "had_entries": self.had_entries,
            "mounts": [mount.to_json() for mount in self.mounts],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The identity that `to_json` gave. Raises KeyError, TypeError, ValueError."""
        return cls(
            inode=int(values["inode"]),
            filesystem=str(values["filesystem"]),
            device=int(values["device"]),
            boot_id=str(values["boot_id"]),
            had_entries=bool(values["had_entries"]),
            mounts=tuple(SubRoot.from_json(mount) for mount in values["mounts"]),
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """As state.db has it; None for "", before the first."""
        return cls.from_json(json.loads(text)) if text else None


class RootGuard:
    """Holds one root. `known`: its identity as stored, None at the very first start.

    `pin()` before all else; `check()` before each Batch and every 2 s.
    """

    def __init__(
        self, *, path: bytes, marker: str = "", known: RootIdentity | None = None
    ) -> None:
        self._path = path
        self._marker = marker
        self._table = MountTable()
        self._identity = known
        self._descriptor: int | None = None
        self._mount_numbers: tuple[tuple[bytes, int], ...] = ()
        self.pins = 0
        """How often hold was taken of it: the same number, the same directory all along."""

    @property
    def mount_numbers(self) -> tuple[tuple[bytes, int], ...]:
        """(point, number) of each mount below, as last checked; another number: mounted anew."""
        return self._mount_numbers

    @property
    def identity(self) -> RootIdentity | None:
        """What it is held to be, to be stored whenever it changed; None before the first pin."""
        return self._identity

    @property
    def is_pinned(self) -> bool:
        """Whether a descriptor is held, and with it the mount kept busy."""
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        """The pinned root (O_PATH). Raises OSError where it is not pinned."""
        if self._descriptor is None:
            raise FileNotFoundError(f"root {printable(self._path)} is not pinned")
        return self._descriptor

    def pin(self) -> RootTrouble | None:
        """Take hold of the root, unless it is not the one that is known. Idempotent.

        The very first root is taken as it is. With trouble, nothing is held.
        """
        if self._descriptor is not None:
            return None
        try:
            descriptor = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            return self._unopened(error)
        try:
            trouble = self._judge(descriptor)
        except OSError as error:
            trouble = self._unopened(error)
        if trouble is None:
            self._descriptor = descriptor
            self.pins += 1
        else:
            os.close(descriptor)
        return trouble

    def release(self) -> None:
        """Let go, so that it can be unmounted. Idempotent."""
        self._table.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def accept(self) -> RootTrouble | None:
        """Take what stands at the path now as the root, whatever was known (`--accept-root`)."""
        before = self._identity
        self.release()
        self._identity = None
        trouble = self.pin()
        if trouble is not None:
            self._identity = before
        return trouble

    def check(self) -> RootTrouble | None:
        """Whether the root at the path is still the known one, mounted, and not suddenly empty."""
        try:
            descriptor = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            return self._unopened(error)
        try:
            return self._strayed(descriptor) or self._judge(descriptor)
        except OSError as error:
            return self._unopened(error)
        finally:
            os.close(descriptor)

    def open_below(self, path: bytes) -> int:
        """A new descriptor (O_PATH) of the directory `path`, b"" for the root itself.

        Raises OSError, where it is not pinned too.
        """
        return open_beneath(self.descriptor, path)

    def looker(self) -> Looker:
        """For looking at the paths of one Batch; close it. Raises OSError where not pinned."""
        return Looker(root_fd=self.descriptor)

    def look(self, path: bytes) -> Look:
        """What one path holds. Raises OSError where the root is not pinned."""
        looker = self.looker()
        try:
            return looker.look(path)
        finally:
            looker.close()

    def _strayed(self, descriptor: int) -> RootTrouble | None:
        """Whether the path no longer leads to the pinned root."""
        if self._descriptor is None:
            return None
        there, pinned = os.fstat(descriptor), os.fstat(self._descriptor)
        if there.st_dev != pinned.st_dev:
            return self._trouble(RootTroubleKind.UNMOUNTED, "leads to another file system now")
        if there.st_ino != pinned.st_ino:
            return self._trouble(RootTroubleKind.REPLACED, "is another directory now")
        return None

    def _judge(self, descriptor: int) -> RootTrouble | None:
        """Compare the open root with what is known, and learn what may be learned."""
        mounts = self._table.read()
        now = self._seen(descriptor, mounts)
        below = see_below(descriptor, mounts)
        self._mount_numbers = below.ids
        trouble = self._marker_trouble(descriptor)
        known = self._identity
        if trouble is not None:
            return trouble
        if known is None:
            self._identity = replace(now, mounts=below.found)
            return None
        trouble = self._differs(known, now, below)
        if trouble is None:
            # A mount that was added is kept in mind from now on, as are first entries.
            self._identity = replace(
                now,
                had_entries=known.had_entries or now.had_entries,
                mounts=kept_in_mind(known.mounts, below),
            )
        return trouble

    def _differs(
        self, known: RootIdentity, now: RootIdentity, below: SeenBelow
    ) -> RootTrouble | None:
        if known.filesystem != now.filesystem or not _same_device(known, now):
            return self._trouble(
                RootTroubleKind.REPLACED,
                f"is on another file system ({now.filesystem}) than before ({known.filesystem})",
            )
        if known.inode != now.inode:
            return self._trouble(RootTroubleKind.REPLACED, "is another directory than before")
        wrong = trouble_below(known.mounts, below, same_boot=known.boot_id == now.boot_id)
        if wrong is not None:
            return self._trouble(RootTroubleKind(f"mount_{wrong[0]}"), wrong[1])
        if known.had_entries and not now.had_entries:
            return self._trouble(RootTroubleKind.EMPTY, "is empty, and was not before")
        return None

    def _marker_trouble(self, descriptor: int) -> RootTrouble | None:
        if not self._marker:
            return None
        try:
            os.stat(os.fsencode(self._marker), dir_fd=descriptor, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return self._trouble(
                RootTroubleKind.MARKER_GONE, f'has no marker file "{self._marker}"'
            )
        return None

    def _seen(self, descriptor: int, mounts: tuple[Mount, ...]) -> RootIdentity:
        status = os.fstat(descriptor)
        mount = mount_of(descriptor, mounts)
        known = self._identity
        return RootIdentity(
            inode=status.st_ino,
            filesystem=_filesystem(mount, known, device=status.st_dev),
            device=status.st_dev,
            boot_id=read_boot_id(),
            had_entries=has_entries(descriptor),
        )

    def _unopened(self, error: OSError) -> RootTrouble:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return self._trouble(RootTroubleKind.MISSING, "is missing, or no directory")
        return self._trouble(RootTroubleKind.UNREADABLE, f"cannot be read: {error.strerror}")

    def _trouble(self, kind: RootTroubleKind, what: str) -> RootTrouble:
        return RootTrouble(kind=kind, message=f"root {printable(self._path)} {what}")


@functools.cache
def read_boot_id() -> str:
    """The kernel's random name of this boot. Raises OSError."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _filesystem(mount: Mount | None, known: RootIdentity | None, *, device: int) -> str:
    """The file system's name; looked up anew only when the device is another one."""
    if known is not None and known.device == device and known.boot_id == read_boot_id():
        return known.filesystem
    return "unknown" if mount is None else filesystem_name(mount)


def _same_device(known: RootIdentity, now: RootIdentity) -> bool:
    """Device numbers tell file systems without a UUID apart, and only within one boot."""
    if known.boot_id != now.boot_id or known.filesystem.startswith("uuid:"):
        return True
    return known.device == now.device
