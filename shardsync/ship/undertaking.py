"""Beginning what takes its time: flushes, replays and reconciles, and where each is to come to."""

from __future__ import annotations

from collections.abc import Iterable

from shardsync.clock import Clock
from shardsync.errors import NodesFailed
from shardsync.journal.requests import Request, RequestKind
from shardsync.journal.state_writer import StateWriter
from shardsync.ship.replay import Rewinder
from shardsync.ship.running import Running
from shardsync.ship.station import Station


class Undertaking:
    """Each begins with the record, so that the Syncers do it whatever becomes of the request."""

    def __init__(self, *, state: StateWriter, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._rewinder = Rewinder(state=state)

    def flush(self, request: Request, stations: list[Station]) -> Running:
        """Wait for the Positions that the Watchers acknowledged, and for what retired Shards hold.

        A Shard that is not in our Plan yet is waited for: the request may be quicker than it.
        """
        running = self._running(request, stations)
        for station in stations:
            tree = station.key[0]
            acknowledged = {
                shard: position
                for shard, position in request.positions.items()
                if shard.rpartition("-")[0] == tree
            }
            running.until[station.key] = self._concerning(
                request.path, station, {**self._newest(station), **acknowledged}
            )
            station.syncer.hurry()
        return running

    def reconcile(self, request: Request, stations: list[Station]) -> Running:
        """Have all of them compared, or what concerns the path. Raises NodesFailed."""
        self._refuse_stopped(stations)
        for station in stations:
            station.require_root()
        running = self._running(request, stations)
        rows = self._state.read.nodes()
        for station in stations:
            if rows[station.key].contacted:
                running.total += station.first_contact.reconcile(
                    path=request.path, request=request.id, is_exact=request.checksum
                )
            station.syncer.wake()
        return running

    def replay(self, request: Request, stations: list[Station]) -> Running:
        """Have what changed since then sent again. Raises NodesFailed, SinceTooOld."""
        self._refuse_stopped(stations)
        running = self._running(request, stations)
        starts = {station.key: self._rewinder.start(request, station) for station in stations}
        for station in stations:
            start = starts[station.key]
            running.until[station.key] = self._newest(station)
            if request.path:
                work = self._rewinder.work(request, station, start)
                running.total += len(work)
                self._state.add_work(station.key, work)
            else:
                running.total += self._rewinder.rewind(station, start)
            station.syncer.wake()
        return running

    def again(self, request: Request, stations: list[Station]) -> Running:
        """Go on with what the last process began."""
        if request.kind is RequestKind.FLUSH:
            return self.flush(request, stations)
        running = self._running(request, stations)
        if request.kind is RequestKind.REPLAY:
            running.until = {station.key: self._newest(station) for station in stations}
            for station in stations:
                station.syncer.replay()
        return running

    def _running(self, request: Request, stations: list[Station]) -> Running:
        return Running(
            request=request,
            began_us=self._clock.wall_us(),
            keys=[station.key for station in stations],
        )

    def _concerning(self, path: bytes, station: Station, until: dict[str, int]) -> dict[str, int]:
        """Of these Positions those that a flush of `path` waits for: its last pending Change's.

        A Shard that we cannot read yet is waited for as a whole.
        """
        if not path:
            return until
        cursors = self._state.read.cursors(station.key)
        found = {}
        for shard, position in until.items():
            reader = station.journals.reader(shard)
            last: int | None = position
            if reader is not None:
                after = cursors[shard].position if shard in cursors else 0
                last = reader.newest_related(path, after=after, up_to=position)
            if last is not None:
                found[shard] = last
        return found

    def _newest(self, station: Station) -> dict[str, int]:
        return {shard: cursor.position for shard, cursor in station.journals.newest().items()}

    def _refuse_stopped(self, stations: Iterable[Station]) -> None:
        rows = self._state.read.nodes()
        stopped = [s.key[1] for s in stations if rows[s.key].is_stopped]
        if stopped:
            raise NodesFailed(f"halted or paused: {', '.join(stopped)}")
