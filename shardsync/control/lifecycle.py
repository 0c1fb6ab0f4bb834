"""`up` and `down`: everything of one state directory started, or stopped, as one.

Leftovers of a killed supervisord are ended before anything new starts, so
there are never two writers. Nothing here needs the settings to be right but
`up`, which is handed them checked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from shardsync.clock import Clock
from shardsync.config.settings import Settings
from shardsync.control.counting import processors
from shardsync.control.limits import needed, present
from shardsync.control.planner import wanted_shards
from shardsync.control.processes import Found, end, find, wait_for_end
from shardsync.control.programs import (
    COORDINATOR,
    SYNC,
    Commands,
    build_conf,
    commands,
    pool_size,
    slot_program,
)
from shardsync.control.rootlock import RootLock
from shardsync.control.supervisord import (
    PRIVATE_UMASK,
    Program,
    ProgramFailed,
    ProgramState,
    SupervisorClient,
    start_supervisord,
    supervisord_argv,
)
from shardsync.errors import AlreadyRunning, NotRunning, StateUnusable
from shardsync.files import replace_file
from shardsync.journal.locks import FileLock
from shardsync.journal.plan import Plan, read_plan
from shardsync.layout import StateDirectory

_UP_SECONDS = 90.0
_DOWN_SECONDS = 75.0
_LOOK_SECONDS = 0.1
_LOG_TAIL_BYTES = 600

Execute = Callable[[str, list[str]], None]
"""os.execv: replaces this process, so it returns only in tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What `up` did. `ended`: leftovers that were stopped first.

    `was_open`: the mode of the state directory, if others could write there before.
    """

    pid: int
    programs: tuple[Program, ...]
    ended: tuple[Found, ...]
    was_open: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What `down` did. All empty: nothing was running.

    `programs`: names of those that ran under supervisord. `ended`: processes
    that no supervisord knew of any more.
    """

    pid: int | None
    programs: tuple[str, ...]
    ended: tuple[Found, ...]


