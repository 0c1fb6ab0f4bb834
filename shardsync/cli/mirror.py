"""`shardsync mirror`: the whole of shardsync in the foreground, without a settings file.

What it stands for is written as a settings file into a state directory of its
own, so that it resumes where it was, and every other command works with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import click

from shardsync.cli.asking import Asker
from shardsync.cli.flush import wait_for_watchers
from shardsync.cli.invocation import Invocation
from shardsync.cli.live import LiveView
from shardsync.cli.mirror_settings import absolute_target, mirror_state, settings_text
from shardsync.cli.options import examples
from shardsync.cli.output import counted, say, tell
from shardsync.cli.scanning import ScanWatch
from shardsync.cli.shortage import warn_of_shortfalls
from shardsync.clock import Clock
from shardsync.config.load import user_state_dir
from shardsync.control.lifecycle import Lifecycle, lifecycle
from shardsync.errors import (
    AlreadyRunning,
    NodesFailed,
    SettingsError,
    StateUnusable,
    UsageError,
)
from shardsync.escape import printable_text
from shardsync.files import replace_file
from shardsync.journal.locks import FileLock
from shardsync.journal.requests import Request, RequestKind, new_request_id
from shardsync.layout import StateDirectory
from shardsync.model import NodeState
from shardsync.observe.status import NodeStatus, Status
from shardsync.units import human_duration

_GIVE_UP_SECONDS = 15.0
_BARRIER_SECONDS = 7 * 86400.0
_FLUSH_SECONDS = 10.0
"""After so long it is looked which Nodes fail, and the rest is waited for again."""
_HOPELESS = frozenset({NodeState.HALTED, NodeState.PAUSED, NodeState.BEHIND_RETENTION})


@click.command(
    epilog=examples(
        "shardsync mirror /var/www/html web1:/var/www/html web2:/var/www/html",
        "shardsync mirror --once ./site rsync://backup/site",
    )
)
@click.argument("source", metavar="SRC")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--once", is_flag=True, help="Bring the targets up to date and exit.")
@click.option("--adopt", is_flag=True, help="Delete what the targets hold and SRC does not.")
@click.option(
    "--exclude",
    "excludes",
    metavar="P",
    multiple=True,
    help="Leave out what matches this rsync pattern (repeatable).",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, resolve_path=True),
    help="For rsync:// targets: a file of mode 0600 with the password.",
)
@click.pass_obj
def mirror(
    call: Invocation,
    source: str,
    targets: tuple[str, ...],
    once: bool,
    adopt: bool,
    excludes: tuple[str, ...],
    password_file: Path | None,
) -> None:
    """Keep TARGETs like SRC, in the foreground, until Ctrl-C; goes on from there next time.

    TARGET is /path, [user@]host:/path or rsync://[user@]host[:port]/module.
    What a target holds beside SRC's files is kept, unless --adopt is given.
    """
    root = _source(source)
    spare = Path("/var/tmp") / f"shardsync-{os.geteuid()}"  # noqa: S108 (checked by _make)
    state = mirror_state((user_state_dir(call.env), spare), root)
    _make(state, private=spare)
    cwd = Path.cwd()
    text = settings_text(
        root,
        state,
        [absolute_target(target, cwd) for target in targets],
        excludes=excludes,
        password_file=password_file,
    )
    with _held(StateDirectory(path=state), root):
        # Only now: the settings of a mirror that runs are not ours to replace.
        file = _write(state / "shardsync.toml", text)
        own = Invocation(config=file, env=call.env, clock=call.clock)
        _require_sound(own, file)
        Mirror(call=own, control=lifecycle(own.state, own.clock)).run(once=once, adopt=adopt)


class Mirror:
    """One run: everything is up for as long as this process lives. Its caller holds the lock."""

    def __init__(self, *, call: Invocation, control: Lifecycle) -> None:
        self._call = call
        self._control = control

    def run(self, *, once: bool, adopt: bool) -> None:
        """Until Ctrl-C, or with `once` until all is done. Raises what `up` does, NodesFailed."""
        began = self._call.clock.monotonic()
        settings = self._call.settings
        with _terminated_as_interrupted():
            # Nobody holds the lock but we: what runs there was left by a mirror that was killed.
            self._control.down()
            self._tell_plan()
            warn_of_shortfalls(self._call)
            try:
                self._control.up(settings)
                if adopt:
                    self._adopt()
                self._work(began, once=once)
            except KeyboardInterrupt:
                tell("stopping: what was seen is kept, the next run goes on from there")
                if once:
                    raise
            finally:
                with _uninterrupted():
                    self._control.down()

    def _adopt(self) -> None:
        request = Request(id=new_request_id(), kind=RequestKind.RESUME, adopt=True)
        Asker(call=self._call).ask(request, title="adopt")

    def _work(self, began: float, *, once: bool) -> None:
        if once:
            self._bring_up_to_date(began)
            return
        view = LiveView(reader=self._call.status_reader(), clock=self._call.clock)
        view.follow(lambda status: status.is_down)
        raise NodesFailed("mirror: somebody stopped the daemons")

    def _bring_up_to_date(self, began: float) -> None:
        ScanWatch(call=self._call).follow()
        positions = wait_for_watchers(self._call, self._call.known_trees(), _BARRIER_SECONDS)
        settling = Settling(clock=self._call.clock)
        view = LiveView(reader=self._call.status_reader(), clock=self._call.clock)
        view.follow(settling.is_over)
        good = self._flushed(settling, positions)
        took = human_duration(self._call.clock.monotonic() - began)
        for name in good:
            say(f"{name}: up to date after {took}")
        for name, why in settling.failed.items():
            say(f"{name}: FAILED: {why}")
        self._tell_foreign()
        if settling.failed:
            raise NodesFailed(
                f"mirror: failed: {', '.join(settling.failed)}",
                hint=f"logs: {self._call.state.logs}",
            )

    def _flushed(self, settling: Settling, positions: dict[str, int]) -> tuple[str, ...]:
        """The Nodes that have it all; those that fail meanwhile are left to `settling`."""
        names = [key[1] for key in self._call.known_nodes()]
        while good := tuple(name for name in names if name not in settling.failed):
            try:
                self._flush(good, positions)
            except NodesFailed:
                with contextlib.closing(self._call.status_reader()) as reader:
                    settling.is_over(reader.read())
                continue
            return good
        return ()

    def _flush(self, names: tuple[str, ...], positions: dict[str, int]) -> None:
        request = Request(
            id=new_request_id(),
            kind=RequestKind.FLUSH,
            nodes=names,
            positions=positions,
            deadline_us=self._call.clock.wall_us() + int(_FLUSH_SECONDS * 1_000_000),
        )
        Asker(call=self._call).ask(request, title="mirror")

    def _tell_plan(self) -> None:
        settings = self._call.settings
        say(f"mirroring {printable_text(str(settings.trees[0].root))} to")
        for node in settings.nodes:
            say(f"  {node.name}  {printable_text(str(node.target))}")
        say(f"settings  {settings.source}   logs  {self._call.state.logs}")

    def _tell_foreign(self) -> None:
        with contextlib.closing(self._call.status_reader()) as reader:
            nodes = reader.read().nodes
        for node in nodes:
            if node.foreign_paths:
                tell(
                    f"note: {node.name} holds {counted(node.foreign_paths, 'path')} that SRC"
                    " does not have, and that are kept; --adopt has such paths deleted"
                )


class Settling:
    """Decides when waiting has brought all that it can. `failed`: Node -> why."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._failing_since: dict[str, float] = {}
        self.failed: dict[str, str] = {}

    def is_over(self, status: Status) -> bool:
        """Whether every Node follows, or has failed for so long that waiting is in vain."""
        now = self._clock.monotonic()
        waiting = False
        for node in status.nodes:
            if not _is_failing(node):
                self._failing_since.pop(node.name, None)
            if node.state in _HOPELESS or self._fails_for_long(node, now):
                self.failed[node.name] = printable_text(node.last_error or node.state.value)
                continue
            self.failed.pop(node.name, None)
            waiting = waiting or node.state is not NodeState.FOLLOWING
        return status.is_down or not waiting

    def _fails_for_long(self, node: NodeStatus, now: float) -> bool:
        if not _is_failing(node):
            return False
        return now - self._failing_since.setdefault(node.name, now) >= _GIVE_UP_SECONDS


