"""A whole instance under a real supervisord: settings on disk, up, down, ended for sure."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from shardsync.clock import SystemClock
from shardsync.config.load import load_settings
from shardsync.config.settings import Settings
from shardsync.control.lifecycle import Lifecycle, lifecycle
from shardsync.control.processes import end, find
from shardsync.control.programs import Commands, commands
from shardsync.control.supervisord import Program, SupervisorClient
from shardsync.layout import StateDirectory
from tests.support.compare import differences

_STANDINS = str(Path(__file__).with_name("standins.py"))
_WAIT_SECONDS = 30.0


class Instance:
    """One Tree `tree`, one Node folder `node`, the state in `state`, all below one folder."""

    def __init__(self, folder: Path, *, shards: int = 2, state: str = "state") -> None:
        self.folder = folder
        self.root = folder / "tree"
        self.node = folder / "node"
        self.state = StateDirectory(path=folder / state)
        self.config = folder / f"{state}.toml"
        self.root.mkdir(exist_ok=True)
        self.node.mkdir(exist_ok=True)
        self.write_settings(shards=shards)
        self.client = SupervisorClient(socket=self.state.supervisor_socket)

    def write_settings(self, *, shards: int, retention: str = "7d", listen: str = "") -> None:
        self.config.write_text(
            f'[tree]\nname = "main"\nroot = "{self.root}"\n'
            f'[state]\ndir = "{self.state.path}"\nretention = "{retention}"\n'
            f"[shards]\ncount = {shards}\n"
            f'[metrics]\nlisten = "{listen}"\n'
            f'[[node]]\nname = "web1"\ntarget = "{self.node}"\n'
        )

    def settings(self) -> Settings:
        return load_settings(self.config, {}, self.folder)

    def lifecycle(self) -> Lifecycle:
        return lifecycle(self.state, SystemClock())

    def standins(self) -> Commands:
        """The real Coordinator, stand-ins for the rest."""
        real = commands(self.state, self.config)
        ours = commands(self.state, self.config, python=(sys.executable, _STANDINS))
        return replace(real, sync=ours.sync, watcher=ours.watcher)

    def program(self, name: str) -> Program:
        return next(p for p in self.client.programs() if p.name == f"shardsync:{name}")

    def supervisorctl(self, *words: str) -> str:
        """What `supervisorctl -c STATE/supervisord.conf WORDS` prints."""
        argv = [sys.executable, "-m", "supervisor.supervisorctl"]
        done = subprocess.run(
            [*argv, "-c", str(self.state.supervisord_conf), *words],
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.stdout.decode() + done.stderr.decode()

    def shardsync(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What the command does with these settings."""
        return subprocess.run(
            [sys.executable, "-m", "shardsync.cli.main", *words],
            env={**os.environ, "SHARDSYNC_CONFIG": str(self.config)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=100,
            check=False,
        )

    def is_in_step(self) -> bool:
        """Whether a flush ends well, and the Node is then what the tree is, by rsync's word."""
        return self.shardsync("flush").returncode == 0 and not differences(self.root, self.node)

    def kill_all(self) -> None:
        """Whatever a failed test left."""
        end(find(self.state), self.state, term_seconds=5)


@contextmanager
def instance(folder: Path, *, shards: int = 2, state: str = "state") -> Iterator[Instance]:
    """An Instance whose processes are ended at the end, whatever happened."""
    made = Instance(folder, shards=shards, state=state)
    try:
        yield made
    finally:
        made.kill_all()


def eventually(what: Callable[[], object], *, seconds: float = _WAIT_SECONDS) -> None:
    """Wait until `what()` is true; an error in it counts as false. Fails the test at the end."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = what()
        except Exception as error:  # noqa: BLE001 (told below)
            last = error
        else:
            if last:
                return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: last {last!r}")
