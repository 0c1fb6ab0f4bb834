"""While a Shard is catching up, what came and what went in others waits for what it will tell."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shardsync.config.settings import DeleteLimit, SyncSettings
from shardsync.journal.records import WorkReason
from shardsync.model import Kind, Scope, ShardState
from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.shipping import KEY, killed_at_exit
from tests.support.sync import Instance, Running, run, running

FILES = 250


class Renamed:
    """`old` of Shard 0 is `prefix-1/new` now, in Shard 1; the Node has it as it was."""

    def __init__(self, folder: Path) -> None:
        self.instance = Instance(folder, shards=2)
        self.instance.sync = SyncSettings(max_delete=DeleteLimit(entries=10, share=None))
        self.node = folder / "node"
        self.instance.nodes = [local_node(self.node)]
        (self.instance.tree / "old").mkdir()
        (self.instance.tree / "prefix-1").mkdir()
        for number in range(FILES):
            (self.instance.tree / "old" / f"{number:03}").write_text(f"{number}")

    def rename(self) -> None:
        os.rename(self.instance.tree / "old", self.instance.tree / "prefix-1/new")

    def says(self, shard: int, state: ShardState, *, told_us: int) -> None:
        self.instance.journals[shard].commit(
            progress={"state": state.value, "watermark_us": told_us}
        )

    def began(self) -> None:
        """Both Shards catch up."""
        for shard in (0, 1):
            self.says(shard, ShardState.SCANNING, told_us=self.instance.clock.wall_us())

    def is_done(self, shard: int) -> None:
        self.says(shard, ShardState.FOLLOWING, told_us=self.instance.clock.wall_us() + 10**9)

    def went(self) -> None:
        """As its Shard tells at the end of its pass."""
        now = self.instance.clock.wall_us()
        self.instance.journals[0].commit(
            [
                (b"", Scope.LISTING, Kind.CONTENT, now, None),
                (b"old", Scope.TREE, Kind.CONTENT, now, None),
            ]
        )
        self.is_done(0)

    def came(self) -> None:
        """As its Shard tells when its pass comes there, with what changes in it meanwhile."""
        (self.instance.tree / "prefix-1/new/more").write_text("x")
        now = self.instance.clock.wall_us()
        self.instance.journals[1].commit(
            [
                (b"prefix-1/new", Scope.TREE, Kind.CONTENT, now, None),
                (b"prefix-1/new/more", Scope.ENTRY, Kind.CONTENT, now, None),
            ]
        )

    def inodes(self, name: str) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in (self.node / name).glob("[0-9]*")}

    async def read(self, sync: Running) -> None:
        """Wait until the Cursors have passed all that is journaled."""
        goal = [journal.last_position for journal in self.instance.journals]

        def is_read() -> bool:
            cursors = sync.state.read.cursors(KEY)
            return [cursors[f"main-{shard:02d}"].position for shard in (0, 1)] == goal

        await sync.until(is_read)


@pytest.mark.parametrize("first", [Renamed.went, Renamed.came])
def test_both_halves_are_let_go_together(first: Callable[[Renamed], None], tmp_path: Path) -> None:
    """Whichever is told first: no data is sent, the Node is never without it, nothing counts."""
    made = Renamed(tmp_path)
    then = Renamed.came if first is Renamed.went else Renamed.went

    async def work() -> None:
        async with running(made.instance) as sync:
            await sync.followed()
            before = made.inodes("old")
            made.rename()
            made.began()
            first(made)
            await made.read(sync)
            assert made.inodes("old") == before
            assert not (made.node / "prefix-1/new").exists()
            assert sync.state.read.work_summary(KEY)[0] > 0
            then(made)
            made.is_done(1)
            await sync.followed()
            assert made.inodes("prefix-1/new") == before
            assert differences(made.instance.tree, made.node) == []
            assert sync.state.read.deleted_since(KEY, 0) == 0

    run(work)


def test_what_waits_outlives_the_process(tmp_path: Path) -> None:
    """It is open work: the next process lets it go when the Shards are done."""
    made = Renamed(tmp_path)

    async def work() -> None:
        async with killed_at_exit(made.instance) as sync:
            await sync.followed()
            before = made.inodes("old")
            made.rename()
            made.began()
            made.went()
            await made.read(sync)
        made.came()
        async with running(made.instance) as sync:
            await made.read(sync)
            assert WorkReason.HALF in sync.state.read.work_reasons(KEY)
            made.is_done(1)
            await sync.followed()
            assert made.inodes("prefix-1/new") == before

    run(work)


def test_a_shard_that_never_comes_to_its_end_holds_nothing_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each half waits for so long at most."""
    monkeypatch.setattr("shardsync.ship.halves._LONGEST_US", 300_000)
    made = Renamed(tmp_path)
    made.instance.sync = SyncSettings()

    async def work() -> None:
        async with running(made.instance) as sync:
            await sync.followed()
            made.rename()
            made.began()
            made.came()
            made.went()
            await sync.followed()
            assert differences(made.instance.tree, made.node) == []

    run(work)


def test_a_rename_that_is_told_waits_for_nobody(tmp_path: Path) -> None:
    """Its Shard saw both ends; single files go at once, too."""
    made = Renamed(tmp_path)

    async def work() -> None:
        async with running(made.instance) as sync:
            await sync.followed()
            before = made.inodes("old")
            made.began()
            os.rename(made.instance.tree / "old", made.instance.tree / "new")
            (made.instance.tree / "file").write_text("x")
            now = made.instance.clock.wall_us()
            tree = (Scope.TREE, Kind.CONTENT, now)
            made.instance.journals[0].commit(
                [
                    (b"file", Scope.ENTRY, Kind.CONTENT, now, None),
                    (b"new", *tree, b"old"),
                    (b"old", *tree, None),
                ]
            )
            await sync.followed()
            assert made.inodes("new") == before
            assert (made.node / "file").exists()

    run(work)
