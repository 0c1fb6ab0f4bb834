"""Starts rsync for one Node: on which directory of the Tree, as whom, with which command.

Between the transport, which knows why, and the process that runs. It keeps nothing.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from typing import Protocol

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings
from shardsync.ship.command import DRY, FIRST, Capabilities, Purpose, RunAs, rsync_command
from shardsync.ship.messages import OutLine
from shardsync.ship.outcome import RunResult
from shardsync.ship.rsync import RsyncRun
from shardsync.ship.sealed import sealed


class Source(Protocol):
    """Where the files are: `ship.root.RootGuard`."""

    def open_below(self, path: bytes) -> int:
        """A new descriptor of the directory `path` (b"": the root), the caller's to close.

        Never through a symlink. Raises OSError.
        """
        ...

    @property
    def mount_numbers(self) -> tuple[tuple[bytes, int], ...]:
        """What is mounted below, as last looked at."""
        ...


class RunStarter:
    """Every run to the Node begins here. What it is given is told by `NodeTransport`.

    `find_capabilities`, `find_control_path`: as known when a run starts.
    """

    def __init__(
        self,
        *,
        node: NodeSettings,
        source: Source,
        clock: Clock,
        environment: Mapping[str, str],
        filters: tuple[str, ...],
        first: tuple[str, ...],
        max_delete: int,
        find_capabilities: Callable[[], Capabilities],
        find_control_path: Callable[[], str],
        on_written: Callable[[RunResult], None] | None,
        program: str,
    ) -> None:
        self._node = node
        self._source = source
        self._clock = clock
        self._environment = environment
        self._filters = filters
        self._first = first
        self._max_delete = max_delete
        self._find_capabilities = find_capabilities
        self._find_control_path = find_control_path
        self._on_written = on_written
        self._program = program

    def user(self) -> RunAs | None:
        """Who rsync and ssh run as, None for us. Raises OSError."""
        return find_user(self._node.run_as) if self._node.run_as else None

    def open_source(self) -> int:
        """What the Node takes of the Tree, for rsync to read. Raises OSError."""
        return self.open_folder(os.fsencode(self._node.subtree))

    def open_folder(self, folder: bytes) -> int:
        """A directory of the Tree for rsync to read. Raises OSError."""
        above = folder + b"/" if folder else b""
        mounts = [
            point.removeprefix(above)
            for point, _ in self._source.mount_numbers
            if point.startswith(above)
        ]
        return sealed(self._source.open_below(folder), mounts=mounts)

    def place(self) -> object:
        """Where a warm rsync may wait: in this directory, with these mounts below."""
        source = self._source.open_below(os.fsencode(self._node.subtree))
        try:
            status = os.fstat(source)
        finally:
            os.close(source)
        return status.st_dev, status.st_ino, self._source.mount_numbers

    def begin_warm(self, source: int) -> RsyncRun:
        """A run that waits for its list. Raises OSError."""
        return self.begin_on(source, purpose=Purpose.BATCH, filters=self._filters)

    def begin(
        self,
        purpose: Purpose,
        *,
        max_delete: int | None = None,
        on_line: Callable[[OutLine], None] | None = None,
        dry_run: bool = False,
    ) -> RsyncRun:
        """A run on what the Node takes of the Tree. Raises OSError."""
        source = self.open_source()
        try:
            return self.begin_on(
                source,
                purpose=purpose,
                filters=(*self._filters, *(self._first if purpose in FIRST else ())),
                max_delete=max_delete,
                on_line=on_line,
                dry_run=dry_run,
            )
        finally:
            # rsync has a copy of its own under the same number.
            os.close(source)

    def begin_on(
        self,
        source: int,
        *,
        purpose: Purpose,
        filters: tuple[str, ...],
        max_delete: int | None = None,
        on_line: Callable[[OutLine], None] | None = None,
        dry_run: bool = False,
        node: NodeSettings | None = None,
        basis: tuple[str, ...] = (),
    ) -> RsyncRun:
        """A run on the directory that is open as `source`, which stays the caller's to close.

        `node`: where it goes, if not to the Node's own top. Raises OSError.
        """
        node = node or self._node
        command = rsync_command(
            node=node,
            purpose=purpose,
            source_fd=source,
            environment=self._environment,
            filters=filters,
            max_delete=self._max_delete if max_delete is None else max_delete,
            capabilities=self._find_capabilities(),
            dry_run=dry_run,
            basis=basis,
            run_as=self.user(),
            control_path=self._find_control_path(),
            program=self._program,
        )
        run = RsyncRun(
            command=command,
            purpose=purpose,
            target=node.target,
            source_fd=source,
            clock=self._clock,
            on_line=on_line,
            on_end=None if dry_run or purpose in DRY else self._on_written,
        )
        run.start()
        return run


def find_user(name: str) -> RunAs:
    """The user that a Node's `run_as` names. Raises OSError where there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise FileNotFoundError(f"run_as: no user is named {name}") from error
    return RunAs(
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(name, entry.pw_gid)),
        home=entry.pw_dir,
    )
