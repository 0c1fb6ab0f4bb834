"""The one ssh connection that all runs to a Node share: begun, watched, begun again, ended.

ssh calls it a master (ssh_config(5), ControlMaster): a login costs 0.3 s, a run over
the master 0.1. It is a process of ours and not ssh's own background one
(ControlPersist), so that it ends with us and a stuck one can be ended by its id.

A run is told of the master only while that answers; without it, each run logs in
for itself, so that no trouble of the master's keeps a Batch from its Node.

Crash safety: it dies with us (ship.process), and holds nothing but the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from shardsync.clock import Clock
from shardsync.config.settings import NodeSettings
from shardsync.ship.command import (
    RsyncCommand,
    RunAs,
    clean_environment,
    ssh_destination,
    ssh_words,
)
from shardsync.ship.process import Child, start_child

_PREFIX = "shardsync-ssh-"
_SOCKET = "s"
_PATH_BYTES = 60
"""ssh adds 17 bytes while it makes its socket, and unix(7) has room for 107."""
_LOOK_SECONDS = 1.0
_STARTING_LOOK_SECONDS = 0.05
_ANSWER_SECONDS = 4.0
"""It answers within a millisecond; one that does not within this is stopped or stuck."""
_LOGIN_SECONDS = 30.0
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 300.0
_LONG_LIVED_SECONDS = 60.0
_OWN_SHARING = re.compile(r"(?:-o)?\s*Control(?:Master|Path|Persist)\b|-[MS]", re.IGNORECASE)


class SshMaster:
    """The shared connection of one Node. All calls on one event loop.

    Nothing is begun before the first `control_path()`; `close()` ends it, and the next
    `control_path()` begins anew.
    """

    def __init__(
        self,
        *,
        node: NodeSettings,
        environment: Mapping[str, str],
        find_user: Callable[[], RunAs | None],
        clock: Clock,
    ) -> None:
        self._node = node
        self._environment = environment
        self._find_user = find_user
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._well: Path | None = None
        self.lost = 0
        """How many masters that answered have ended: a run that failed may have shared one."""
        self.pid: int | None = None
        """The process id of the master that runs, None where none does."""

    @property
    def is_well(self) -> bool:
        """Whether one runs and answers."""
        return self._well is not None

    def control_path(self) -> str:
        """What a run that starts now is to share, "" where it must log in itself.

        Has a master begun where there is none.
        """
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())
        return "" if self._well is None else str(self._well)

    async def close(self) -> None:
        """End it, with all runs that still share it; its socket is gone afterwards. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _keep(self) -> None:
        """One master after the other, with longer and longer pauses where they die young."""
        wait = _FIRST_WAIT_SECONDS
        while True:
            began = self._clock.monotonic()
            # Without a folder, a user, a program: each run then tells what is wrong.
            with contextlib.suppress(OSError):
                await self._live()
            if self._clock.monotonic() - began > _LONG_LIVED_SECONDS:
                wait = _FIRST_WAIT_SECONDS
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    async def _live(self) -> None:
        """One master from its start to its end. Raises OSError where it cannot be started."""
        run_as = self._find_user()
        with control_folder(self._environment, run_as) as folder:
            path = folder / _SOCKET
            child = start_child(
                master_command(self._node, path, self._environment, run_as),
                pass_fds=(),
                on_stdout=_unheard,
                on_stderr=_unheard,
            )
            self.pid = child.pid
            try:
                await self._watch(child, path)
            finally:
                self.lost += self._well is not None
                self._well, self.pid = None, None
                await child.end()

    async def _watch(self, child: Child, path: Path) -> None:
        """Returns when it ended, or no longer answers."""
        login_by = self._clock.monotonic() + _LOGIN_SECONDS
        ended = asyncio.ensure_future(child.wait())
        try:
            while not ended.done():
                if await _answers(path):
                    self._well = path
                elif self._well is not None or self._clock.monotonic() > login_by:
                    return
                pause = _STARTING_LOOK_SECONDS if self._well is None else _LOOK_SECONDS
                await asyncio.wait({ended}, timeout=pause)
        finally:
            ended.cancel()


def shares(node: NodeSettings) -> bool:
    """Whether a master of ours is wanted: not where the Node's own `ssh_options` see to it."""
    return not any(_OWN_SHARING.match(word) for word in node.ssh_options)


def master_command(
    node: NodeSettings, path: Path, environment: Mapping[str, str], run_as: RunAs | None
) -> RsyncCommand:
    """The master, which listens on `path` and runs nothing itself."""
    argv = (
        *ssh_words(node, "-oControlMaster=yes", f"-oControlPath={path}", "-oControlPersist=no"),
        "-N",
        "-T",
        "--",
        ssh_destination(node.target),
    )
    return RsyncCommand(
        argv=argv, environment=clean_environment(environment, run_as=run_as), run_as=run_as
    )


@contextlib.contextmanager
def control_folder(environment: Mapping[str, str], run_as: RunAs | None) -> Iterator[Path]:
    """A fresh folder, 0700, of the user who runs ssh; it goes with all in it. Raises OSError.

    Not in the state directory: that has too long a path, and no other user gets into it.
    """
    folder = _made(environment)
    try:
        if run_as is not None:
            os.chown(folder, run_as.uid, run_as.gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(environment: Mapping[str, str]) -> Path:
    own = "/run" if os.geteuid() == 0 else environment.get("XDG_RUNTIME_DIR", "")
    for place in (own, "/tmp"):  # noqa: S108 (mkdtemp: a fresh name, ours alone)
        # ssh takes % and $ for its own.
        if not re.fullmatch(rf"[\w/.-]{{1,{_PATH_BYTES}}}", place, re.ASCII):
            continue
        with contextlib.suppress(OSError):
            _sweep(Path(place))
            return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
    raise FileNotFoundError("no folder for the socket of ssh")


def _sweep(place: Path) -> None:
    """Remove what processes of ours that were killed left there."""
    for folder in place.glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            is_dead = pid.isdecimal() and not Path(f"/proc/{pid}").exists()
            if is_dead and (os.geteuid() == 0 or folder.lstat().st_uid == os.geteuid()):
                shutil.rmtree(folder, ignore_errors=True)


async def _answers(path: Path) -> bool:
    """Whether the master says hello, as it does first of all (OpenSSH's PROTOCOL.mux)."""
    writer = None
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            await reader.readexactly(4)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            writer.close()
    return True


def _unheard(piece: bytes) -> None:
    """What it says is said again by the run that logs in without it."""
    del piece
