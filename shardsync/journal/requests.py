"""Requests from the CLI to the sync process: a JSON file each in the spool, answered in state.db.

A file appears whole (written beside, then renamed) and is removed only after
the request is recorded in state.db, under its own id: doing so twice is harmless.
"""

from __future__ import annotations

import enum
import os
import secrets
from pathlib import Path

import msgspec

from shardsync.errors import StateUnusable

_SUFFIX = ".json"


class RequestKind(enum.StrEnum):
    """What the CLI can ask of the sync process."""

    FLUSH = "flush"
    REPLAY = "replay"
    RECONCILE = "reconcile"
    PAUSE = "pause"
    RESUME = "resume"


class RequestState(enum.StrEnum):
    """How far a request has come."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is asked, of which Nodes. Only the fields of its kind are set.

    `nodes`: names within `tree`, empty = all of it; `tree` "" = every Tree.
    `positions`: per Shard, FLUSH waits for these and REPLAY starts after them.
    `path`: only what concerns it. `enough`: FLUSH is done when so many Nodes have it, 0 = all.
    `checksum`: RECONCILE reads every file on both sides.
    `history_us`: REPLAY by time starts where each Node's Cursor was then.
    """

    id: str
    kind: RequestKind
    tree: str = ""
    nodes: tuple[str, ...] = ()
    positions: dict[str, int] = {}
    history_us: int | None = None
    path: bytes = b""
    enough: int = 0
    checksum: bool = False
    deadline_us: int | None = None
    until_us: int | None = None
    allow_delete: bool = False
    adopt: bool = False
    accept_root: bool = False


def new_request_id() -> str:
    """A random id."""
    return secrets.token_hex(8)


def send(folder: Path, request: Request) -> None:
    """Put a request into the spool. Raises OSError."""
    beside = folder / f".{request.id}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(msgspec.json.encode(request))
    os.replace(beside, folder / (request.id + _SUFFIX))


def withdraw(folder: Path, request: Request) -> None:
    """Take a request back that was not received yet. Idempotent."""
    (folder / (request.id + _SUFFIX)).unlink(missing_ok=True)


def receive(folder: Path) -> list[tuple[Path, Request | str]]:
    """All requests in the spool, oldest first: the file, and what it asks or why it is no request.

    Raises StateUnusable where the spool cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry.path))
                for entry in entries
                if entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False)
            ]
    except OSError as error:
        raise StateUnusable(f"requests in {folder}: {error}") from error
    return [(path, _read(path)) for _, path in sorted(found)]


def _read(path: Path) -> Request | str:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Request)
    except (OSError, msgspec.DecodeError) as error:
        return str(error)
