"""Random churn on a real tree, the Watcher killed and stopped at random: nothing is missed.

A model of a Node takes each Change as a place to look at, and looks at the
tree; after each round it must equal the tree, and every directory must be
watched under its own path. A failure prints its seed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shardsync.model import Change, Scope
from shardsync.watch import catching_up, scan
from shardsync.watch.watcher import Watcher
from tests.support.watching import Watching

Entry = tuple[str, int, str]
Snapshot = dict[bytes, Entry]

NAMES = ("a", "b", "c", "d")
ROUNDS = 25
_LIBC = ctypes.CDLL(None)
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


class Churn:
    """Changes a tree at random, by way of a folder outside it too."""

    def __init__(self, root: Path, outside: Path, dice: random.Random) -> None:
        self._root = root
        self._outside = outside
        self._dice = dice

    def some(self, most: int) -> None:
        for _ in range(self._dice.randint(0, most)):
            self.one()

    def one(self) -> None:
        dice, path = self._dice, self._place()
        outside = [self._outside / name for name in os.listdir(self._outside)]
        works: tuple[tuple[int, Callable[[], object]], ...] = (
            (30, lambda: self._write(path)),
            (15, lambda: path.mkdir(parents=True)),
            (10, path.unlink),
            (7, lambda: shutil.rmtree(path)),
            (23, lambda: os.rename(path, self._place())),
            (5, lambda: os.rename(path, self._outside / str(dice.random()))),
            (5, lambda: os.rename(dice.choice(outside or [path]), path)),
            (5, lambda: path.chmod(dice.choice([0o700, 0o755]))),
        )
        work = dice.choices([work for _, work in works], [weight for weight, _ in works])[0]
        with contextlib.suppress(OSError):  # what cannot be done is not done
            work()

    def _place(self) -> Path:
        return self._root.joinpath(
            *(self._dice.choice(NAMES) for _ in range(self._dice.randint(1, 3)))
        )

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(self._dice.random()))


def snapshot(root: Path) -> Snapshot:
    """Every path below `root`: type, mode, content."""
    found: Snapshot = {}
    for path in root.rglob("*"):
        mode = path.stat().st_mode
        is_dir = path.is_dir()
        content = "" if is_dir else path.read_text()
        found[os.fsencode(path.relative_to(root))] = ("d" if is_dir else "f", mode, content)
    return found


class ModelNode:
    """Does with a Change what a Syncer promises to."""

    def __init__(self) -> None:
        self.holds: Snapshot = {}

    def take(self, change: Change, tree: Snapshot) -> None:
        below = change.path + b"/" if change.path else b""
        inside = {p for p in self.holds.keys() | tree.keys() if p.startswith(below)}
        if change.scope is Scope.LISTING:
            for path in inside:
                if b"/" not in path[len(below) :] and self._type(path) != tree.get(path, "-")[0]:
                    self._put(path, tree)
            return
        if change.path:
            self._put(change.path, tree)
        if change.scope is Scope.TREE:
            for path in sorted(inside):
                self._put(path, tree)

    def _type(self, path: bytes) -> str:
        return self.holds.get(path, ("-", 0, ""))[0]

    def _put(self, path: bytes, tree: Snapshot) -> None:
        parts = path.split(b"/")
        for length in range(1, len(parts)):
            above = b"/".join(parts[:length])
            if above in tree and self._type(above) != "d":  # rsync makes implied directories
                self.holds[above] = tree[above]
        now = tree.get(path)
        if now is None or now[0] == "f":
            for gone in [p for p in self.holds if p == path or p.startswith(path + b"/")]:
                del self.holds[gone]
        if now is not None:
            self.holds[path] = now


def watched(watching: Watching) -> set[bytes]:
    """The paths of all directories that are watched."""
    assert watching.watcher is not None
    table = watching.watcher._ledger._table
    paths = {table.path(wd) for wd, _, _ in table._known()}
    return {path for path in paths if path is not None}


def trouble(watching: Watching, churn: Churn, dice: random.Random) -> None:
    """Sometimes killed, sometimes stopped, the tree changing meanwhile."""
    luck = dice.random()
    if luck < 0.1:
        watching.drop()
    elif luck < 0.2:
        watching.quiet()
        watching.stop()
    else:
        return
    churn.some(10)
    watching.start()


@pytest.mark.parametrize("seed", [3, 9, 21, 22])
def test_random_churn_is_never_missed(seed: int, tmp_path: Path) -> None:
    """Any round after which the model differs names its seed."""
    dice = random.Random(seed)
    watching = Watching(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    node = ModelNode()
    churn = Churn(watching.root, outside, dice)
    watching.start()
    try:
        for number in range(ROUNDS):
            for _ in range(dice.randint(1, 40)):
                churn.one()
                if dice.random() < 0.1:
                    watching.tick(0)
            trouble(watching, churn, dice)
            watching.quiet()
            tree = snapshot(watching.root)
            for change in watching.changes():
                node.take(change, tree)
            assert node.holds == tree, f"seed {seed}, round {number}"
            directories = {path for path, entry in tree.items() if entry[0] == "d"}
            assert watched(watching) == directories | {b""}, f"seed {seed}, round {number}"
    finally:
        watching.close()


class BusyChurn(Churn):
    """Swaps places, too, and works while a scan adds its watches."""

    def one(self) -> None:
        luck = self._dice.random()
        if luck < 0.12:
            paths = (_AT_FDCWD, os.fsencode(self._place()), _AT_FDCWD, os.fsencode(self._place()))
            _LIBC.renameat2(*paths, _RENAME_EXCHANGE)
        elif luck < 0.2:
            aside, here, there = self._outside / "aside", self._place(), self._place()
            with contextlib.suppress(OSError):
                os.rename(here, aside)
                os.rename(there, here)
                os.rename(aside, there)
        else:
            super().one()

    def work_during(self, watcher: Watcher, *, chance: float, most: int = 60) -> None:
        """Do something before or after some of the watches that are added from now on."""
        add = watcher._inotify._add_watch
        left = [most]

        def work_and_add(fd: int, path: bytes, mask: int) -> int:
            self._perhaps(left, chance, path)
            wd: int = add(fd, path, mask)
            self._perhaps(left, chance, path)
            return wd

        watcher._inotify._add_watch = work_and_add  # type: ignore[assignment]

    def _perhaps(self, left: list[int], chance: float, path: bytes) -> None:
        if left[0] and path.startswith(os.fsencode(self._root)) and self._dice.random() < chance:
            left[0] -= 1
            self.one()


@pytest.mark.parametrize("seed", [3, 6, 13, 24])
def test_random_churn_under_the_scans_is_never_missed(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in catch-ups too; scans stop after an entry or a few, and go on in another tree."""
    dice = random.Random(seed)
    monkeypatch.setattr(catching_up, "_STEP_SECONDS", dice.choice([0.02, 0.0, 0.0005]))
    monkeypatch.setattr(scan, "_ENTRIES_A_LOOK", dice.choice([0x7F, 1, 3]))
    chance = dice.choice([0.02, 0.1, 0.3])
    watching = Watching(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    watching.root.mkdir()
    churn = BusyChurn(watching.root, outside, dice)
    churn.some(30)
    watching.start()
    watching.changes()
    node = ModelNode()
    node.holds = snapshot(watching.root)
    try:
        for number in range(ROUNDS // 2):
            churn.some(60)
            if dice.random() < 0.5:
                watching.drop()
            else:
                watching.quiet()
                watching.stop()
            for _ in range(dice.randint(1, 4)):
                if watching.watcher is not None:
                    watching.drop()
                churn.some(25)
                churn.work_during(watching.begin(), chance=chance)
                for _ in range(dice.randint(0, 10)):
                    watching.tick(0)
                    churn.some(1)
            watching.quiet()
            tree = snapshot(watching.root)
            for change in watching.changes():
                node.take(change, tree)
            assert node.holds == tree, f"seed {seed}, round {number}"
            directories = {path for path, entry in tree.items() if entry[0] == "d"}
            assert directories | {b""} <= watched(watching), f"seed {seed}, round {number}"
    finally:
        watching.close()
