"""How many rsyncs may run at a time, over all Nodes, and whose turn it is.

Free slots go round the Nodes that wait, not to requests in their order, so that a
Node with much to do delays no other; and the last one goes to no Node that has one
already. A run without any I/O for a while lends its slot to the others until it
goes on; and the next runs of a Node whose last one stood still take none before
they are seen to move: so a Node that hangs costs the others one short wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from shardsync.journal.records import NodeKey
from shardsync.ship.observer import ShipObserver

_AHEAD_SECONDS = 0.5
"""To read and look at 10,000 paths takes half of it."""


@dataclass(slots=True, eq=False)
class _Seat:
    """One Node's share. `held`: its runs; `still`: those without I/O; `hangs`: the last was."""

    held: int = 0
    still: int = 0
    hangs: bool = False

    @property
    def counted(self) -> int:
        """How many slots it really takes from the others."""
        return 0 if self.hangs else max(0, self.held - self.still)


class RsyncSlots:
    """The limit; each Node asks through its own `of(node)`. All calls on one event loop."""

    def __init__(self, *, limit: int, observer: ShipObserver) -> None:
        self._limit = limit
        self._observer = observer
        self._seats: dict[NodeKey, _Seat] = {}
        self._waiting: dict[NodeKey, deque[asyncio.Future[None]]] = {}
        self._served: dict[NodeKey, int] = {}
        self._grants = 0
        self._ahead: set[NodeKey] = set()

    def of(self, node: NodeKey) -> NodeSlots:
        """The slots as one Node sees them."""
        return NodeSlots(slots=self, node=node)

    def is_free(self, node: NodeKey) -> bool:
        """Whether the Node would be given a slot at once."""
        free = self._limit - sum(seat.counted for seat in self._seats.values())
        return not self._waiting and self._may_have(node, free)

    @contextlib.asynccontextmanager
    async def ahead(self, node: NodeKey) -> AsyncIterator[None]:
        """Wait for a slot before it is known what for: the Node's next run has it.

        It is given back at the end if no run was begun, and before that where none is for long:
        all of a large tree is counted, perhaps. The run then waits as any other.
        """
        await self.take(node)
        self._ahead.add(node)
        later = asyncio.get_running_loop().call_later
        unused = later(_AHEAD_SECONDS, self._give_back_unused, node)
        try:
            yield
        finally:
            unused.cancel()
            self._give_back_unused(node)

    def _give_back_unused(self, node: NodeKey) -> None:
        if node in self._ahead:
            self._ahead.discard(node)
            self.give_back(node)

    async def take(self, node: NodeKey) -> None:
        """Wait for a slot; whoever was given one gives it back."""
        if node in self._ahead:
            self._ahead.discard(node)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(node, deque()).append(turn)
        self._changed()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled() or not turn.done():
                self._forget(node, turn)
            else:
                self.give_back(node)
            raise

    def give_back(self, node: NodeKey) -> None:
        """One run of the Node ended."""
        seat = self._seats[node]
        seat.held -= 1
        if not seat.held and not seat.hangs:
            del self._seats[node]
        self._changed()

    def stood_still(self, node: NodeKey) -> None:
        """A run of the Node does nothing: the others may have its slot."""
        seat = self._seats.get(node)
        if seat is not None:
            seat.still += 1
            seat.hangs = seat.hangs or seat.still >= seat.held
            self._changed()

    def went_on(self, node: NodeKey) -> None:
        """One that stood still moves again, or has ended."""
        seat = self._seats.get(node)
        if seat is not None:
            seat.still = max(0, seat.still - 1)
            self._changed()

    def moved(self, node: NodeKey) -> None:
        """A run of the Node gets somewhere: it hangs no longer."""
        seat = self._seats.get(node)
        if seat is not None and seat.hangs:
            seat.hangs = False
            self._changed()

    def _changed(self) -> None:
        self._grant()
        held = sum(seat.held for seat in self._seats.values())
        self._observer.rsyncs_running(held, limit=self._limit)

    def _grant(self) -> None:
        """Give out what is free, round the Nodes that wait."""
        while (node := self._next()) is not None:
            turn = self._waiting[node].popleft()
            if not self._waiting[node]:
                del self._waiting[node]
            if not turn.done():
                self._grants += 1
                self._served[node] = self._grants
                self._seats.setdefault(node, _Seat()).held += 1
                turn.set_result(None)

    def _next(self) -> NodeKey | None:
        """Of the Nodes that wait and may have one, the one that has gone without for longest."""
        free = self._limit - sum(seat.counted for seat in self._seats.values())
        may = [node for node in self._waiting if self._may_have(node, free)]
        return min(may, key=lambda node: self._served.get(node, 0), default=None)

    def _may_have(self, node: NodeKey, free: int) -> bool:
        seat = self._seats.get(node, _NOBODY)
        return (seat.hangs and not seat.held) or free > (1 if seat.held else 0)

    def _forget(self, node: NodeKey, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(node)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[node]


_NOBODY = _Seat()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSlots:
    """`async with node_slots:` around each run of one Node."""

    slots: RsyncSlots
    node: NodeKey

    async def __aenter__(self) -> None:
        await self.slots.take(self.node)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self.slots.give_back(self.node)

    @property
    def is_free(self) -> bool:
        """See RsyncSlots."""
        return self.slots.is_free(self.node)

    def ahead(self) -> contextlib.AbstractAsyncContextManager[None]:
        """See RsyncSlots."""
        return self.slots.ahead(self.node)

    def pulse(self) -> Pulse:
        """For one run to tell how it gets on."""
        return SlotPulse(slots=self)


class Pulse:
    """What a run tells of itself while it goes on; this one tells nobody."""

    def still(self) -> None:
        """No I/O for a while. Idempotent."""

    def moves(self) -> None:
        """There is I/O, and not only that of the start. Idempotent."""

    def ended(self) -> None:
        """It is over, whatever became of it. Idempotent."""


@dataclass(slots=True)
class SlotPulse(Pulse):
    """Tells the slots."""

    slots: NodeSlots
    _is_still: bool = field(default=False, init=False)

    def still(self) -> None:
        """See Pulse."""
        if not self._is_still:
            self._is_still = True
            self.slots.slots.stood_still(self.slots.node)

    def moves(self) -> None:
        """See Pulse."""
        self.slots.slots.moved(self.slots.node)
        self._go_on()

    def ended(self) -> None:
        """See Pulse. One that never stood still moved, however short it was."""
        if self._is_still:
            self._go_on()
        else:
            self.slots.slots.moved(self.slots.node)

    def _go_on(self) -> None:
        if self._is_still:
            self._is_still = False
            self.slots.slots.went_on(self.slots.node)
