"""All that the sync process asks of one Node: ship, compare, list, probe. An adapter.

One effect at a time: runs that write wait for each other, as overlapping ones
spoil directory mtimes for good, unless the caller says that their subtrees are
disjoint; a big file's leaves those alone. Comparisons write nothing and may run beside.
Paths are relative to what the Node takes: the Tree's root or its `subtree`.
It never decides what to ship, and retries only what a warm start explains.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings, TargetKind
from shardsync.ship.answers import Listing, Probe, joined, learned, open_to_all
from shardsync.ship.cold_runs import BUSY_PAUSES_SECONDS, WARM_TROUBLES, ColdRuns
from shardsync.ship.command import (
    Capabilities,
    Purpose,
    basis_options,
    below_target,
    can_be_destination,
    deletion_filters,
)
from shardsync.ship.comparison import Comparison
from shardsync.ship.messages import FailureKind, OutLine
from shardsync.ship.outcome import Outcome, RunResult, Trouble
from shardsync.ship.readiness import Readiness
from shardsync.ship.rsync import folder_moved_on, source_lost
from shardsync.ship.slots import NodeSlots, Pulse
from shardsync.ship.ssh_master import SshMaster, shares
from shardsync.ship.starting import RunStarter, Source
from shardsync.ship.turns import Turns

_NO_BRAKE = 2**31 - 1
"""rsync's --max-delete is an int: nothing is held back where nothing is really deleted."""
_LISTED_NAMES = 10_000


