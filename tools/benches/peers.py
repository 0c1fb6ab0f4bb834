"""The programs that shardsync is measured beside: how each is started and when it is ready.

Each `watching` is a context manager: it starts the program on a tree, waits
until it says that all of it is watched, and yields a Peer; its end ends it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.benches.processes import BenchFailed, await_true, holds, running, with_descendants

WATCH_SECONDS = 1800.0
PACKAGES = {
    "lsyncd": "lsyncd",
    "inotifywait": "inotify-tools",
    "watchman": "watchman",
    "rsync": "rsync",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A program that watches. `seconds`: from its start until all was watched."""

    seconds: float
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def pids(self) -> list[int]:
        """It and its children."""
        return with_descendants(self.pid)


Watching = Callable[[Path, Path], contextlib.AbstractContextManager[Peer]]
"""(tree, folder for its own files)."""


def installed() -> list[str]:
    """Those that are here."""
    return [name for name in PACKAGES if shutil.which(name)]


def missing() -> list[str]:
    """Those that are not."""
    return [name for name in PACKAGES if not shutil.which(name)]


def version(name: str) -> str:
    """What it says of itself, or ""."""
    words = {"lsyncd": ["lsyncd", "--version"], "inotifywait": ["inotifywait", "--help"]}
    try:
        done = subprocess.run(
            words.get(name, [name, "--version"]),
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except OSError:
        return ""
    return next(iter((done.stdout + done.stderr).splitlines()), "").strip()


def lsyncd_settings(source: Path, target: Path, *, binary: str, delay: int = 1) -> str:
    """One sync, in the foreground. lsyncd's own delay is 15 s; 1 s serves it better here."""
    return (
        "settings { nodaemon = true, inotifyMode = 'CloseWrite or Modify' }\n"
        f'sync {{ default.rsync, source = "{source}", target = "{target}/", delay = {delay},'
        f' rsync = {{ binary = "{binary}", archive = true }} }}\n'
    )


@contextlib.contextmanager
def lsyncd(
    tree: Path, folder: Path, *, target: Path | None = None, binary: str = "/bin/true"
) -> Iterator[Peer]:
    """Start lsyncd and wait until it begins its first rsync, which it does when all is watched.

    With /bin/true for rsync nothing but watching is timed.
    """
    node = target or folder / "lsyncd-node"
    node.mkdir(parents=True, exist_ok=True)
    program = shutil.which(binary) or binary
    settings, log = folder / "lsyncd.lua", folder / "lsyncd.log"
    settings.write_text(lsyncd_settings(tree, node, binary=program))
    began = time.monotonic()
    with log.open("wb") as output, running(["lsyncd", str(settings)], output=output) as process:
        watched = await_true(
            lambda: holds(log, b"recursive startup rsync"),
            seconds=WATCH_SECONDS, what="lsyncd", process=process,
        )  # fmt: skip
        yield Peer(seconds=watched - began, process=process)


def await_lsyncd_ready(folder: Path, peer: Peer) -> float:
    """Monotonic time at which its first rsync is through."""
    return await_true(
        lambda: holds(folder / "lsyncd.log", b"finished."),
        seconds=WATCH_SECONDS, what="lsyncd's first rsync", process=peer.process,
    )  # fmt: skip


@contextlib.contextmanager
def inotifywait(tree: Path, folder: Path, *more: str) -> Iterator[Peer]:
    """Start inotifywait -m -r and wait until it says that its watches are established."""
    log = folder / "inotifywait.log"
    began = time.monotonic()
    argv = ["inotifywait", "-m", "-r", *more, str(tree)]
    output = folder / "inotifywait.out"
    with (
        log.open("wb") as errors,
        output.open("wb") as events,
        running(argv, output=events, errors=errors) as process,
    ):
        watched = await_true(
            lambda: holds(log, b"Watches established."),
            seconds=WATCH_SECONDS, what="inotifywait", process=process,
        )  # fmt: skip
        yield Peer(seconds=watched - began, process=process)


@contextlib.contextmanager
def watchman(tree: Path, folder: Path) -> Iterator[Peer]:
    """Start a watchman of our own and wait until it answers `clock`, after its crawl."""
    place = [f"--{kind}={folder / f'watchman.{kind}'}" for kind in ("sockname", "statefile")]
    place += [f"--{kind}={folder / f'watchman.{kind}'}" for kind in ("logfile", "pidfile")]
    began = time.monotonic()
    argv = ["watchman", *place, "--foreground", "--no-save-state"]
    with running(argv) as process:
        await_true(
            (folder / "watchman.sockname").exists,
            seconds=20, what="watchman's socket", process=process,
        )  # fmt: skip
        for words in (f'["watch", "{tree}"]', f'["clock", "{tree}", {{"sync_timeout": 1800000}}]'):
            done = subprocess.run(
                ["watchman", *place, "--no-spawn", "-j"],
                input=words, capture_output=True, text=True, timeout=WATCH_SECONDS, check=False,
            )  # fmt: skip
            if done.returncode or '"error"' in done.stdout:
                raise BenchFailed(f"watchman: {done.stdout}{done.stderr}")
        yield Peer(seconds=time.monotonic() - began, process=process)


WATCHING: dict[str, Watching] = {
    "lsyncd": lsyncd,
    "inotifywait": inotifywait,
    "watchman": watchman,
}
