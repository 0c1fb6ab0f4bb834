"""What stands ready for a Node's next Batch: how many warm rsyncs wait, and when they are started.

A start costs this machine's processor, and a daemon a connection that others may want: so not
beside a list that is long, not for a Node that is idle behind ssh, and none where the daemon
lets in one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings, TargetKind
from shardsync.ship.command import Capabilities, Purpose
from shardsync.ship.outcome import Trouble
from shardsync.ship.rsync import RsyncRun
from shardsync.ship.starting import RunStarter
from shardsync.ship.warm import WarmRsync

_AHEAD_SECONDS = 0.01
"""A small Batch is visible after 4 ms, and its rsync ends after 45."""
_LONG_LIST = 1_000
"""So many paths take longer than the start of an rsync."""
_BREATH_SECONDS = 0.5
"""After a long list the processor is rather the other Nodes', who may be at theirs."""
_STREAM_SECONDS = 1.0
"""Batches that follow each other so closely make a stream."""
_SSH_IDLE_SECONDS = 900.0
"""A warm rsync is a login every 40 s: an idle Node's sshd is spared those after that long."""
_BESIDE_SECONDS = 30.0
_CROWDED_SECONDS = 600.0
"""A daemon that was full may have been so for others' sake: it is tried again after that."""


class Readiness:
    """The warm rsyncs of one Node. `is_writing`: whether a run that writes is under way."""

    def __init__(
        self,
        *,
        node: NodeSettings,
        starter: RunStarter,
        find_capabilities: Callable[[], Capabilities],
        is_writing: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._node = node
        self._starter = starter
        self._find_capabilities = find_capabilities
        self._is_writing = is_writing
        self._clock = clock
        self._warm = WarmRsync(
            begin=starter.begin_warm,
            open_source=starter.open_source,
            find_place=starter.place,
            clock=clock,
        )
        self._shipped_at: float | None = None
        self._crowded_at: float | None = None
        self._is_streaming = False
        self._ahead = 1 if node.target.kind is TargetKind.LOCAL else 2
        self._beside: asyncio.Task[None] | None = None
        self.is_paused = False
        """Whether none may be started now."""

    @property
    def age_seconds(self) -> float | None:
        """For how long the one that is next has been waiting, None where none is."""
        return self._warm.age_seconds

    @property
    def takes_one(self) -> bool:
        """Behind rrsync, or a daemon without another connection: nothing waits, all take turns."""
        if not self._find_capabilities().modify_window:
            return True
        crowded_at = self._crowded_at
        if crowded_at is None:
            return False
        return self._clock.monotonic() - crowded_at < _CROWDED_SECONDS

    def warm_up(self) -> None:
        """Have an rsync wait for the next Batch; renews one that grows old. Idempotent."""
        if self._is_writing():
            return
        self._is_streaming = self._is_streaming and not self._is_quiet(_STREAM_SECONDS)
        if self._is_idle():
            self._warm.drop()
        else:
            self._start()
        is_daemon = self._node.target.kind is TargetKind.DAEMON
        if self._beside is None and is_daemon and self._warm.age_seconds is not None:
            self._beside = asyncio.get_running_loop().create_task(self._try_beside())

    def shipping(self) -> None:
        """A Batch begins: whether it is one of a stream of them tells how many are to wait."""
        before, self._shipped_at = self._shipped_at, self._clock.monotonic()
        is_soon = before is not None and self._shipped_at - before < _STREAM_SECONDS
        self._is_streaming = is_soon and self._ahead > 1

    @contextlib.asynccontextmanager
    async def next_ahead(self, listed: int) -> AsyncIterator[None]:
        """Start the next warm run while this one works, so that it is ready when it ends.

        A little later than the list is handed over, so as not to take the processor from it;
        not beside a list that is long. With Batch upon Batch, two: a connection takes longer to
        make than a Batch to ship.
        """
        loop = asyncio.get_running_loop()
        times = 2 if self._is_streaming else 1
        if self._is_long(listed):
            times = 0
        timers = [
            loop.call_later(_AHEAD_SECONDS * number, self._start) for number in range(1, times + 1)
        ]
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()

    def shipped(self, listed: int) -> None:
        """A Batch of so many paths is through."""
        if self._is_long(listed):
            asyncio.get_running_loop().call_later(_BREATH_SECONDS, self.warm_up)
        else:
            self.warm_up()

    def take(self) -> RsyncRun | None:
        """As `WarmRsync.take`. Raises OSError where the source cannot be opened."""
        return self._warm.take()

    def drop(self) -> None:
        """Let go of what waits, as something is wrong; without waiting for its end."""
        self._warm.drop()

    async def start_over(self) -> None:
        """What waits was started on what is not believed any more, or is in the way: end it."""
        await self._warm.close()

    async def make_room(self) -> None:
        """The daemon takes no more connections: hold none from now on, and all take turns."""
        self._crowded_at = self._clock.monotonic()
        await self._warm.close()

    async def pause(self) -> None:
        """Let go of the root and the connections, and start none until `resume`."""
        self.is_paused = True
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.cancel()
            await asyncio.wait({beside})
        await self._warm.close()

    def resume(self) -> None:
        """Allow warm starts again."""
        self.is_paused = False

    def _start(self) -> None:
        if self._warm.was_refused:
            # Where one waits, it was the second that did not get in.
            if self._ahead == 1 or self._warm.age_seconds is None:
                self._crowded_at = self._clock.monotonic()
                self._warm.drop()
            self._ahead = 1
        if self.is_paused or self.takes_one or not self._node.warm:
            return
        # Trouble with the source shows at the next ship, which tells it.
        with contextlib.suppress(OSError):
            self._warm.start(ahead=self._ahead if self._is_streaming else 1)

    async def _try_beside(self) -> None:
        """Find out, before anyone needs it, whether a run gets in beside the warm one."""
        try:
            run = self._starter.begin(Purpose.BATCH, dry_run=True)
        except OSError:
            return
        result = await run.finish(paths=(), deadline_seconds=_BESIDE_SECONDS)
        if result.trouble is Trouble.BUSY:
            await self.make_room()

    def _is_idle(self) -> bool:
        """Whether a waiting login is no longer worth its lines in the Node's log."""
        return self._node.target.kind is TargetKind.SSH and self._is_quiet(_SSH_IDLE_SECONDS)

    def _is_quiet(self, seconds: float) -> bool:
        shipped_at = self._shipped_at
        return shipped_at is not None and self._clock.monotonic() - shipped_at > seconds

    def _is_long(self, listed: int) -> bool:
        """On this machine, where a start takes no time but the processor's."""
        return listed > _LONG_LIST and self._node.target.kind is TargetKind.LOCAL