class Lifecycle:
    """Starts and stops all programs of one state directory."""

    def __init__(
        self,
        *,
        state: StateDirectory,
        clock: Clock,
        client: SupervisorClient,
        execute: Execute = os.execv,
    ) -> None:
        self._state = state
        self._clock = clock
        self._client = client
        self._execute = execute

    def up(
        self, settings: Settings, *, foreground: bool = False, programs: Commands | None = None
    ) -> Started | None:
        """Start everything; return when the programs run. None: this process was replaced.

        With `foreground` this process becomes supervisord. Where supervisord
        runs but some of its programs do not, those are started. Raises
        AlreadyRunning (all of it runs, or another state directory has a root),
        ProgramFailed, StateUnusable.

        Crash safety: may be interrupted anywhere; the next `up` ends what a
        half-done one left, or completes it.
        """
        was_open = self._make_state()
        with self._lock():
            if self._is_answering():
                if foreground:
                    raise AlreadyRunning(
                        f"already up: supervisord is process {self._client.pid()}"
                    )
                return self._complete()
            ended = self._end_leftovers()
            self._check_free(settings)
            self._write_conf(
                build_conf(
                    programs or commands(self._state, settings.source),
                    pool=self._pool(settings),
                    open_files=_open_files(settings),
                ),
            )
            if foreground:
                argv = supervisord_argv(self._state, foreground=True)
                os.umask(PRIVATE_UMASK)
                self._execute(argv[0], argv)
                return None
            start_supervisord(self._state)
            return replace(self._wait_until_up(ended), was_open=was_open)

    def _write_conf(self, text: str) -> None:
        try:
            replace_file(self._state.supervisord_conf, text)
        except OSError as error:
            raise StateUnusable(f"{self._state.supervisord_conf}: {error.strerror}") from error

    def down(self) -> Stopped:
        """Stop everything cleanly: Watchers drain, the sync process ends its Batches.

        Idempotent; needs no settings. Raises AlreadyRunning (another `up` or
        `down` is at work) and StateUnusable (something cannot be ended).
        """
        if not self._state.path.is_dir():
            return Stopped(pid=None, programs=(), ended=())
        self._make_state()
        with self._lock():
            pid, names = self._shut_down()
            return Stopped(pid=pid, programs=names, ended=self._end_leftovers())

    def _make_state(self) -> int | None:
        """The mode of the state directory if others could write there, None if not."""
        try:
            mode = self._state.make()
        except OSError as error:
            raise StateUnusable(f"state directory {self._state.path}: {error}") from error
        return mode if mode & 0o022 else None

    def _lock(self) -> FileLock:
        try:
            return FileLock.acquire(self._state.lock("up"))
        except AlreadyRunning as error:
            raise AlreadyRunning(
                f"another `up` or `down` of {self._state.path} is at work: {error}",
                hint="wait for it to finish",
            ) from error

    def _is_answering(self) -> bool:
        try:
            self._client.pid()
        except NotRunning:
            return False
        return True

    def _complete(self) -> Started:
        """Start what does not run of what should. Raises AlreadyRunning where all of it does."""
        pid = self._client.pid()
        idle = [p.name for p in self._expected() if p.state is not ProgramState.RUNNING]
        if not idle:
            raise AlreadyRunning(f"already up: supervisord is process {pid}, all programs run")
        for name in idle:
            self._client.start(name)
        return self._wait_until_up(())

    def _check_free(self, settings: Settings) -> None:
        """Raise AlreadyRunning where another instance has the state directory or a root."""
        FileLock.acquire(self._state.lock("instance")).release()
        for tree in settings.trees:
            try:
                RootLock.acquire(tree.root).release()
            except FileNotFoundError:
                # A root that is missing now is the Coordinator's to report, not a second copy.
                continue
            except OSError as error:
                raise StateUnusable(f"tree {tree.name}: root {tree.root}: {error}") from error

    def _pool(self, settings: Settings) -> int:
        last = read_plan(self._state.plan) or Plan()
        wanted = wanted_shards(settings, processors=processors())
        observing = last.observing()
        slots = max((shard.slot + 1 for shard in observing), default=0)
        return max(pool_size(wanted, observing=len(observing)), slots)

    def _expected(self) -> list[Program]:
        """Of supervisord's programs those that must run: all but free slots."""
        names = {COORDINATOR, SYNC}
        plan = read_plan(self._state.plan)
        if plan is not None:
            names |= {slot_program(shard.slot) for shard in plan.observing()}
        return [program for program in self._client.programs() if program.name in names]

    def _wait_until_up(self, ended: tuple[Found, ...]) -> Started:
        deadline = self._clock.monotonic() + _UP_SECONDS
        late = "supervisord does not answer"
        while self._clock.monotonic() < deadline:
            try:
                expected = self._expected()
                self._refuse_failed(expected)
                waiting = [p for p in expected if p.state is not ProgramState.RUNNING]
                if len(expected) > 2 and not waiting:
                    return Started(pid=self._client.pid(), programs=tuple(expected), ended=ended)
                late = f"not running: {', '.join(p.name for p in waiting) or 'no Watcher yet'}"
            except ProgramFailed:
                raise
            except NotRunning as error:
                late = str(error)
            time.sleep(_LOOK_SECONDS)
        raise ProgramFailed(f"not up after {_UP_SECONDS:.0f} s: {late}")

    def _refuse_failed(self, programs: list[Program]) -> None:
        for program in programs:
            if program.state is ProgramState.FATAL:
                raise ProgramFailed(
                    f"program {program.name}: {program.description}; {self._last_words(program)}"
                )

    def _last_words(self, program: Program) -> str:
        log = self._state.logs / f"{program.name.partition(':')[2]}.log"
        try:
            lines = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").splitlines()
        except OSError as error:
            return f"no log: {error}"
        return f"{log} ends with: {lines[-1]}" if lines else f"{log} is empty"

    def _shut_down(self) -> tuple[int | None, tuple[str, ...]]:
        try:
            pid = self._client.pid()
            names = tuple(program.name for program in self._client.programs() if program.is_up)
            self._client.shutdown()
        except NotRunning:
            return None, ()
        wait_for_end(pid, seconds=_DOWN_SECONDS)
        return pid, names

    def _end_leftovers(self) -> tuple[Found, ...]:
        left = find(self._state)
        ended = end(left, self._state)
        still = [process for process in left if process not in ended]
        if still:
            pids = ", ".join(f"{process.pid} ({process.module})" for process in still)
            raise StateUnusable(f"these processes of {self._state.path} do not end: {pids}")
        return ended


def _open_files(settings: Settings) -> int:
    """As many as are needed, as far as the system lets us."""
    need = needed(0, shards=1, nodes=len(settings.nodes), max_rsyncs=settings.sync.max_rsyncs)
    return min(need.open_files, present().open_files or need.open_files)


def lifecycle(state: StateDirectory, clock: Clock) -> Lifecycle:
    """The Lifecycle of a state directory, with its real supervisord."""
    return Lifecycle(
        state=state, clock=clock, client=SupervisorClient(socket=state.supervisor_socket)
    )
