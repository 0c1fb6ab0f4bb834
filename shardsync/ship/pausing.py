"""Pausing Nodes and resuming them at an operator's word, which is done at once.

What holds a Node is lifted with it where the word says so: deletions beyond the
limit, what is foreign there, another root than before.
"""

from __future__ import annotations

from collections.abc import Iterable

from shardsync.clock import Clock
from shardsync.errors import NodesFailed
from shardsync.journal.requests import Request
from shardsync.journal.state_writer import StateWriter
from shardsync.layout import StateDirectory
from shardsync.ship.station import Station


class Pausing:
    """Acts on the record and wakes the Syncers, which go by it."""

    def __init__(self, *, state_dir: StateDirectory, state: StateWriter, clock: Clock) -> None:
        self._state_dir = state_dir
        self._state = state
        self._clock = clock

    def pause(self, request: Request, stations: Iterable[Station]) -> None:
        """Nothing is sent to them any more, until then where the request says so."""
        for station in stations:
            self._state.set_node(station.key, paused=1, paused_until=request.until_us)
            station.syncer.wake()

    def resume(self, request: Request, stations: list[Station]) -> None:
        """Send to them again. Raises NodesFailed for one that is halted and stays so."""
        if request.accept_root:
            self._accept_roots(request, stations)
            if not request.nodes:
                return
        rows = self._state.read.nodes()
        now = self._clock.wall_us()
        for station in stations:
            if request.adopt and rows[station.key].contacted:
                # It is to be compared. Not to be found out when it is owned already.
                station.require_root()
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