def _is_failing(node: NodeStatus) -> bool:
    """Whether nothing reaches it, or all that is left is paths that cannot be sent."""
    if node.state is NodeState.BACKING_OFF:
        return True
    return bool(node.retry_paths) and node.lag_changes == node.retry_paths


def _require_sound(call: Invocation, file: Path) -> None:
    """Raise SettingsError in the words of the command line: nobody wrote the file."""
    try:
        _ = call.settings
    except SettingsError as error:
        raise SettingsError(
            str(error).replace(f"{file}: ", ""), hint="nothing was started: type it anew"
        ) from error


def _source(source: str) -> Path:
    if not source:
        raise UsageError("SRC is empty", hint="name a folder of files")
    root = Path(os.path.abspath(source))
    if not root.is_dir():
        what = "is no directory" if root.exists() else "does not exist"
        raise SettingsError(f"{printable_text(source)} {what}", hint="SRC is a folder of files")
    return root


def _make(state: Path, *, private: Path) -> None:
    """Make the state directory. Raises StateUnusable, also where another user made `private`.

    `private` lies where everybody may write: only a directory of our own is used there.
    """
    try:
        if private in state.parents:
            with contextlib.suppress(FileExistsError):
                private.mkdir(mode=0o700)
            found = os.lstat(private)
            if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
                raise StateUnusable(f"{private}: belongs to somebody else")
            private.chmod(0o700)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateUnusable(f"{state}: {error.strerror}") from error


@contextlib.contextmanager
def _held(state: StateDirectory, root: Path) -> Iterator[None]:
    """Be the only mirror of `root`. Raises AlreadyRunning, StateUnusable."""
    try:
        state.make()
        lock = FileLock.acquire(state.lock("mirror"))
    except AlreadyRunning as error:
        raise AlreadyRunning(
            f"{printable_text(str(root))} is being mirrored already: {error}",
            hint="name all targets in one command, or stop that one with Ctrl-C",
        ) from error
    except OSError as error:
        raise StateUnusable(f"{state.path}: {error.strerror}") from error
    with lock:
        yield


def _write(file: Path, text: str) -> Path:
    """Replace the settings file. Raises StateUnusable."""
    try:
        replace_file(file, text)
    except OSError as error:
        raise StateUnusable(f"{file}: {error.strerror}") from error
    return file


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP (the terminal is gone) stop it as cleanly as Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave daemons behind; stopping has its own deadline."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
