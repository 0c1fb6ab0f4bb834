"""What operators ask of the sync process: flush, replay, reconcile, pause and resume.

Requests come from the spool and are answered in state.db. Each is checked
against the record on every tick, so a restart of the process goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from shardsync.clock import Clock
from shardsync.errors import NodesFailed, SinceTooOld, StateUnusable, UsageError
from shardsync.escape import printable
from shardsync.failpoints import Point, reach
from shardsync.journal import requests
from shardsync.journal.records import (
    NodeKey,
    NodeRow,
    RoundKind,
)
from shardsync.journal.requests import Request, RequestKind, RequestState
from shardsync.journal.state_writer import StateWriter
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.ship.fold import Want, rebase
from shardsync.ship.replay import Rewinder
from shardsync.ship.station import Station

_STUBBORN_ATTEMPTS = 2
_READ_LIMIT = 10_000
_PATIENCE_US = 60_000_000
"""How long a replay or reconcile is waited for where all Nodes that it lacks back off."""


@dataclass(slots=True, kw_only=True)
class _Running:
    """A request under way. `until`: per Node the Cursors that answer it; `total` of its pieces.

    `stalled_us`: since when nothing of it went on, as all that is left backs off; 0: it did.
    """

    request: Request
    began_us: int
    keys: list[NodeKey]
    until: dict[NodeKey, dict[str, int]] = field(default_factory=dict)
    total: int = 0
    stalled_us: int = 0


class Operator:
    """Takes requests, starts what they ask for, answers when it is done."""

    def __init__(
        self,
        *,
        state_dir: StateDirectory,
        state: StateWriter,
        stations: Mapping[NodeKey, Station],
        clock: Clock,
        log: Log,
    ) -> None:
        self._state_dir = state_dir
        self._state = state
        self._stations = stations
        self._clock = clock
        self._log = log
        self._rewinder = Rewinder(state=state)
        self._running: list[_Running] = []
        self._said = ChangeOnly(clock=clock)

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._running)

    def recover(self) -> None:
        """Go on with what the last process left open."""
        for body in self._state.read.open_requests():
            try:
                self._resume_request(msgspec.json.decode(body, type=Request))
            except (msgspec.DecodeError, StateUnusable) as error:
                self._log.warning("request.not_resumed", error=error)

    def renamed(self, key: NodeKey, new: NodeKey) -> None:
        """A Node has another name by now; what was asked of it is asked of that."""
        for running in self._running:
            running.keys = [new if item == key else item for item in running.keys]
            if key in running.until:
                running.until[new] = running.until.pop(key)

    def replaced(self, key: NodeKey) -> None:
        """A Node has a new Syncer, which knows nothing yet of what is asked of it."""
        for running in self._running:
            if key in running.keys and running.request.kind is RequestKind.FLUSH:
                self._stations[key].syncer.hurry()
            elif key in running.keys and running.request.kind is RequestKind.REPLAY:
                self._stations[key].syncer.replay()

    def _stations_of(self, running: _Running) -> list[Station]:
        """Those that the request is about; a Node that was removed meanwhile is no longer."""
        return [self._stations[key] for key in running.keys if key in self._stations]

    def _resume_request(self, request: Request) -> None:
        try:
            stations = self._chosen(request)
        except UsageError as error:
            self._answer(request, exit_code=error.exit_code, message=str(error))
            return
        if request.kind is RequestKind.FLUSH:
            self._begin_flush(request, stations)
            return
        running = _Running(
            request=request,
            began_us=self._clock.wall_us(),
            keys=[station.key for station in stations],
        )
        if request.kind is RequestKind.REPLAY:
            running.until = {station.key: self._newest(station) for station in stations}
            for station in stations:
                station.syncer.replay()
        self._running.append(running)

    def tick(self) -> int:
        """Take what is in the spool, answer what is done; returns how many are still open.

        Trouble with a Journal or state.db keeps the request for the next tick.
        """
        try:
            for path, request in requests.receive(self._state_dir.requests):
                if isinstance(request, str):
                    self._log.warning("request.unreadable", file=path.name, error=request)
                else:
                    self._take(request)
                    reach(Point.SHIP_REQUEST_TAKEN)
                # The one who asked may have taken it back meanwhile.
                path.unlink(missing_ok=True)
            for running in list(self._running):
                self._look_after(running)
        except StateUnusable as error:
            if self._state.is_at_fault(error):
                raise
            if self._said.is_due(str(error)):
                self._log.warning("request.delayed", error=error)
        return len(self._running)

    def _take(self, request: Request) -> None:
        self._log.info("request.received", kind=request.kind, id=request.id)
        # One that a crash left in the spool was taken up from the record, perhaps half begun.
        self._running = [item for item in self._running if item.request.id != request.id]
        body = msgspec.json.encode(request).decode("ascii")
        self._state.received.put(request.id, kind=request.kind, body=body)
        reach(Point.SHIP_REQUEST)
        try:
            stations = self._chosen(request)
            match request.kind:
                case RequestKind.PAUSE:
                    self._pause(request, stations)
                case RequestKind.RESUME:
                    self._resume(request, stations)
                case RequestKind.FLUSH:
                    self._begin_flush(request, stations)
                case RequestKind.REPLAY:
                    self._begin_replay(request, stations)
                case RequestKind.RECONCILE:
                    self._begin_reconcile(request, stations)
        except (UsageError, NodesFailed, SinceTooOld, StateUnusable) as error:
            self._answer(request, exit_code=error.exit_code, message=str(error))
        except OSError as error:
            message = f"the tree cannot be read: {error.strerror or error}"
            self._answer(request, exit_code=NodesFailed.exit_code, message=message)

    def _chosen(self, request: Request) -> list[Station]:
        found = [
            station
            for key, station in self._stations.items()
            if request.tree in {"", key[0]} and (not request.nodes or key[1] in request.nodes)
        ]
        unknown = set(request.nodes) - {station.key[1] for station in found}
        if unknown:
            raise UsageError(f"no node is named {', '.join(sorted(unknown))}")
        return found

    def _pause(self, request: Request, stations: Iterable[Station]) -> None:
        for station in stations:
            self._state.set_node(station.key, paused=1, paused_until=request.until_us)
            station.syncer.wake()
        self._answer(request)

    def _resume(self, request: Request, stations: list[Station]) -> None:
        if request.accept_root:
            self._accept_roots(request, stations)
            if not request.nodes:
                self._answer(request)
                return
        rows = self._state.read.nodes()
        now = self._clock.wall_us()
        for station in stations:
            row = rows[station.key]
            if row.halted and not (request.allow_delete or request.adopt):
                raise NodesFailed(
                    f"node {station.key[1]} is halted: {row.halted}",
                    hint="look at the Tree, then `shardsync resume NODE --allow-delete`",
                )
            self._state.set_node(
                station.key,
                paused=0,
                paused_until=None,
                not_before=0,
                **({"halted": "", "allow_delete": now} if request.allow_delete else {}),
                **({"owned": 1} if request.adopt else {}),
            )
            if request.adopt and row.contacted:
                station.first_contact.reconcile(request=request.id)
            station.syncer.wake()
        self._answer(request)

    def _accept_roots(self, request: Request, stations: list[Station]) -> None:
        """Take each Tree's root as it stands now; its Watchers are told, its Nodes compared."""
        rows = self._state.read.nodes()
        for tree in {station.key[0] for station in stations}:
            mine = [station for station in stations if station.key[0] == tree]
            trouble = mine[0].root.accept()
            if trouble is not None:
                raise NodesFailed(f"tree {tree}: {trouble.message}")
            self._state_dir.accept_root(tree).touch(mode=0o600)
            for station in mine:
                if rows[station.key].contacted:
                    station.first_contact.reconcile(request=request.id)
                station.syncer.wake()

    def _begin_flush(self, request: Request, stations: list[Station]) -> None:
        """Wait for the Positions that the Watchers acknowledged, and for what retired Shards hold.

        A Shard that is not in our Plan yet is waited for: the request may be quicker than it.
        """
        running = _Running(
            request=request,
            began_us=self._clock.wall_us(),
            keys=[station.key for station in stations],
        )
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
        self._running.append(running)

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

    def _begin_reconcile(self, request: Request, stations: list[Station]) -> None:
        self._refuse_stopped(stations)
        running = _Running(
            request=request,
            began_us=self._clock.wall_us(),
            keys=[station.key for station in stations],
        )
        rows = self._state.read.nodes()
        for station in stations:
            if rows[station.key].contacted:
                running.total += station.first_contact.reconcile(
                    path=request.path, request=request.id
                )
            station.syncer.wake()
        self._running.append(running)

    def _begin_replay(self, request: Request, stations: list[Station]) -> None:
        self._refuse_stopped(stations)
        running = _Running(
            request=request,
            began_us=self._clock.wall_us(),
            keys=[station.key for station in stations],
        )
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
        self._running.append(running)

    def _newest(self, station: Station) -> dict[str, int]:
        return {shard: cursor.position for shard, cursor in station.journals.newest().items()}

    def _refuse_stopped(self, stations: Iterable[Station]) -> None:
        rows = self._state.read.nodes()
        stopped = [s.key[1] for s in stations if _is_stopped(rows[s.key])]
        if stopped:
            raise NodesFailed(f"halted or paused: {', '.join(stopped)}")

    def _look_after(self, running: _Running) -> None:
        request = running.request
        rows = self._state.read.nodes()
        stations = self._stations_of(running)
        open_stations = [s for s in stations if not self._is_answered(running, s)]
        enough = request.enough or len(stations)
        had = len(stations) - len(open_stations)
        is_stuck = all(self._is_stuck(running, station) for station in open_stations)
        if had >= enough or (is_stuck and not request.enough):
            self._end(running, stations, open_stations)
            return
        names = ", ".join(f"{s.key[1]} ({self._why(rows[s.key], s)})" for s in open_stations)
        hopeless = sum(_is_stopped(rows[s.key]) or bool(s.root.trouble) for s in open_stations)
        if len(stations) - hopeless < enough and (
            request.enough or hopeless == len(open_stations)
        ):
            self._finish(running, exit_code=NodesFailed.exit_code, message=f"not done: {names}")
        elif request.deadline_us is not None and self._clock.wall_us() >= request.deadline_us:
            self._give_up(running, f"timed out: {names}")
        elif self._is_stalled(running, [rows[s.key] for s in open_stations]):
            self._give_up(running, f"not done: {names}")
        else:
            self._say_progress(running, open_stations, names)

    def _is_stalled(self, running: _Running, rows: list[NodeRow]) -> bool:
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

    def _give_up(self, running: _Running, message: str) -> None:
        """Nobody waits for it any more; what a replay or reconcile opened goes on."""
        if running.request.kind is not RequestKind.FLUSH:
            message += "; it goes on by itself"
        self._finish(running, exit_code=NodesFailed.exit_code, message=message)

    def _end(
        self, running: _Running, stations: list[Station], open_stations: list[Station]
    ) -> None:
        """All that was asked for is done, but for paths that fail again and again."""
        if running.request.kind is RequestKind.FLUSH:
            left = {station.key for station in open_stations}
            named = ", ".join(s.key[1] for s in stations if s.key not in left)
            self._finish(running, message=named if running.request.enough else "")
            return
        failures = self._failures(running)
        code = NodesFailed.exit_code if failures else 0
        self._finish(running, exit_code=code, message=failures)

    def _is_stuck(self, running: _Running, station: Station) -> bool:
        """Whether only paths that fail again and again are left of a request.

        They are tried for ever, but no command waits for them; a flush does, within its
        timeout, as its promise is that all is on the Nodes.
        """
        return (
            running.request.kind is not RequestKind.FLUSH
            and self._reached(running, station)
            and self._state.read.has_only_failures_of(
                station.key, running.request.id, attempts=_STUBBORN_ATTEMPTS
            )
        )

    def _failures(self, running: _Running) -> str:
        """Words on the paths of a replay or reconcile that failed, "" for none."""
        if running.request.kind is RequestKind.FLUSH:
            return ""
        # A replay of everything goes by Cursors: what fails on the way has no request's id.
        by_cursor = running.request.kind is RequestKind.REPLAY and not running.request.path
        words = [
            f"{printable(item.path)} on {station.key[1]} ({item.last_error})"
            for station in self._stations_of(running)
            for item in self._state.read.failures(station.key)
            if item.request == running.request.id or (by_cursor and item.since <= running.began_us)
        ]
        if not words:
            return ""
        return f"{len(words)} paths failed and are tried again later: {', '.join(words[:5])}"

    def _reached(self, running: _Running, station: Station) -> bool:
        """Whether the Node's Cursors have come to where the request asked for."""
        cursors = self._state.read.cursors(station.key)
        return all(
            shard in cursors and cursors[shard].position >= position
            for shard, position in running.until.get(station.key, {}).items()
        )

    def _is_answered(self, running: _Running, station: Station) -> bool:
        row = self._state.read.nodes()[station.key]
        # On a Tree that is halted nobody can say what is missing.
        if not row.contacted or station.root.trouble is not None:
            return False
        if not self._reached(running, station):
            return False
        if running.request.kind is RequestKind.FLUSH:
            return self._is_flushed(running, station)
        return not self._state.read.has_work_of(station.key, running.request.id)

    def _is_flushed(self, running: _Running, station: Station) -> bool:
        """Whether no work is open that may hold what was on disk when the flush began."""
        if station.first_contact.is_in_doubt:
            return False
        inside = rebase(running.request.path, Want.TREE, station.subtree)
        return inside is None or not self._state.read.has_work_at(
            station.key, inside[0], until_us=running.began_us
        )

    def _why(self, row: NodeRow, station: Station) -> str:
        if row.paused:
            return "paused"
        if row.halted:
            return f"halted: {row.halted}"
        if station.root.trouble:
            return f"tree halted: {station.root.trouble.message}"
        compared = self._state.read.round(station.key, RoundKind.COMPARE)
        if compared is not None and not row.last_error:
            return f"{row.state.value} {compared.ratio:.0%}: {compared.words}"
        return row.last_error or row.state.value

    def _say_progress(self, running: _Running, open_stations: list[Station], names: str) -> None:
        if running.request.kind is RequestKind.FLUSH:
            total = len(running.keys)
            done = total - len(open_stations)
        else:
            total = running.total
            done = max(0, total - sum(self._left(running, s) for s in open_stations))
        self._state.received.answer(
            running.request.id,
            state=RequestState.RUNNING,
            message=f"waiting for {names}",
            done=done,
            total=total,
        )

    def _left(self, running: _Running, station: Station) -> int:
        if running.request.kind is RequestKind.REPLAY and not running.request.path:
            cursors = self._state.read.cursors(station.key)
            left = 0
            for shard, cursor in cursors.items():
                reader = station.journals.reader(shard)
                left += reader.count(after=cursor.position) if reader is not None else 0
            return left
        return self._state.read.count_work_of(station.key, running.request.id)

    def _finish(self, running: _Running, *, exit_code: int = 0, message: str = "") -> None:
        self._running.remove(running)
        self._answer(running.request, exit_code=exit_code, message=message, total=running.total)

    def _answer(
        self, request: Request, *, exit_code: int = 0, message: str = "", total: int = 0
    ) -> None:
        reach(Point.SHIP_ANSWER)
        self._state.received.answer(
            request.id,
            state=RequestState.FAILED if exit_code else RequestState.DONE,
            exit_code=exit_code,
            message=message,
            done=0 if exit_code else total,
            total=total,
        )
        self._log.info(
            "request.answered", kind=request.kind, id=request.id, exit=exit_code, message=message
        )


def _is_stopped(row: NodeRow) -> bool:
    return row.paused or bool(row.halted)
