"""What a real rsync would send from a directory under given filter options."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

_ESCAPED = re.compile(rb"\\#([0-7]{3})")


def make_tree(root: Path, paths: Iterable[bytes]) -> None:
    """Create empty files, and directories where a path ends with a slash."""
    for path in paths:
        full = os.path.join(os.fsencode(root), path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if not path.endswith(b"/"):
            os.close(os.open(full, os.O_CREAT | os.O_WRONLY, 0o644))


def walk(root: Path) -> list[tuple[bytes, bool]]:
    """(path, is a directory) of everything below `root`."""
    top = os.fsencode(root)
    found: list[tuple[bytes, bool]] = []
    for folder, names, files in os.walk(top):
        below = os.path.relpath(folder, top)
        prefix = b"" if below == b"." else below + b"/"
        found += [(prefix + name, True) for name in names]
        found += [(prefix + name, False) for name in files]
    return sorted(found)


def sent_by_rsync(root: Path, destination: Path, options: Iterable[str]) -> set[bytes]:
    """Paths that `rsync -r` from `root` names with these options; nothing is written."""
    argv = [
        "rsync", "-rn", "--out-format=%n", *options, "--", f"{root}/", f"{destination}/",
    ]  # fmt: skip
    done = subprocess.run(
        argv, check=True, capture_output=True, timeout=60, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    names = {_unescaped(line.removesuffix(b"/")) for line in done.stdout.split(b"\n") if line}
    return names - {b".", b"created directory " + os.fsencode(destination), b""}


def _unescaped(name: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), name)
