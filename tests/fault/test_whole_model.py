"""A state machine over a tiny tree and a real Node: two Watchers, the sync process, rsync.

Few names, so that they collide, and across two Shards. Judged only at rest, when rsync finds
no difference, and no comparison was needed to come there: any would hide a lost event.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import warnings

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from shardsync.journal.plan import Plan
from tests.support.compare import differences
from tests.support.modelling import TreeMachine, examples, places
from tests.support.nodes import local_node
from tests.support.shipping import KEY, row_of
from tests.support.sync import Instance, Running, begun
from tests.support.watching import Watching, planned

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
_FROZEN = 1_600_000_000_000_000_000
_REPAIRS = ("node.reconcile", "tree.compared", "node.changed_while_away")
number = st.integers(min_value=0, max_value=1)


class _Repairs(logging.Handler):
    """Keeps what the log says of comparisons."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(_REPAIRS):
            self.seen.append(text)


class WholeMachine(TreeMachine):
    """What cannot be done is not done."""

    def __init__(self) -> None:
        super().__init__()
        self._node = self.folder / "node"
        self._node.mkdir()
        self._count = 0
        self._held: list[int] = []
        self._repairs = _Repairs()
        logging.getLogger("shardsync").addHandler(self._repairs)
        self._loop = asyncio.new_event_loop()
        self._instance = Instance(self.folder, shards=0)
        shards = planned(0, (b"",)), planned(1, (b"a",))
        self._instance.plan = Plan(generation=1, shards=shards)
        self._instance.nodes = [local_node(self._node)]
        self._watchings = [
            Watching(self.folder, shard=shards[0], others=shards[1:]),
            Watching(self.folder, shard=shards[1], others=shards[:1]),
        ]
        for watching in self._watchings:
            watching.start()
        self._sync: tuple[Running, asyncio.Task[None]] | None = None
        self._loop.run_until_complete(self._start_sync())

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self._loop.run_until_complete(self._kill_sync())
            self._loop.close()
            for watching in self._watchings:
                watching.close()
            self._let_go()
            logging.getLogger("shardsync").removeHandler(self._repairs)
            shutil.rmtree(self.folder)

    async def _start_sync(self) -> None:
        self._sync = begun(self._instance)

    async def _kill_sync(self) -> None:
        """No tick is finished, nothing is recorded."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=30)
        with warnings.catch_warnings():
            # The rsyncs of what is killed are nobody's; no later test is to be told.
            warnings.simplefilter("ignore")
            del tasks
            gc.collect()

    def _put(self, place: str) -> None:
        """Other bytes, of the same size, never through a symlink."""
        self._count += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(self.at(place), flags, 0o644), "w") as file:
            file.write(f"{self._count:04}")

    def _let_go(self) -> None:
        while self._held:
            os.close(self._held.pop())

    # The tree.

    @rule(place=places)
    def write(self, place: str) -> None:
        with contextlib.suppress(OSError):
            self.at(place).parent.mkdir(parents=True, exist_ok=True)
            self._put(place)

    @rule(place=places)
    def write_with_a_frozen_time(self, place: str) -> None:
        with contextlib.suppress(OSError):
            self._put(place)
            os.utime(self.at(place), ns=(_FROZEN, _FROZEN))

    @rule(place=places)
    def hold_open(self, place: str) -> None:
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            self._held.append(os.open(self.at(place), flags, 0o644))
            os.write(self._held[-1], b"held")

    @rule()
    def let_go(self) -> None:
        if self._held:
            descriptor = self._held.pop(0)
            os.write(descriptor, b"last words")
            os.close(descriptor)

    @rule(one=places, other=places)
    def link(self, one: str, other: str) -> None:
        with contextlib.suppress(OSError):
            os.link(self.at(one), self.at(other), follow_symlinks=False)

    @rule(place=places)
    def symlink(self, place: str) -> None:
        with contextlib.suppress(OSError):
            self.at(place).symlink_to("nowhere")

    # The programs.

    @rule(which=number)
    def tick(self, which: int) -> None:
        self._watchings[which].tick(0)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05]))
    def ship(self, seconds: float) -> None:
        self._loop.run_until_complete(asyncio.sleep(seconds))

    @rule(which=number)
    def kill_watcher(self, which: int) -> None:
        self._watchings[which].drop()
        self._watchings[which].begin()

    @rule(which=number)
    def stop_watcher(self, which: int) -> None:
        self._watchings[which].quiet()
        self._watchings[which].stop()
        self._watchings[which].begin()

    @rule()
    def kill_sync(self) -> None:
        self._loop.run_until_complete(self._kill_sync())
        self._loop.run_until_complete(self._start_sync())

    @rule()
    def settle(self) -> None:
        """At rest the Node holds the tree, and nothing had to be compared for that."""
        self._let_go()
        self._flush_watchers()
        self._loop.run_until_complete(self._followed())
        assert differences(self._instance.tree, self._node) == []
        assert self._repairs.seen == []

    def _flush_watchers(self) -> None:
        """As `flush` does: until each Watcher says that it has journaled what came before."""
        self._count += 1
        name = f"flush-{self._count}"
        self._watchings[0].touch(name)
        for _ in range(1000):
            for watching in self._watchings:
                watching.tick(0.01)
            if all(name in watching.cookies() for watching in self._watchings):
                return
        raise AssertionError("the Watchers do not answer")

    async def _followed(self) -> None:
        assert self._sync is not None
        await self._sync[0].until(self._is_followed, seconds=30)

    def _is_followed(self) -> bool:
        assert self._sync is not None
        sync = self._sync[0]
        if not row_of(sync).contacted or sync.state.read.work_summary(KEY)[0]:
            return False
        cursors = sync.state.read.cursors(KEY)
        return all(
            watching.shard.id in cursors
            and cursors[watching.shard.id].position >= watching.progress().last_position
            for watching in self._watchings
        )


WholeMachine.TestCase.settings = examples(8, steps=25)
TestWhole = WholeMachine.TestCase
