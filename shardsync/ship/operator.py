"""What operators ask of the sync process: flush, replay, reconcile, pause and resume.

Requests come from the spool and are answered in state.db. Each is checked
against the record on every tick, so a restart of the process goes on with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shardsync.clock import Clock
from shardsync.errors import NodesFailed, SinceTooOld, StateUnusable, UsageError
from shardsync.failpoints import Point, reach
from shardsync.journal import requests
from shardsync.journal.records import NodeKey
from shardsync.journal.requests import Request, RequestKind, RequestState
from shardsync.journal.state_writer import StateWriter
from shardsync.layout import StateDirectory
from shardsync.log import ChangeOnly, Log
from shardsync.ship.completion import Completion
from shardsync.ship.pausing import Pausing
from shardsync.ship.running import Running
from shardsync.ship.station import Station
from shardsync.ship.undertaking import Undertaking

_OPENING_WORK = frozenset({RequestKind.RECONCILE, RequestKind.REPLAY, RequestKind.RESUME})


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
        self._pausing = Pausing(state_dir=state_dir, state=state, clock=clock)
        self._undertaking = Undertaking(state=state, clock=clock)
        self._completion = Completion(read=state.read, clock=clock)
        self._running: list[Running] = []
        self._said = ChangeOnly(clock=clock)

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._running)

    def recover(self) -> None:
        """Go on with what the last process left open."""
        for body in self._state.read.open_requests():
            try:
                self._go_on_with(msgspec.json.decode(body, type=Request))
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

    def _stations_of(self, running: Running) -> list[Station]:
        """Those that the request is about; a Node that was removed meanwhile is no longer."""
        return [self._stations[key] for key in running.keys if key in self._stations]

    def _go_on_with(self, request: Request) -> None:
        try:
            stations = self._chosen(request)
        except UsageError as error:
            self._answer(request, exit_code=error.exit_code, message=str(error))
            return
        self._note_joined(request, stations)
        self._running.append(self._undertaking.again(request, stations))

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
            self._note_joined(request, stations)
            match request.kind:
                case RequestKind.PAUSE:
                    self._pausing.pause(request, stations)
                    self._answer(request)
                case RequestKind.RESUME:
                    self._pausing.resume(request, stations)
                    self._answer(request)
                case RequestKind.FLUSH:
                    self._running.append(self._undertaking.flush(request, stations))
                case RequestKind.REPLAY:
                    self._running.append(self._undertaking.replay(request, stations))
                case RequestKind.RECONCILE:
                    self._running.append(self._undertaking.reconcile(request, stations))
        except (UsageError, NodesFailed, SinceTooOld, StateUnusable) as error:
            self._answer(request, exit_code=error.exit_code, message=str(error))
        except OSError as error:
            message = f"the tree cannot be read: {error.strerror or error}"
            self._answer(request, exit_code=NodesFailed.exit_code, message=message)

    def _note_joined(self, request: Request, stations: list[Station]) -> None:
        """What is open already will bear this one's id, and the earlier is not done before it."""
        if request.kind not in _OPENING_WORK:
            return
        keys = {station.key for station in stations}
        for running in self._running:
            if keys.intersection(running.keys):
                running.joined.add(request.id)

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

    def _look_after(self, running: Running) -> None:
        request = running.request
        rows = self._state.read.nodes()
        stations = self._stations_of(running)
        open_stations = [s for s in stations if not self._completion.is_answered(running, s)]
        enough = request.enough or len(stations)
        had = len(stations) - len(open_stations)
        is_stuck = all(self._completion.is_stuck(running, station) for station in open_stations)
        if had >= enough or (is_stuck and not request.enough):
            self._end(running, stations, open_stations)
            return
        names = ", ".join(
            f"{s.key[1]} ({self._completion.why(rows[s.key], s)})" for s in open_stations
        )
        hopeless = sum(rows[s.key].is_stopped or bool(s.root.trouble) for s in open_stations)
        if len(stations) - hopeless < enough and (
            request.enough or hopeless == len(open_stations)
        ):
            self._finish(running, exit_code=NodesFailed.exit_code, message=f"not done: {names}")
        elif request.deadline_us is not None and self._clock.wall_us() >= request.deadline_us:
            self._give_up(running, f"timed out: {names}")
        elif self._completion.is_stalled(running, [rows[s.key] for s in open_stations]):
            self._give_up(running, f"not done: {names}")
        else:
            self._say_progress(running, open_stations, names)

    def _give_up(self, running: Running, message: str) -> None:
        """Nobody waits for it any more; what a replay or reconcile opened goes on."""
        if running.request.kind is not RequestKind.FLUSH:
            message += "; it goes on by itself"
        self._finish(running, exit_code=NodesFailed.exit_code, message=message)

    def _end(
        self, running: Running, stations: list[Station], open_stations: list[Station]
    ) -> None:
        """All that was asked for is done, but for paths that fail again and again."""
        if running.request.kind is RequestKind.FLUSH:
            left = {station.key for station in open_stations}
            named = ", ".join(s.key[1] for s in stations if s.key not in left)
            self._finish(running, message=named if running.request.enough else "")
            return
        failures = self._completion.failures(running, stations)
        code = NodesFailed.exit_code if failures else 0
        self._finish(running, exit_code=code, message=failures)

    def _say_progress(self, running: Running, open_stations: list[Station], names: str) -> None:
        if running.request.kind is RequestKind.FLUSH:
            total = len(running.keys)
            done = total - len(open_stations)
        else:
            total = running.total
            done = max(0, total - sum(self._completion.left(running, s) for s in open_stations))
        self._state.received.answer(
            running.request.id,
            state=RequestState.RUNNING,
            message=f"waiting for {names}",
            done=done,
            total=total,
        )

    def _finish(self, running: Running, *, exit_code: int = 0, message: str = "") -> None:
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
