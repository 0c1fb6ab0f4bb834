"""The first half of a flush: every Watcher has read all that changed before now.

A cookie is touched, on whose directory every Watcher holds a watch in the
same inotify instance as its Shard: when a Watcher has read of the cookie, it
has read of all earlier changes, and notes the Position it was at.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path

from shardsync.cli.daemons import Daemons
from shardsync.cli.invocation import Invocation
from shardsync.cli.output import Meter
from shardsync.errors import NodesFailed, NotRunning, StateUnusable
from shardsync.journal.plan import Plan, PlannedShard
from shardsync.journal.reader import JournalReader
from shardsync.model import ShardState
from shardsync.units import human_duration

_LOOK_SECONDS = 0.005
_LOOK_LATER_SECONDS = 0.05
_SOON_SECONDS = 1.0
_STATE_EVERY_SECONDS = 1.0


class Barrier:
    """Waits for the Watchers of some Trees."""

    def __init__(
        self, *, call: Invocation, trees: tuple[str, ...], timeout_seconds: float
    ) -> None:
        self._call = call
        self._trees = trees
        self._timeout_seconds = timeout_seconds
        self._daemons = Daemons(call=call)

    def pass_through(self, meter: Meter) -> dict[str, int]:
        """Shard -> the Position at which all that changed before this call is journaled.

        Begins anew when the Plan changes. Raises NodesFailed with the Shards' names: timed
        out, or none of those that are missing will come by waiting; NotRunning.
        """
        deadline = self._call.clock.monotonic() + self._timeout_seconds
        while True:
            plan = self._call.plan()
            turn = _Round(
                call=self._call,
                daemons=self._daemons,
                shards=tuple(s for s in plan.observing() if s.tree in self._trees),
            )
            with contextlib.closing(turn):
                turn.begin()
                self._wait(turn, plan, deadline, meter)
                if self._call.plan() == plan:
                    return turn.positions

    def _wait(self, turn: _Round, plan: Plan, deadline: float, meter: Meter) -> None:
        """Return when all have acknowledged, or when the Plan is another one."""
        clock = self._call.clock
        began = looked = clock.monotonic()
        was_hopeless = False
        while not turn.collect():
            now = clock.monotonic()
            if now >= deadline:
                waited = human_duration(self._timeout_seconds)
                raise NodesFailed(f"timed out after {waited}, still waiting for {turn.words()}")
            if now - looked >= _STATE_EVERY_SECONDS:
                looked = now
                if self._call.plan() != plan:
                    return
                was_hopeless = self._require_hope(turn, was_hopeless=was_hopeless)
                meter.show(f"waiting for {turn.words()}")
            time.sleep(_LOOK_SECONDS if now - began < _SOON_SECONDS else _LOOK_LATER_SECONDS)

    def _require_hope(self, turn: _Round, *, was_hopeless: bool) -> bool:
        """Whether waiting is in vain; raises when it is so the second time.

        The second time, because a slot that a re-plan has just assigned is not started yet.
        """
        is_hopeless = turn.is_hopeless()
        if is_hopeless and was_hopeless:
            if self._call.liveness.sync() is None and not self._daemons.programs():
                raise NotRunning(f"nothing runs in {self._call.state.path}")
            raise NodesFailed(f"stopped or halted: {turn.words()}")
        return is_hopeless


class _Round:
    """One cookie, for the Shards of one Plan. `positions`: of those that acknowledged it."""

    def __init__(
        self, *, call: Invocation, daemons: Daemons, shards: tuple[PlannedShard, ...]
    ) -> None:
        self._call = call
        self._daemons = daemons
        self._name = f"flush-{secrets.token_hex(8)}"
        self._readers = {str(s.id): JournalReader(call.state.journal(s.id)) for s in shards}
        self._open = {str(shard.id): shard for shard in shards}
        self.positions: dict[str, int] = {}

    @property
    def cookie(self) -> Path:
        """The file that is touched."""
        return self._call.state.cookies / self._name

    def begin(self) -> None:
        """Touch the cookie: from now on it is in every Watcher's queue. Raises StateUnusable."""
        try:
            self.cookie.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            raise StateUnusable(f"cookie {self.cookie}: {error.strerror}") from error

    def collect(self) -> bool:
        """Look who acknowledged it; whether all did. Never so where there is no Shard yet."""
        for shard in list(self._open):
            position = _acknowledged(self._readers[shard], self._name)
            if position is not None:
                self.positions[shard] = position
                del self._open[shard]
        return not self._open and bool(self.positions)

    def is_hopeless(self) -> bool:
        """Whether there are some left, and none of them comes by waiting."""
        return bool(self._open) and all(
            _state(self._readers[name]) is ShardState.HALTED or not self._is_coming(shard)
            for name, shard in self._open.items()
        )

    def words(self) -> str:
        """Those that are left, for people."""
        words = []
        for name in self._open:
            state: str = ShardState.STOPPED
            if self._call.liveness.watcher(name) is not None:
                state = _state(self._readers[name]) or ShardState.STARTING
            words.append(f"shard {name} ({state})")
        return ", ".join(words) or "the plan"

    def close(self) -> None:
        """Take the cookie away and let go of the Journals."""
        self.cookie.unlink(missing_ok=True)
        for reader in self._readers.values():
            reader.close()

    def _is_coming(self, shard: PlannedShard) -> bool:
        return self._daemons.is_watcher_coming(shard.id, f"shardsync:watcher-{shard.slot:02d}")


def _acknowledged(reader: JournalReader, name: str) -> int | None:
    # A Journal that cannot be read now is as one that has not acknowledged yet.
    with contextlib.suppress(StateUnusable):
        return reader.cookie(name)
    return None


def _state(reader: JournalReader) -> ShardState | None:
    with contextlib.suppress(StateUnusable):
        return reader.progress().state
    return None
