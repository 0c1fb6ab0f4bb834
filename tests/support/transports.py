"""Trees and Nodes on disk, and the real NodeTransport between them, for tests."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from shardsync.clock import SystemClock
from shardsync.config.settings import NodeSettings
from shardsync.ship.command import Capabilities
from shardsync.ship.transport import NodeTransport

SECONDS = 30.0
"""A deadline that only a hanging test meets."""

ODD_NAMES = (
    b"#a",
    b";b",
    b"-rf",
    b"--delete",
    b"a\nb",
    b"tab\there",
    b"\xff\xfe",
    b"\x1b[31mred",
    b"x" * 255,
    b"with space",
    b" leading",
    b"trailing ",
    b"[x]*?",
    b"back\\slash",
    b"\\#033",
    b"octal\\#",
    b"quo\"te'",
    "ümläut".encode(),
    b"host:dir",
    b"a::b",
    b"...",
    b".hidden",
    b"dash -> arrow",
    b"|pipe|@send|",
    b"end\\",
)


class FolderSource:
    """A Source that opens a folder by its path, as long as nobody needs it pinned."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)

    def open_below(self, path: bytes) -> int:
        return os.open(os.path.join(self._root, path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def mount_numbers(self) -> tuple[tuple[bytes, int], ...]:
        return ()


def transport(
    node: NodeSettings,
    root: Path,
    *,
    filters: tuple[str, ...] = (),
    program: str = "rsync",
    capabilities: Capabilities | None = None,
    max_delete: int = 10_000,
) -> NodeTransport:
    """The real thing, with this machine's clock and environment."""
    return NodeTransport(
        node=node,
        source=FolderSource(root),
        clock=SystemClock(),
        environment=dict(os.environ),
        filters=filters,
        program=program,
        capabilities=capabilities,
        max_delete=max_delete,
    )


def snapshot(root: Path, *, times: bool = True) -> Mapping[bytes, tuple[object, ...]]:
    """Every path below `root` with its type, mode, mtime and content, the root itself aside."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: object = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            mtime = status.st_mtime_ns if times else 0
            found[os.path.relpath(path, top)] = (status.st_mode, mtime, content)
    return found
