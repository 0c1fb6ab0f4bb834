"""Who writes in the tree swaps directories for symlinks while it is scanned: no scan leaves it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.swapping import swapping
from tests.support.watching import Watching

FOLDERS = 20
CANARY = "canary"
PASSES = 40
TICKS = 2
PAUSE_SECONDS = 0.0005


def fill(folder: Path, name: str) -> None:
    """Folders of the same names inside and outside; `name` is in each of those on one side."""
    for number in range(FOLDERS):
        (folder / f"s{number}" / name).mkdir(parents=True)
        (folder / f"s{number}" / name / "f").touch()
        (folder / f"s{number}" / f"{name}-file").touch()


def inodes_watched(watching: Watching) -> set[int]:
    """What the kernel says that the Watcher has watches on, proc(5)."""
    assert watching.watcher is not None
    lines = Path(f"/proc/self/fdinfo/{watching.watcher._inotify.fd}").read_text().splitlines()
    return {int(line.split("ino:")[1].split()[0], 16) for line in lines if "ino:" in line}


def test_a_scan_lists_and_watches_nothing_outside(tmp_path: Path) -> None:
    """A directory and a symlink change places all the time, 40 passes begin meanwhile.

    Neither a name from outside is journaled nor one of its inodes watched; then all is as ever.
    """
    outside = tmp_path / "outside"
    watching = Watching(tmp_path)
    fill(watching.root / "d", "inside")
    fill(outside, CANARY)
    (watching.root / "link").symlink_to(outside)
    foreign = {path.stat().st_ino for path in (outside, *outside.rglob("*"))}
    watcher = watching.begin()
    watched, journaled = set(), set()
    with swapping(watching.root / "d", watching.root / "link", pause_seconds=PAUSE_SECONDS):
        for _ in range(PASSES):
            watcher._fold.overflowed = True
            for _ in range(TICKS):
                watching.tick(0.0)
            watched |= inodes_watched(watching) & foreign
    journaled = watching.paths()
    assert [path for path in journaled if CANARY.encode() in path] == []
    assert watched | inodes_watched(watching) & foreign == set()
    place = next(name for name in ("d", "link") if not (watching.root / name).is_symlink())
    (watching.root / place / "s7/inside/new").touch()
    assert watching.paths() == {os.fsencode(f"{place}/s7/inside/new")}
    watching.close()
