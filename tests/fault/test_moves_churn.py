"""Random renames of directories, the sync process cut off at random: no wrong byte on the Node.

The tree is told of as a Watcher tells. After each round the Node equals the tree,
and none of its files has two names. A failure prints its seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest

from shardsync.journal.requests import RequestKind
from shardsync.journal.writer import Row
from shardsync.model import Kind, Scope
from tests.support.compare import differences
from tests.support.nodes import RsyncDaemon
from tests.support.shipping import ask, killed_at_exit, newest
from tests.support.sync import Instance, run, running

PLACES = ("a/p", "a/q", "b/p", "b/q", "c")
FILES = 210
ROUNDS = 6
OPERATIONS = ("rename", "rename", "rename", "copy back", "swap", "rewrite", "rewrite", "remove")


class Churn:
    """Changes a tree at random and gathers what its Watcher would journal."""

    def __init__(self, tree: Path, dice: random.Random) -> None:
        self.rows: list[Row] = []
        self._tree = tree
        self._dice = dice

    def fill(self, place: str) -> None:
        for number in range(FILES):
            path = self._tree / place / f"d{number % 4}" / f"{number:04}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._text())

    def one(self, now: int) -> None:
        there = [place for place in PLACES if (self._tree / place).exists()]
        free = [place for place in PLACES if place not in there]
        place = self._dice.choice(there)
        match self._dice.choice(OPERATIONS):
            case "rename" if free:
                self._rename(place, self._dice.choice(free), now)
            case "copy back" if free:
                new = self._dice.choice(free)
                self._rename(place, new, now)
                shutil.copytree(self._tree / new, self._tree / place, symlinks=True)
                self._note(now, *self._below(place), place)
            case "swap" if len(there) > 1:
                other = self._dice.choice([item for item in there if item != place])
                self._rename(place, "t", now)
                self._rename(other, place, now)
                self._rename("t", other, now)
            case "remove" if len(there) > 2:
                shutil.rmtree(self._tree / place)
                self._note(now, place)
            case "rewrite":
                for name in self._dice.sample(self._below(place), 3):
                    path = self._tree / name
                    before = path.stat().st_mtime_ns
                    path.write_text(self._text())
                    os.utime(path, ns=(before, before))
                    self._note(now, name)

    def _rename(self, old: str, new: str, now: int) -> None:
        (self._tree / old).rename(self._tree / new)
        tree = (int(Scope.TREE), int(Kind.CONTENT), now)
        self.rows.append((os.fsencode(old), *tree, None))
        self.rows.append((os.fsencode(new), *tree, os.fsencode(old)))

    def _note(self, now: int, *paths: str) -> None:
        for path in paths:
            self.rows.append((os.fsencode(path), int(Scope.ENTRY), int(Kind.CONTENT), now, None))

    def _below(self, place: str) -> list[str]:
        found = (self._tree / place).rglob("*")
        return sorted(str(path.relative_to(self._tree)) for path in found if path.is_file())

    def _text(self) -> str:
        return f"{self._dice.randrange(10**6):06}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_rename_leaves_a_wrong_byte(seed: int, tmp_path: Path) -> None:
    """Chains, swaps, copies under the old name, rewrites that keep size and time, kills."""
    dice = random.Random(seed)
    instance = Instance(tmp_path)
    folder = tmp_path / "node"
    folder.mkdir()
    churn = Churn(instance.tree, dice)
    for place in PLACES[:4]:
        churn.fill(place)

    async def work() -> None:
        with RsyncDaemon(workspace=tmp_path, path=folder) as daemon:
            instance.nodes = [daemon.node(name="web1")]
            async with running(instance) as sync:
                await sync.followed(seconds=60)
            for number in range(ROUNDS):
                async with killed_at_exit(instance):
                    for _ in range(dice.randint(1, 3)):
                        churn.one(instance.clock.wall_us())
                    instance.journals[0].commit(churn.rows)
                    churn.rows.clear()
                    await asyncio.sleep(dice.random())
                churn.one(instance.clock.wall_us())
                instance.journals[0].commit(churn.rows)
                churn.rows.clear()
                async with running(instance) as sync:
                    await ask(sync, RequestKind.FLUSH, positions=newest(instance))
                    await sync.followed(seconds=60)
                told = f"seed {seed}, round {number}"
                assert differences(instance.tree, folder) == [], told
                shared = [path for path in folder.rglob("0*") if path.stat().st_nlink > 1]
                assert shared == [], told

    run(work)
