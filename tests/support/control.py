"""Fakes for the Coordinator: Journals and slots that only remember, and can be interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shardsync.config.settings import Settings, TreeSettings
from shardsync.errors import NotRunning
from shardsync.journal.plan import PlannedShard
from shardsync.journal.progress import Progress
from shardsync.model import JournalId, ShardId, ShardState


class Killed(BaseException):
    """The process died here; nothing may catch it."""


@dataclass(slots=True)
class Fuse:
    """Dies once, at the n-th step; `steps` counts them. `at` None: never."""

    at: int | None = None
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.at is not None and self.steps > self.at:
            self.at = None
            raise Killed


@dataclass(slots=True)
class FakeJournals:
    """Journals as names. `reports` is what their Watchers say."""

    fuse: Fuse = field(default_factory=Fuse)
    made: dict[ShardId, JournalId] = field(default_factory=dict)
    reports: dict[ShardId, Progress] = field(default_factory=dict)
    outlived: set[ShardId] = field(default_factory=set)

    def ids(self) -> frozenset[ShardId]:
        return frozenset(self.reports)

    def create(self, shard: PlannedShard) -> None:
        self.fuse.step()
        assert self.made.get(shard.id, shard.journal_id) == shard.journal_id or (
            shard.id not in self.reports
        )
        self.made[shard.id] = shard.journal_id

    def progress(self, shard: ShardId) -> Progress | None:
        return self.reports.get(shard)

    def outlive(self, shard: PlannedShard, *, before_us: int, max_bytes: int) -> bool:
        return shard.id in self.outlived

    def remove(self, shard: ShardId) -> None:
        self.fuse.step()
        self.made.pop(shard, None)

    def follow(
        self, *shards: ShardId, watermark_us: int = 5, directories: Mapping[str, int] | None = None
    ) -> None:
        for shard in shards:
            self.reports[shard] = Progress(
                state=ShardState.FOLLOWING,
                watermark_us=watermark_us,
                last_position=1,
                pid=1,
                directories=(directories or {}).get(shard, 1),
            )


@dataclass(slots=True)
class FakeSlots:
    """Slots of one supervisord. `running` is what it would show."""

    fuse: Fuse = field(default_factory=Fuse)
    pool: int = 16
    name: str = "1@1"
    is_down: bool = False
    running: set[int] = field(default_factory=set)
    starts: list[int] = field(default_factory=list)

    def life(self) -> str:
        if self.is_down:
            raise NotRunning("supervisord does not answer")
        return self.name

    def start(self, slot: int) -> None:
        self.fuse.step()
        self.running.add(slot)
        self.starts.append(slot)

    def count(self) -> int:
        return self.pool


@dataclass(slots=True)
class FakeSurvey:
    """Counts that are there at once; a thorough one after `patience` questions."""

    counts: Mapping[bytes, int]
    patience: int = 0
    asked: int = 0

    def quick(self, tree: TreeSettings) -> Mapping[bytes, int]:
        return self.counts

    def thorough(self, tree: TreeSettings) -> Mapping[bytes, int] | None:
        self.asked += 1
        return None if self.asked <= self.patience else self.counts

    def close(self) -> None:
        """Nothing is under way."""


def settings(
    state: Path, *, shards: int | None = 2, trees: Mapping[str, str] | None = None
) -> Settings:
    """Settings with Trees name -> root."""
    named = trees or {"main": "/srv/main"}
    return Settings(
        source=state / "shardsync.toml",
        state_dir=state,
        trees=tuple(TreeSettings(name=name, root=Path(root)) for name, root in named.items()),
        nodes=(),
        shard_count=shards,
    )


def flat_counts(folders: int, each: int = 10) -> dict[bytes, int]:
    """A Tree of `folders` equal folders at the top."""
    return {b"": 1 + folders * each, **{b"d%02d" % n: each for n in range(folders)}}
