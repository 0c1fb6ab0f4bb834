"""`--since T`: a duration, a local time or a Position, made into a place in every Journal."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from shardsync.clock import Clock, rfc3339
from shardsync.errors import SinceTooOld, UsageError
from shardsync.escape import printable_text
from shardsync.journal.plan import PlannedShard
from shardsync.journal.reader import JournalReader
from shardsync.layout import StateDirectory
from shardsync.model import Position
from shardsync.units import duration_seconds, local_time_us

_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """A moment, and for a Position its Shard's own place. `at_us`: Unix microseconds."""

    at_us: int
    position: Position | None = None


def parse_since(text: str, *, clock: Clock, state: StateDirectory) -> Since:
    """What T means now. Raises UsageError, SinceTooOld (a Position that was pruned)."""
    position = Position.parse(text)
    if position is not None:
        return Since(at_us=_observed(position, state), position=position)
    with contextlib.suppress(ValueError):
        at_us = clock.wall_us() - int(duration_seconds(text) * 1_000_000)
        return Since(at_us=max(0, at_us))
    try:
        at_us = local_time_us(text)
    except ValueError as error:
        raise UsageError(
            f"--since {printable_text(text)}: neither a duration, nor a time, nor a position",
            hint='write "2h", "2026-11-23T08:00" (local time) or "main-00:1700000000000000"',
        ) from error
    if at_us > clock.wall_us():
        raise UsageError(f"--since {printable_text(text)}: is still to come", hint="local time")
    return Since(at_us=at_us)


def positions_since(
    since: Since, shards: tuple[PlannedShard, ...], state: StateDirectory
) -> dict[str, int]:
    """Shard -> the Position after which everything since T lies. Raises StateUnusable."""
    found = {}
    for shard in shards:
        if since.position is not None and since.position.shard == shard.id:
            found[str(shard.id)] = since.position.number - 1
            continue
        with contextlib.closing(JournalReader(state.journal(shard.id))) as reader:
            found[str(shard.id)] = reader.position_before(since.at_us)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far back the Journals of some Shards tell. Times in Unix microseconds.

    `pruned`: the newest Change that was pruned, None where none ever was. `begins`: when the
    first of the Journals was made.
    """

    pruned: tuple[int, str] | None
    begins: int


def reach_back(shards: tuple[PlannedShard, ...], state: StateDirectory) -> Reach | None:
    """How far these Journals reach; None where there is none. Raises StateUnusable."""
    made: list[int] = []
    pruned: list[tuple[int, str]] = []
    for shard in shards:
        with contextlib.closing(JournalReader(state.journal(shard.id))) as reader:
            made.append(reader.created_at())
            until = reader.progress().pruned_until_us
        if until:
            pruned.append((until, shard.id))
    if not made:
        return None
    # A re-plan's Journal goes on where others end; the Tree is covered from the first of all.
    return Reach(pruned=max(pruned, default=None), begins=min(made))


def refuse_too_old(since: Since, reach: Reach, *, oldest_kept_us: int, was_followed: bool) -> bool:
    """Raise SinceTooOld where Changes observed since T may be lost; whether T is before the first.

    A young instance has lost nothing: before its Journals began no Node was followed, and each
    was filled after. `was_followed`: a Node was, at T; so other Journals than these held it.
    `oldest_kept_us`: the retention reaches back to there.
    """
    if reach.pruned is not None and since.at_us <= reach.pruned[0]:
        _refuse(since, f"the journal of {reach.pruned[1]} was pruned up to", reach.pruned[0])
    if since.at_us >= reach.begins:
        return False
    if was_followed or since.at_us < oldest_kept_us:
        _refuse(since, "the journal begins at", reach.begins)
    return True


def _refuse(since: Since, why: str, oldest_us: int) -> None:
    raise SinceTooOld(f"{why} {rfc3339(oldest_us)}, asked for was {rfc3339(since.at_us)}")


def _observed(position: Position, state: StateDirectory) -> int:
    path = state.journal(position.shard)
    if not path.exists():
        raise UsageError(f"--since {position}: no such shard", hint="see `shardsync status`")
    with contextlib.closing(JournalReader(path)) as reader:
        # SQLite knows no larger number.
        changes = reader.read(after=min(position.number - 1, _LARGEST), limit=1)
        progress = reader.progress()
    if position.number <= progress.pruned_to:
        raise SinceTooOld(f"--since {position}: the journal was pruned up to {progress.pruned_to}")
    if not changes:
        raise UsageError(
            f"--since {position}: the journal ends at {progress.last_position}",
            hint="see `shardsync journal`",
        )
    return changes[0].observed_at
