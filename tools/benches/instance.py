"""A whole shardsync under supervisord, for the bench: up, what it has come to, down.

Watches the Journals themselves (read-only), because a command of ours takes
longer to start than some of what is measured.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shardsync.control.planner import FOLLOWING
from shardsync.errors import ShardsyncError
from shardsync.journal.plan import read_plan
from shardsync.journal.progress import Progress
from shardsync.journal.reader import JournalReader
from shardsync.journal.state_reader import StateReader
from shardsync.layout import StateDirectory
from tools.benches.processes import (
    BenchFailed,
    Usage,
    await_true,
    is_alive,
    running,
    usage,
    with_descendants,
)

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 3600
FOLLOW_SECONDS = 3600.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """When what came, in seconds from the beginning of `up`."""

    up: float
    following: float
    scan: float
    """From the first Watcher's Epoch to the last one's following."""


@dataclass(slots=True, kw_only=True)
class Instance:
    """One state directory with its settings; `shards` None: as many as processors."""

    folder: Path
    root: Path
    node: Path
    paused: bool = True
    shards: int | None = None
    more: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    _open: dict[str, JournalReader] = field(default_factory=dict)
    _followed_at: float = 0.0

    @property
    def state(self) -> StateDirectory:
        """Where it keeps everything."""
        return StateDirectory(self.folder / "state")

    def write_settings(self) -> None:
        """The settings file, and the folders that it names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.node.mkdir(parents=True, exist_ok=True)
        count = f"[shards]\ncount = {self.shards}\n" if self.shards else ""
        paused = "paused = true\n" if self.paused else ""
        (self.folder / "shardsync.toml").write_text(
            f'[tree]\nroot = "{self.root}"\n[state]\ndir = "{self.state.path}"\n{count}{self.more}'
            f'[metrics]\nlisten = ""\n[[node]]\nname = "node"\ntarget = "{self.node}"\n{paused}'
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Came]:
        """Up, until every Shard follows; down at the end of the block."""
        with self.started() as began:
            yield self.await_following(began)

    @contextlib.contextmanager
    def started(self) -> Iterator[float]:
        """Up, without waiting for more; yields when `up` began (monotonic). Down at the end."""
        began = time.monotonic()
        try:
            self._up()
            yield began
        finally:
            self.command("down", check=False)
            for reader in self._open.values():
                reader.close()
            self._open.clear()

    def await_following(self, began: float) -> Came:
        """Once every Shard of the Plan follows. Raises BenchFailed."""
        up = time.monotonic()
        now = self._followed_at or await_true(
            self.is_following, seconds=FOLLOW_SECONDS, what="shardsync following", every=0.04
        )
        wall = time.time() - (time.monotonic() - now)
        epochs = [reader.epochs()[-1].started_at for reader in self.readers()]
        return Came(
            up=up - began,
            following=now - began,
            scan=wall - min(epochs) / 1_000_000,
        )

    def _up(self) -> None:
        """`up`, which watches its programs for 2 s; a small tree is followed long before."""
        self._followed_at = 0.0
        with running(
            self.argv("up"), environment=self.variables(), output=subprocess.PIPE
        ) as process:
            while process.poll() is None:
                if not self._followed_at and self.is_following():
                    self._followed_at = time.monotonic()
                time.sleep(_LOOK_SECONDS)
            said, _ = process.communicate()
        if process.returncode:
            raise BenchFailed(f"up: {said.decode(errors='replace')}")

    def is_following(self) -> bool:
        """Whether a living Watcher of every Shard has watched all of it and caught up."""
        found = self.progress()
        return bool(found) and all(
            row.state in FOLLOWING and is_alive(row.pid) for row in found.values()
        )

    def progress(self) -> dict[str, Progress]:
        """Shard -> what its Watcher says; empty while one of them has no Journal yet."""
        try:
            return {os.fspath(reader.path): reader.progress() for reader in self.readers()}
        except ShardsyncError:
            return {}

    def readers(self) -> list[JournalReader]:
        """The Journals of all Shards that observe."""
        plan = read_plan(self.state.plan)
        shards = plan.observing() if plan else ()
        for shard in shards:
            if shard.id not in self._open:
                self._open[shard.id] = JournalReader(self.state.journal(shard.id))
        return [self._open[shard.id] for shard in shards]

    def node_progress(self) -> float:
        """How much of its Node's first contact is done, 0 to 1."""
        reader = StateReader(self.state.state_db)
        try:
            return max((row.progress for row in reader.nodes().values()), default=0.0)
        except ShardsyncError:
            return 0.0
        finally:
            reader.close()

    def positions(self) -> dict[Path, int]:
        """Journal -> the newest Position in it."""
        return {reader.path: reader.progress().last_position for reader in self.readers()}

    def changes_after(self, positions: Mapping[Path, int]) -> list[bytes]:
        """The paths of all Changes journaled since `positions()` said so."""
        return [
            row[1]
            for reader in self.readers()
            for row in reader.read_rows(after=positions.get(reader.path, 0), limit=10_000_000)
        ]

    def flush(self, cookie: str) -> None:
        """Touch a flush's cookie, as `shardsync flush` does; see `is_acknowledged`."""
        (self.state.cookies / f"flush-{cookie}").touch(mode=0o600)

    def is_acknowledged(self, cookie: str) -> bool:
        """Whether every Watcher has journaled all that was on disk when it was touched."""
        with contextlib.suppress(ShardsyncError):
            return all(reader.cookie(f"flush-{cookie}") is not None for reader in self.readers())
        return False

    def forget(self, cookie: str) -> None:
        """Take a cookie away."""
        (self.state.cookies / f"flush-{cookie}").unlink(missing_ok=True)

    def watchers(self) -> list[int]:
        """The pids of the Watchers that observe."""
        return [row.pid for row in self.progress().values() if is_alive(row.pid)]

    def everything(self) -> list[int]:
        """The pids of all of it: supervisord and all below."""
        pid = int((self.state.path / "supervisord.pid").read_text())
        return with_descendants(pid)

    def memory(self) -> Usage:
        """Of the Watchers together."""
        return usage(self.watchers())

    def command(self, *words: str, check: bool = True) -> str:
        """What `shardsync WORDS` prints. Raises BenchFailed, unless `check` is off."""
        done = subprocess.run(
            self.argv(*words),
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            start_new_session=True,
        )
        if check and done.returncode:
            raise BenchFailed(f"shardsync {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def argv(self, *words: str) -> list[str]:
        """The command line of one of its commands."""
        program = [sys.executable, "-m", "shardsync.cli.main"]
        return [*program, "--config", str(self.folder / "shardsync.toml"), *words]

    def variables(self) -> dict[str, str]:
        """The environment of its commands and daemons: this checkout's own code."""
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), **self.environment}
