"""What differs between the tree and a Node, streamed from a dry run of rsync. An adapter.

It changes nothing on either side and holds a bounded number of differences.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from shardsync.ship.messages import OutLine
from shardsync.ship.outcome import RunResult
from shardsync.ship.rsync import RsyncRun, source_lost
from shardsync.ship.slots import Pulse

_QUEUE_LINES = 10_000


class What(enum.StrEnum):
    """How a Node differs from the tree at one path."""

    NEW = "missing on the node"
    CHANGED = "content differs"
    ATTRIBUTES = "attributes differ"
    EXTRANEOUS = "not in the tree"
    UNREADABLE = "cannot be compared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One path that differs. `is_directory`: as the side that has it says.

    `reason`: why it could not be compared, in rsync's words.
    """

    path: bytes
    what: What
    is_directory: bool = False
    reason: str = ""

    @property
    def why(self) -> str:
        """For people."""
        return f"{self.what.value}: {self.reason}" if self.reason else self.what.value


class Comparison:
    """Differences of one Node, streamed: `async with`, then `async for`; then `result`.

    Memory is bounded: rsync waits while its report is not taken in. `again`: whether a run
    that ended so is worth another one.
    """

    def __init__(
        self,
        *,
        turn: contextlib.AbstractAsyncContextManager[object],
        again: Callable[[RunResult], Awaitable[bool]],
        begin: Callable[[Callable[[OutLine], None]], RsyncRun],
        foreign_only: bool,
        paths: Sequence[bytes],
        deadline_seconds: float,
        pulse: Pulse,
    ) -> None:
        self._turn = turn
        self._again = again
        self._begin = begin
        self._foreign_only = foreign_only
        self._paths = paths
        self._deadline_seconds = deadline_seconds
        self._pulse = pulse
        self._found: deque[Difference] = deque()
        self._news = asyncio.Event()
        self._run: RsyncRun | None = None
        self._task: asyncio.Task[RunResult] | None = None
        self._result: RunResult | None = None

    @property
    def result(self) -> RunResult:
        """How it ended, once all differences were taken. Raises RuntimeError before."""
        if self._result is None:
            raise RuntimeError("the comparison is not done")
        return self._result

    async def __aenter__(self) -> Self:
        await self._turn.__aenter__()
        self._start()
        return self

    def _start(self) -> None:
        self._task = None
        try:
            self._run = self._begin(self._take)
        except OSError as error:
            self._result = source_lost(error, listed=len(self._paths))
            return
        self._task = asyncio.get_running_loop().create_task(
            self._run.finish(
                paths=self._paths, deadline_seconds=self._deadline_seconds, pulse=self._pulse
            )
        )
        self._task.add_done_callback(lambda _: self._news.set())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._turn.__aexit__(None, None, None)

    async def __aiter__(self) -> AsyncIterator[Difference]:
        while True:
            while self._found:
                yield self._found.popleft()
            if await self._is_over():
                break
        while self._found:
            yield self._found.popleft()
        if self._task is None:
            return
        self._result = self._task.result()
        for path, failure in self._result.failed.items():
            yield Difference(path=path, what=What.UNREADABLE, reason=failure.reason)

    async def _is_over(self) -> bool:
        """Wait for news; whether none will come any more."""
        if self._task is None:
            return True
        if self._run is not None:
            self._run.resume()
        if not self._task.done():
            self._news.clear()
            await self._news.wait()
            return False
        if not await self._again(self._task.result()):
            return True
        self._start()
        return False

    def _take(self, line: OutLine) -> None:
        # Directories with other attributes are told in a listing, too; nobody asked for them.
        is_foreign = line.operation == "del."
        if is_foreign or (line.path and not self._foreign_only):
            self._found.append(
                Difference(path=line.path, what=_what(line), is_directory=line.is_directory)
            )
            if len(self._found) >= _QUEUE_LINES and self._run is not None:
                self._run.pause()
            self._news.set()


def _what(line: OutLine) -> What:
    if line.operation == "del.":
        return What.EXTRANEOUS
    if "+" in line.item:
        return What.NEW
    return What.ATTRIBUTES if line.item.startswith(".") else What.CHANGED
