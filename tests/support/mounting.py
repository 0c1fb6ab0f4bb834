"""Real file systems for tests that are root: mounted below a folder, and taken away again."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Mounts:
    """Mounts made by a test. `undo()` takes all of them away again."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def tmpfs(self, point: Path, *, size: str = "4m") -> None:
        """An empty file system at `point`."""
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "test", point], check=True)
        self._made.append(point)

    def bind(self, source: Path, point: Path) -> None:
        """What is at `source`, at `point` too: so it outlives an unmount of either."""
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", "--bind", source, point], check=True)
        self._made.append(point)

    def umount(self, point: Path, *options: str) -> bool:
        """Whether it could be unmounted."""
        done = subprocess.run(["umount", *options, point], check=False, capture_output=True)
        return done.returncode == 0

    def undo(self) -> None:
        """Unmount all that is left."""
        for point in reversed(self._made):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
