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
from shardsync.clock import Clock
from shardsync.config.load import user_state_dir
from shardsync.control.lifecycle import Lifecycle, lifecycle
from shardsync.errors import NodesFailed, SettingsError, StateUnusable
from shardsync.escape import printable_text
from shardsync.journal.locks import FileLock
from shardsync.journal.requests import Request, RequestKind, new_request_id
from shardsync.model import NodeState
from shardsync.observe.status import NodeStatus, Status
from shardsync.units import human_duration

_GIVE_UP_SECONDS = 15.0
_BARRIER_SECONDS = 7 * 86400.0
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
    own = Invocation(config=_write(state / "shardsync.toml", text), env=call.env, clock=call.clock)
    run = Mirror(call=own, control=lifecycle(own.state, own.clock))
    run.run(once=once, adopt=adopt)


class Mirror:
    """One run: everything is up for as long as this process lives."""

    def __init__(self, *, call: Invocation, control: Lifecycle) -> None:
        self._call = call
        self._control = control

    def run(self, *, once: bool, adopt: bool) -> None:
        """Until Ctrl-C, or with `once` until all is done. Raises what `up` does, NodesFailed."""
        began = self._call.clock.monotonic()
        settings = self._call.settings
        self._call.state.make()
        with FileLock.acquire(self._call.state.lock("mirror")), _terminated_as_interrupted():
            # Nobody holds the lock but we: what runs there was left by a mirror that was killed.
            self._control.down()
            self._tell_plan()
            try:
                self._control.up(settings)
                if adopt:
                    self._adopt()
                self._work(began, once=once)
            except KeyboardInterrupt:
                tell("stopping: what was seen is kept, the next run goes on from there")
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
        positions = wait_for_watchers(self._call, self._call.known_trees(), _BARRIER_SECONDS)
        settling = Settling(clock=self._call.clock)
        view = LiveView(reader=self._call.status_reader(), clock=self._call.clock)
        view.follow(settling.is_over)
        failed = settling.failed
        good = tuple(key[1] for key in self._call.known_nodes() if key[1] not in failed)
        if good:
            self._flush(good, positions)
        took = human_duration(self._call.clock.monotonic() - began)
        for name in good:
            say(f"{name}: up to date after {took}")
        for name, why in failed.items():
            say(f"{name}: FAILED: {why}")
        self._tell_foreign()
        if failed:
            raise NodesFailed(
                f"mirror: failed: {', '.join(failed)}", hint=f"logs: {self._call.state.logs}"
            )

    def _flush(self, names: tuple[str, ...], positions: dict[str, int]) -> None:
        request = Request(
            id=new_request_id(),
            kind=RequestKind.FLUSH,
            nodes=names,
            positions=positions,
            deadline_us=self._call.clock.wall_us() + int(_BARRIER_SECONDS * 1_000_000),
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
            if node.state is not NodeState.BACKING_OFF:
                self._failing_since.pop(node.name, None)
            if node.state in _HOPELESS or self._fails_for_long(node, now):
                self.failed[node.name] = printable_text(node.last_error or node.state.value)
                continue
            self.failed.pop(node.name, None)
            waiting = waiting or node.state is not NodeState.FOLLOWING
        return status.is_down or not waiting

    def _fails_for_long(self, node: NodeStatus, now: float) -> bool:
        if node.state is not NodeState.BACKING_OFF:
            return False
        return now - self._failing_since.setdefault(node.name, now) >= _GIVE_UP_SECONDS


def _source(source: str) -> Path:
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


def _write(file: Path, text: str) -> Path:
    """Replace the settings file. Raises StateUnusable."""
    try:
        beside = file.with_name(file.name + ".new")
        beside.write_text(text, "utf-8")
        os.replace(beside, file)
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