class NodeTransport:
    """rsync to one Node.

    `filters`: its excludes as rsync arguments; `first`: what FIRST runs take, likewise.
    `max_delete`: the brake of runs that are not given one of their own. `environment`: ours.
    `slots`: taken here by comparisons alone, the other runs' by the caller; all tell how they
    get on. `on_written`: told the end of each run that was to write, also of those tried again.
    """

    def __init__(
        self,
        *,
        node: NodeSettings,
        source: Source,
        clock: Clock,
        environment: Mapping[str, str],
        filters: tuple[str, ...] = (),
        first: tuple[str, ...] = (),
        capabilities: Capabilities | None = None,
        max_delete: int = 10_000,
        slots: NodeSlots | None = None,
        on_written: Callable[[RunResult], None] | None = None,
        program: str = "rsync",
    ) -> None:
        self._node = node
        self._clock = clock
        self._environment = environment
        self._slots = slots
        self._writing = Turns()
        self._writing_beside = asyncio.Lock()
        self.capabilities = Capabilities() if capabilities is None else capabilities
        """What the Node can do, as known by now: `ship` learns from refusals. Worth storing."""
        self._starter = RunStarter(
            node=node,
            source=source,
            clock=clock,
            environment=environment,
            filters=filters,
            first=first,
            max_delete=max_delete,
            find_capabilities=lambda: self.capabilities,
            find_control_path=self._control_path,
            on_written=on_written,
            program=program,
        )
        self._master = self._master_wanted()
        self._readiness = Readiness(
            node=node,
            starter=self._starter,
            find_capabilities=lambda: self.capabilities,
            is_writing=self._writing.locked,
            clock=clock,
        )
        self._cold = ColdRuns(
            starter=self._starter,
            readiness=self._readiness,
            is_daemon=self._is_daemon,
            count_lost=lambda: 0 if self._master is None else self._master.lost,
            new_pulse=self._pulse,
        )

    @property
    def master_pid(self) -> int | None:
        """The process of the ssh connection that all runs share, None where none runs."""
        return None if self._master is None else self._master.pid

    @property
    def is_shared(self) -> bool:
        """Whether a run that starts now shares that connection."""
        return self._master is not None and self._master.is_well

    @property
    def warm_seconds(self) -> float | None:
        """For how long a warm rsync has been waiting, None where none is."""
        return self._readiness.age_seconds

    def warm_up(self) -> None:
        """Have an rsync wait for the next Batch; renews one that grows old. Idempotent.

        Call it when the Node follows, and every few seconds. Trouble shows at the next `ship`.
        """
        self._readiness.warm_up()

    async def ship(
        self,
        paths: Sequence[bytes],
        *,
        purpose: Purpose = Purpose.BATCH,
        gone: Sequence[bytes] = (),
        deadline_seconds: float,
        max_delete: int | None = None,
        on_line: Callable[[OutLine], None] | None = None,
        beside: bool = False,
    ) -> RunResult:
        """Make `paths` on the Node what they are here, and delete `gone` there.

        `gone`: seen missing through the pinned root, the shallowest only. With `max_delete`
        given, the run starts cold, with that brake. A list may be shipped twice. `beside`: other
        such runs may go on meanwhile, as no two of them have a directory in common but those
        above all of them, which the caller sets right afterwards.

        A BIG_FILE runs beside the others, where the Node lets in two at a time.

        Crash safety: whatever ends this early, each entry of the list is done or not done.
        """
        if purpose is Purpose.BIG_FILE and not self._readiness.takes_one:
            async with self._writing_beside:
                result = await self._cold.run(purpose, paths, deadline_seconds=deadline_seconds)
            self.capabilities = learned(self.capabilities, result)
            return result
        listed = len(paths) + len(gone)
        self._readiness.shipping()
        async with self._turn_to_write(beside=beside, listed=listed):
            deadline = self._clock.monotonic() + deadline_seconds
            while True:
                left = max(1.0, deadline - self._clock.monotonic())
                if gone and not self.capabilities.delete_missing_args and self._node.delete:
                    result = await self._ship_filtered(paths, purpose, gone, left, max_delete)
                else:
                    result = await self._ship_flat(paths, purpose, gone, left, max_delete, on_line)
                able = learned(self.capabilities, result)
                if able == self.capabilities:
                    break
                self.capabilities = able
                # It was started on what was believed before, and rrsync lets in one at a time.
                await self._readiness.start_over()
        if result.outcome is Outcome.NOTHING:
            self._readiness.drop()
        elif not beside:
            self._readiness.shipped(listed)
        return result

    def can_move(self, path: bytes) -> bool:
        """Whether `ship_moved` can be asked for this path. rrsync takes no times so exact."""
        return self.capabilities.modify_window and can_be_destination(path, self._node.target)

    async def ship_moved(
        self,
        path: bytes,
        *,
        origins: Sequence[bytes],
        link: bool,
        checksum: bool,
        filters: tuple[str, ...],
        deadline_seconds: float,
    ) -> RunResult:
        """Make the directory `path` and all below it what it is here; deletes nothing.

        What the Node has at the same place below one of `origins` is not sent: it is hard-linked
        there (`link`) or copied. A missing origin costs nothing but its data. `path` itself must
        be a directory on the Node already. `filters`: the Node's excludes as seen from `path`.
        Paths of the result are the Node's.
        """
        purpose = Purpose.MOVED_CHECKSUM if checksum else Purpose.MOVED
        node = replace(self._node, target=below_target(self._node.target, path))
        folder = b"/".join(part for part in (os.fsencode(self._node.subtree), path) if part)

        async def once() -> RunResult:
            try:
                source = self._starter.open_folder(folder)
            except OSError as error:
                is_gone = error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
                return folder_moved_on(path) if is_gone else source_lost(error, listed=1)
            try:
                try:
                    run = self._starter.begin_on(
                        source,
                        purpose=purpose,
                        filters=filters,
                        node=node,
                        basis=basis_options(path, origins, link=link, target=self._node.target),
                    )
                finally:
                    os.close(source)
            except OSError as error:
                return source_lost(error, listed=1)
            return await run.finish(paths=(b"",), entries=(), deadline_seconds=deadline_seconds)

        async with self._turn_to_write(beside=False):
            result = await self._cold.patiently(once)
        return replace(
            result,
            failed={_below(path, name): failure for name, failure in result.failed.items()},
            vanished=tuple(_below(path, name) for name in result.vanished),
        )

    async def count_deletions(
        self, paths: Sequence[bytes], *, gone: Sequence[bytes], deadline_seconds: float
    ) -> RunResult:
        """A dry run: its `deleted` is how many entries the Node would lose, those below included.

        `paths`: what may stand where the Node has a directory. `gone` as for `ship`.
        """
        filtered = bool(gone) and not self.capabilities.delete_missing_args
        async with self._turn():
            result = await self._cold.run(
                Purpose.DELETE_FILTERED if filtered else Purpose.BATCH,
                () if filtered else paths,
                gone=gone,
                entries=tuple(deletion_filters(gone)) if filtered else None,
                deadline_seconds=deadline_seconds,
                max_delete=_NO_BRAKE,
                dry_run=True,
            )
        able = learned(self.capabilities, result)
        if able != self.capabilities:
            self.capabilities = able
            return await self.count_deletions(paths, gone=gone, deadline_seconds=deadline_seconds)
        return result

    def compare(
        self,
        paths: Sequence[bytes],
        *,
        purpose: Purpose = Purpose.COMPARE,
        deadline_seconds: float,
    ) -> Comparison:
        """Look at what differs on the Node; changes nothing. Use it with `async with`."""
        pauses = iter(BUSY_PAUSES_SECONDS)

        async def again(result: RunResult) -> bool:
            pause = next(pauses, None) if result.trouble is Trouble.BUSY else None
            if pause is None or not self._is_daemon:
                return False
            await self._readiness.make_room()
            await asyncio.sleep(pause)
            return True

        return Comparison(
            turn=self._turn_with_slot(),
            again=again,
            begin=lambda on_line: self._starter.begin(purpose, on_line=on_line),
            foreign_only=purpose is Purpose.COMPARE_LISTING,
            paths=paths,
            deadline_seconds=deadline_seconds,
            pulse=self._pulse(),
        )

    async def list_root(self, *, deadline_seconds: float = 120.0) -> Listing:
        """The names at the top of the Node's target, excluded ones too; changes nothing."""
        names: list[bytes] = []

        def take(line: OutLine) -> None:
            if line.operation == "del." and len(names) <= _LISTED_NAMES:
                names.append(line.path)

        with open_to_all() as empty:
            async with self._turn():
                result = await self._cold.elsewhere(
                    os.fsencode(empty),
                    Purpose.COMPARE_LISTING,
                    (b"",),
                    # What is inside its folders is neither told nor looked at.
                    filters=("--filter=P /*/*",),
                    deadline_seconds=deadline_seconds,
                    on_line=take,
                )
        names += (path for path in result.failed if path not in names[-1:])
        if {failure.kind for failure in result.failed.values()} == {FailureKind.NOT_EMPTY}:
            result = replace(result, outcome=Outcome.SHIPPED, failed={}, trouble=None, message="")
        return Listing(
            names=tuple(sorted(names[:_LISTED_NAMES])),
            is_missing=result.made_target,
            is_cut=len(names) > _LISTED_NAMES,
            result=result,
        )

    async def probe(self, *, deadline_seconds: float = 60.0) -> Probe:
        """Reach the Node and find out what its rsync can do; changes nothing (dry run).

        A receiver that dies of missing arguments does so in a dry run as well, but only where
        an existing path is listed beside the missing one.
        """
        await self._readiness.start_over()
        self.capabilities = Capabilities()
        with open_to_all() as folder:
            there = b".shardsync-probe-" + secrets.token_hex(8).encode()
            os.mknod(os.path.join(os.fsencode(folder), there))
            while True:
                async with self._turn():
                    result = await self._cold.elsewhere(
                        os.fsencode(folder),
                        Purpose.ATTRIBUTES,
                        (there,),
                        gone=(there + b"-not",),
                        deadline_seconds=deadline_seconds,
                    )
                able = learned(self.capabilities, result)
                if able == self.capabilities:
                    return Probe(capabilities=able, result=result)
                self.capabilities = able

    async def pause(self) -> None:
        """Let go of the warm rsync, and with it of the root and the connections."""
        await self._readiness.pause()
        if self._master is not None:
            await self._master.close()

    def resume(self) -> None:
        """Allow warm starts again."""
        self._readiness.resume()

    async def close(self) -> None:
        """As `pause`, for good; runs under way are left to their callers."""
        await self.pause()

    def _master_wanted(self) -> SshMaster | None:
        node = self._node
        if node.target.kind is not TargetKind.SSH or not (node.warm and shares(node)):
            return None
        return SshMaster(
            node=node,
            environment=self._environment,
            find_user=self._starter.user,
            clock=self._clock,
        )

    @property
    def _is_daemon(self) -> bool:
        return self._node.target.kind is TargetKind.DAEMON

    def _turn(self) -> contextlib.AbstractAsyncContextManager[object]:
        return self._writing.alone() if self._readiness.takes_one else contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def _turn_with_slot(self) -> AsyncIterator[None]:
        async with self._slots or contextlib.nullcontext(), self._turn():
            yield

    def _pulse(self) -> Pulse:
        return Pulse() if self._slots is None else self._slots.pulse()

    @contextlib.asynccontextmanager
    async def _turn_to_write(self, *, beside: bool, listed: int = 1) -> AsyncIterator[None]:
        if beside and not self._readiness.takes_one:
            async with self._writing.beside():
                yield
            return
        async with self._writing.alone(), self._readiness.next_ahead(listed):
            yield

    async def _ship_flat(
        self,
        paths: Sequence[bytes],
        purpose: Purpose,
        gone: Sequence[bytes],
        deadline_seconds: float,
        max_delete: int | None,
        on_line: Callable[[OutLine], None] | None,
    ) -> RunResult:
        warm = None
        if purpose is Purpose.BATCH and max_delete is None and on_line is None:
            try:
                warm = self._readiness.take()
            except OSError as error:
                return source_lost(error, listed=len(paths) + len(gone))
        if warm is not None:
            result = await warm.finish(
                paths=paths,
                gone=gone,
                deadline_seconds=deadline_seconds,
                warm=True,
                pulse=self._pulse(),
            )
            deadline_seconds -= result.seconds
            if result.trouble not in WARM_TROUBLES or deadline_seconds <= 0:
                return result
        result = await self._cold.run(
            purpose,
            paths,
            gone=gone,
            deadline_seconds=deadline_seconds,
            max_delete=max_delete,
            on_line=on_line,
        )
        return result if warm is None else replace(result, cut_off=True)

    async def _ship_filtered(
        self,
        paths: Sequence[bytes],
        purpose: Purpose,
        gone: Sequence[bytes],
        deadline_seconds: float,
        max_delete: int | None,
    ) -> RunResult:
        """Deletions by filters first, then the rest; directories that lost something last."""
        deleted = await self._cold.run(
            Purpose.DELETE_FILTERED,
            (),
            gone=gone,
            entries=tuple(deletion_filters(gone)),
            deadline_seconds=deadline_seconds,
            max_delete=max_delete,
        )
        if deleted.outcome is Outcome.NOTHING:
            return deleted
        known = frozenset(paths)
        parents = {path.rpartition(b"/")[0] for path in gone} - known - {b""}
        sent = await self._cold.run(
            purpose,
            [*paths, *sorted(parents)],
            deadline_seconds=max(1.0, deadline_seconds - deleted.seconds),
        )
        return joined(deleted, sent)

    def _control_path(self) -> str:
        if self._master is None or self._readiness.is_paused:
            return ""
        return self._master.control_path()


def _below(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if name else folder
