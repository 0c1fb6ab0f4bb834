"""Watcher slots as processes of their own, with settings and state on disk."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shardsync.journal.database import connect_reader
from shardsync.journal.reader import JournalReader
from shardsync.layout import StateDirectory


class Programs:
    """Real slots, as supervisord would start them; `under` another program, if it is given."""

    def __init__(self, folder: Path, *, under: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.under = under
        self.state = StateDirectory(folder / "state")
        self.settings = folder / "shardsync.toml"
        self._running: list[subprocess.Popen[bytes]] = []

    def prepare(self) -> None:
        (self.folder / "tree/a").mkdir(parents=True)
        (self.folder / "node").mkdir()
        self.state.make()
        self.settings.write_text(
            f'[tree]\nroot = "{self.folder}/tree"\n[state]\ndir = "{self.state.path}"\n'
            f'[[node]]\nname = "n"\ntarget = "{self.folder}/node"\n'
        )

    def start(self, slot: int) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *self.under, sys.executable, "-m", "shardsync.watch.slot",
                    "--state", str(self.state.path), "--settings", str(self.settings),
                    "--slot", f"{slot:02d}",
                ],
                stderr=log,
            )  # fmt: skip
        self._running.append(process)
        return process

    def log_has(self, text: str) -> None:
        self.until(lambda: text in (self.folder / "log").read_text(), text)

    def journaled(self, path: bytes) -> None:
        self.until(lambda: path in self._paths(), str(path))

    def flushed(self) -> set[str]:
        """The flush cookies that Shard 0 has acknowledged."""
        connection = connect_reader(self.state.journal("main-00"))
        try:
            return {row[0] for row in connection.execute("SELECT name FROM cookies")}
        finally:
            connection.close()

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait(10)

    def _paths(self) -> set[bytes]:
        journal = self.state.journal("main-00")
        if not journal.exists():
            return set()
        reader = JournalReader(journal)
        try:
            return {change.path for change in reader.read(after=0, limit=1000)}
        finally:
            reader.close()

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline, (what, (self.folder / "log").read_text())
            time.sleep(0.05)
