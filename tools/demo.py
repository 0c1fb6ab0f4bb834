"""The main job, shown: one tree, a plain-folder Node and one behind a real rsync daemon.

Run by `tools/run` without arguments. Everything lives in a temporary folder
and is stopped and removed at the end; `--keep` leaves the files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

SHARDSYNC = Path(__file__).resolve().parents[1] / ".venv/bin/shardsync"
SECTIONS = 40
PAGES = 25


def main() -> int:
    """Run the demo; 0 where both Nodes were verified at the end."""
    parser = argparse.ArgumentParser(prog="tools/run", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the files behind")
    options = parser.parse_args()
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="shardsync-demo-"))
    try:
        return Demo(folder=folder, console=console).run()
    finally:
        if options.keep:
            console.print(f"left behind: {folder}")
        else:
            shutil.rmtree(folder)


class Demo:
    """A small site, two Nodes, and what happens to them."""

    def __init__(self, *, folder: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._tree = folder / "site"
        self._settings = folder / "shardsync.toml"
        self._port = _free_port()

    def run(self) -> int:
        """All of it, in order."""
        self._say(f"Making a site of {SECTIONS * PAGES} pages in {self._tree}")
        self._make_tree()
        self._write_settings()
        with self._rsync_daemon():
            try:
                self._say("Starting everything under supervisord: shardsync up")
                self._shardsync("up")
                with self._live_table():
                    self._change_things()
                    self._say("Waiting until all that is on disk now is on the Nodes: flush")
                    self._shardsync("flush", "--timeout", "1m")
                self._say("Comparing tree and Nodes, by checksum: verify")
                verified = self._shardsync("verify", "--checksum", check=False)
                self._shardsync("status", check=False)
            finally:
                self._shardsync("down", check=False)
        self._say(f"The log of each process was in {self._folder}/state/logs")
        self._say(f"The settings were these ({self._settings}):")
        self._console.print(self._settings.read_text().rstrip(), markup=False)
        if verified.returncode == 0:
            self._say("Both Nodes hold exactly what the tree holds.")
        return verified.returncode

    def _make_tree(self) -> None:
        for section in range(SECTIONS):
            folder = self._tree / f"section-{section:02d}"
            folder.mkdir(parents=True)
            for page in range(PAGES):
                (folder / f"page-{page:02d}.html").write_text(f"<h1>{section}/{page}</h1>\n")
        (self._folder / "web1").mkdir()
        (self._folder / "web2").mkdir()

    def _write_settings(self) -> None:
        self._settings.write_text(
            f'[tree]\nroot = "{self._tree}"\n\n'
            f'[state]\ndir = "{self._folder}/state"\n\n'
            "[shards]\ncount = 2\n\n"
            f'[metrics]\nlisten = "127.0.0.1:{_free_port()}"\n\n'
            f'[[node]]\nname = "web1"\ntarget = "{self._folder}/web1"\n\n'
            f'[[node]]\nname = "web2"\ntarget = "rsync://127.0.0.1:{self._port}/site"\n'
        )

    @contextlib.contextmanager
    def _rsync_daemon(self) -> Iterator[None]:
        """A real `rsync --daemon` on a free port of the loopback interface."""
        config = self._folder / "rsyncd.conf"
        identity = f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.getuid() == 0 else ""
        config.write_text(
            f"port = {self._port}\naddress = 127.0.0.1\nuse chroot = no\n{identity}"
            f"[site]\npath = {self._folder}/web2\nread only = no\nmunge symlinks = no\n"
        )
        daemon = subprocess.Popen(
            ["rsync", "--daemon", "--no-detach", f"--config={config}"], start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(daemon.pid, signal.SIGTERM)
            daemon.wait(timeout=10)

    def _change_things(self) -> None:
        steps = (
            ("Writing 500 pages", self._write),
            ("Renaming ten sections", self._rename),
            ("Deleting five sections and a page of each other one", self._delete),
            ("A symlink, an empty directory, a changed mode", self._odds_and_ends),
        )
        for text, step in steps:
            self._say(text)
            step()
            time.sleep(1)

    def _write(self) -> None:
        for section in range(20):
            for page in range(25):
                path = self._tree / f"section-{section:02d}" / f"page-{page:02d}.html"
                path.write_text(f"<h1>{section}/{page}</h1><p>rewritten</p>\n")

    def _rename(self) -> None:
        for section in range(10):
            (self._tree / f"section-{section:02d}").rename(self._tree / f"archive-{section:02d}")

    def _delete(self) -> None:
        for section in range(10, 15):
            shutil.rmtree(self._tree / f"section-{section:02d}")
        for section in range(15, SECTIONS):
            (self._tree / f"section-{section:02d}" / "page-00.html").unlink()

    def _odds_and_ends(self) -> None:
        (self._tree / "latest").symlink_to("section-39")
        (self._tree / "empty").mkdir()
        (self._tree / "section-39" / "page-01.html").chmod(0o600)

    @contextlib.contextmanager
    def _live_table(self) -> Iterator[None]:
        """Shards, Nodes and Lag while it runs: a live table, or a line a second off a terminal."""
        stop = threading.Event()
        thread = threading.Thread(target=self._show, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _show(self, stop: threading.Event) -> None:
        if not self._console.is_terminal:
            while not stop.wait(1.0):
                status = self._status()
                nodes = ", ".join(
                    f"{node['name']} {node['state']} lag {node['lag_changes']}"
                    for node in status.get("nodes", [])
                )
                self._console.print(f"  {nodes}", markup=False)
            return
        with Live(console=self._console, refresh_per_second=4) as live:
            while not stop.wait(0.3):
                live.update(_table(self._status()))

    def _status(self) -> dict[str, list[dict[str, object]]]:
        found = subprocess.run(
            [SHARDSYNC, "--config", self._settings, "status", "--json"],
            capture_output=True,
            check=False,
            timeout=30,
        )
        return json.loads(found.stdout) if found.stdout else {}

    def _shardsync(
        self, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        self._console.print(f"$ shardsync {' '.join(arguments)}", markup=False, style="bold")
        command: Sequence[str | Path] = [SHARDSYNC, "--config", self._settings, *arguments]
        return subprocess.run(command, check=check, timeout=180)

    def _say(self, text: str) -> None:
        self._console.print(f"[green]*[/] {text}")


def _table(status: dict[str, list[dict[str, object]]]) -> Table:
    table = Table("", "state", "position / lag", "watches / last success")
    for shard in status.get("shards", []):
        table.add_row(*(str(shard[key]) for key in ("id", "state", "position", "watches")))
    for node in status.get("nodes", []):
        lag = f"{node['lag_changes']} changes, {node['lag_seconds']} s"
        table.add_row(str(node["name"]), str(node["state"]), lag, str(node["last_success"]))
    return table


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
