"""A state machine over a tiny tree: any sequence of operations, commits, kills and stops.

Few names, so that they collide; judged only at rest, when the model of a Node
that took all Changes must hold what the tree holds.
"""

from __future__ import annotations

import contextlib
import shutil

from hypothesis.stateful import rule

from tests.fault.test_watch_churn import ModelNode, snapshot, watched
from tests.support.modelling import TreeMachine, examples, places
from tests.support.watching import Watching


class WatchMachine(TreeMachine):
    """What cannot be done is not done."""

    def __init__(self) -> None:
        super().__init__()
        self._watching = Watching(self.folder)
        self._node = ModelNode()
        self._count = 0
        self._watching.start()

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self._watching.close()
            shutil.rmtree(self.folder)

    @rule(place=places)
    def write(self, place: str) -> None:
        self._count += 1
        with contextlib.suppress(OSError):
            self.at(place).parent.mkdir(parents=True, exist_ok=True)
            self.at(place).write_text(str(self._count))

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


WatchMachine.TestCase.settings = examples(60, steps=40)
TestTree = WatchMachine.TestCase
