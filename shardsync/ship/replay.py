"""Sending a Node again what was sent before: where that begins, and what it comes to."""

from __future__ import annotations

from shardsync.errors import SinceTooOld
from shardsync.journal.records import Compare, Cursor, Work, WorkReason
from shardsync.journal.requests import Request
from shardsync.journal.state_writer import StateWriter
from shardsync.model import Scope
from shardsync.ship.concerning import concerning
from shardsync.ship.fold import Pending, Want, fold
from shardsync.ship.station import Station

_READ_LIMIT = 10_000


class Rewinder:
    """Sets Nodes back. The Syncers go on from there."""

    def __init__(self, *, state: StateWriter) -> None:
        self._state = state

    def rewind(self, station: Station, start: dict[str, int]) -> int:
        """Set the Cursors back; how many Changes are shipped again."""
        now = self._state.read.cursors(station.key)
        count = 0
        cursors: dict[str, Cursor] = {}
        for shard, position in start.items():
            reader = station.journals.reader(shard)
            if reader is None or shard not in now:
                continue
            back = min(position, now[shard].position)
            cursors[shard] = Cursor(journal_id=now[shard].journal_id, position=back)
            count += reader.count(after=back)
        self._state.set_cursors(station.key, cursors)
        station.syncer.replay()
        return count

    def start(self, request: Request, station: Station) -> dict[str, int]:
        """Per Shard the Position after which the Node must be sent everything again.

        Raises SinceTooOld.
        """
        history: dict[str, Cursor] = {}
        if request.history_us is not None:
            history = self._state.read.cursors_at(station.key, request.history_us)
        start = {}
        for shard in station.journals.shard_ids():
            reader = station.journals.reader(shard)
            if reader is None:
                continue
            journal_id = reader.journal_id()
            pruned_to = reader.progress().pruned_to
            if shard in history and history[shard].journal_id == journal_id:
                start[shard] = history[shard].position
            elif shard in request.positions:
                start[shard] = request.positions[shard]
            else:
                # Nobody knows where the Node was: rather too much again than nothing.
                start[shard] = pruned_to
            if start[shard] < pruned_to:
                raise SinceTooOld(
                    f"node {station.key[1]}, shard {shard}: its Journal begins after"
                    f" {shard}:{pruned_to}, the replay would begin after {start[shard]}"
                )
        return start

    def work(self, request: Request, station: Station, start: dict[str, int]) -> list[Work]:
        """What lies after `start` and concerns the path of the request, folded."""
        folded: dict[bytes, Pending] = {}
        for shard, position in start.items():
            reader = station.journals.reader(shard)
            after = position
            while reader is not None:
                rows = reader.read_rows(after=after, limit=_READ_LIMIT)
                fold(concerning(request.path, rows), folded)
                if len(rows) < _READ_LIMIT:
                    break
                after = rows[-1][0]
        return [
            Work(
                path=item.path,
                scope=_scope(item.want),
                compare=Compare.CONTENT,
                reason=WorkReason.RETRY,
                since=item.since,
                request=request.id,
            )
            for item in station.rebased(folded.values())
        ]


def _scope(want: Want) -> Scope:
    if want & Want.TREE:
        return Scope.TREE
    return Scope.LISTING if want & Want.LISTING else Scope.ENTRY
