"""How far a request under way has come: whether a Node has what it asks for, and if not, why.

Asked of the record on every tick, so a restart of the process changes nothing.
"""

from __future__ import annotations

from shardsync.clock import Clock
from shardsync.escape import printable
from shardsync.journal.records import NodeRow, RoundKind
from shardsync.journal.requests import RequestKind
from shardsync.journal.state_reader import StateReader
from shardsync.ship.fold import Want, rebase
from shardsync.ship.running import Running
from shardsync.ship.station import Station

_STUBBORN_ATTEMPTS = 2
_PATIENCE_US = 60_000_000
"""How long a replay or reconcile is waited for where all Nodes that it lacks back off."""


class Completion:
    """Begins and ends nothing, but for the time that it notes in a request that has stalled."""

    def __init__(self, *, read: StateReader, clock: Clock) -> None:
        self._read = read
        self._clock = clock

    def is_answered(self, running: Running, station: Station) -> bool:
        """Whether all that the request asks for is on the Node."""
        row = self._read.nodes()[station.key]
        # On a Tree that is halted nobody can say what is missing.
        if not row.contacted or station.root.trouble is not None:
            return False
        if not self._reached(running, station):
            return False
        if running.request.kind is RequestKind.FLUSH:
            return self._is_flushed(running, station)
        return not self._open_ids(running, station)

    def is_stuck(self, running: Running, station: Station) -> bool:
        """Whether only paths that fail again and again are left of a request.

        They are tried for ever, but no command waits for them; a flush does, within its
        timeout, as its promise is that all is on the Nodes.
        """
        if running.request.kind is RequestKind.FLUSH or not self._reached(running, station):
            return False
        left = self._open_ids(running, station)
        return bool(left) and all(
            self._read.has_only_failures_of(station.key, name, attempts=_STUBBORN_ATTEMPTS)
            for name in left
        )

    def is_stalled(self, running: Running, rows: list[NodeRow]) -> bool:
        """Whether a replay or reconcile lacks only Nodes that back off, and has for a while.

        A Node that answers for a moment between two failures has not come back: a Batch tells.
        """
        if running.request.kind is RequestKind.FLUSH or not all(row.attempts for row in rows):
            return False
        now = self._clock.wall_us()
        if (
            not running.stalled_us
            or max(row.last_success or 0 for row in rows) > running.stalled_us
        ):
            running.stalled_us = now
        return now - running.stalled_us >= _PATIENCE_US

    def failures(self, running: Running, stations: list[Station]) -> str:
        """Words on the paths of a replay or reconcile that failed, "" for none."""
        if running.request.kind is RequestKind.FLUSH:
            return ""
        # A replay of everything goes by Cursors: what fails on the way has no request's id.
        by_cursor = running.request.kind is RequestKind.REPLAY and not running.request.path
        words = [
            f"{printable(item.path)} on {station.key[1]} ({item.last_error})"
            for station in stations
            for item in self._read.failures(station.key)
            if item.request in running.ids or (by_cursor and item.since <= running.began_us)
        ]
        if not words:
            return ""
        return f"{len(words)} paths failed and are tried again later: {', '.join(words[:5])}"

    def left(self, running: Running, station: Station) -> int:
        """How much of a replay or reconcile the Node lacks."""
        if running.request.kind is RequestKind.REPLAY and not running.request.path:
            cursors = self._read.cursors(station.key)
            left = 0
            for shard, cursor in cursors.items():
                reader = station.journals.reader(shard)
                left += reader.count(after=cursor.position) if reader is not None else 0
            return left
        return sum(self._read.count_work_of(station.key, name) for name in running.ids)

    def why(self, row: NodeRow, station: Station) -> str:
        """Words on what keeps a Node."""
        if row.paused:
            return "paused"
        if row.halted:
            return f"halted: {row.halted}"
        if station.root.trouble:
            return f"tree halted: {station.root.trouble.message}"
        compared = self._read.round(station.key, RoundKind.COMPARE)
        if compared is not None and not row.last_error:
            return f"{row.state.value} {compared.ratio:.0%}: {compared.words}"
        return row.last_error or row.state.value

    def _open_ids(self, running: Running, station: Station) -> list[str]:
        return [name for name in running.ids if self._read.has_work_of(station.key, name)]

    def _reached(self, running: Running, station: Station) -> bool:
        """Whether the Node's Cursors have come to where the request asked for."""
        cursors = self._read.cursors(station.key)
        return all(
            shard in cursors and cursors[shard].position >= position
            for shard, position in running.until.get(station.key, {}).items()
        )

    def _is_flushed(self, running: Running, station: Station) -> bool:
        """Whether no work is open that may hold what was on disk when the flush began."""
        if station.first_contact.is_in_doubt:
            return False
        inside = rebase(running.request.path, Want.TREE, station.subtree)
        return inside is None or not self._read.has_work_at(
            station.key, inside[0], until_us=running.began_us
        )
