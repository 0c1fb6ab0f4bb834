"""A state machine over a tiny tree: any sequence of operations, commits, kills and stops.

Few names, so that they collide; judged only at rest, when the model of a Node
that took all Changes must hold what the tree holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.fault.test_watch_churn import ModelNode, snapshot, watched
from tests.support.modelling import examples
from tests.support.watching import Watching

_LIBC = ctypes.CDLL(None, use_errno=True)
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
places = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/b/a", "b/a/b"])
stored = st.sampled_from(["1", "2"])


class TreeMachine(RuleBasedStateMachine):
    """What cannot be done is not done."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="shardsync-model-"))
        self._watching = Watching(self._folder)
        self._outside = self._folder / "outside"
        self._outside.mkdir()
        self._node = ModelNode()
        self._count = 0
        self._watching.start()

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self._watching.close()
            shutil.rmtree(self._folder)

    def _at(self, place: str) -> Path:
        return self._watching.root / place

    @rule(place=places)
    def write(self, place: str) -> None:
        self._count += 1
        with contextlib.suppress(OSError):
            self._at(place).parent.mkdir(parents=True, exist_ok=True)
            self._at(place).write_text(str(self._count))

    @rule(place=places)
    def make(self, place: str) -> None:
        with contextlib.suppress(OSError):
            self._at(place).mkdir(parents=True)

    @rule(place=places)
    def remove(self, place: str) -> None:
        with contextlib.suppress(OSError):
            self._at(place).unlink()

    @rule(place=places)
    def remove_tree(self, place: str) -> None:
        with contextlib.suppress(OSError):
            shutil.rmtree(self._at(place))

    @rule(one=places, other=places)
    def rename(self, one: str, other: str) -> None:
        with contextlib.suppress(OSError):
            self._at(one).rename(self._at(other))

    @rule(one=places, other=places)
    def exchange(self, one: str, other: str) -> None:
        paths = [os.fsencode(self._at(place)) for place in (one, other)]
        _LIBC.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)

    @rule(place=places, name=stored)
    def move_out(self, place: str, name: str) -> None:
        with contextlib.suppress(OSError):
            self._at(place).rename(self._outside / name)

    @rule(place=places, name=stored)
    def move_in(self, place: str, name: str) -> None:
        with contextlib.suppress(OSError):
            (self._outside / name).rename(self._at(place))

    @rule(place=places, mode=st.sampled_from([0o700, 0o750]))
    def chmod(self, place: str, mode: int) -> None:
        with contextlib.suppress(OSError):
            self._at(place).chmod(mode)

    @rule()
    def tick(self) -> None:
        self._watching.tick(0)

    @rule()
    def kill(self) -> None:
        self._watching.drop()

        self._watching.begin()

    @rule()
    def stop(self) -> None:
        self._watching.quiet()
        self._watching.stop()
        self._watching.begin()

    @rule()
    def settle(self) -> None:
        """At rest the Node holds the tree, and every directory is watched under its path."""
        self._watching.quiet()
        tree = snapshot(self._watching.root)
        for change in self._watching.changes():
            self._node.take(change, tree)
        assert self._node.holds == tree
        directories = {path for path, entry in tree.items() if entry[0] == "d"}
        assert watched(self._watching) == directories | {b""}


TreeMachine.TestCase.settings = examples(60, steps=40)
TestTree = TreeMachine.TestCase
