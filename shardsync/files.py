"""Small files replaced whole: a reader, and the next start, find the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path

from shardsync.failpoints import Point, reach


def replace_file(path: Path, text: str) -> None:
    """Replace `path` with `text` in UTF-8, mode 0600. Raises OSError.

    Crash safety: written beside, synced, then renamed, and the folder synced,
    so this survives power loss too.
    """
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    # Lone surrogates stand for bytes of paths that are not UTF-8, PEP 383.
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    reach(Point.CONTROL_FILE)
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
