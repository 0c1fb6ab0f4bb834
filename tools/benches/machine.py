"""Where a run was made: machine, versions, date, commit."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path

import shardsync
from tools.benches import peers

REPOSITORY = Path(__file__).resolve().parents[2]


def surroundings(folder: Path, generator: str) -> dict[str, str]:
    """Everything a reader needs to judge the figures; names to texts."""
    found = {
        "date": f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _first("/proc/cpuinfo", "model name"),
        "RAM": f"{int(_first('/proc/meminfo', 'MemTotal').split()[0]) / 1024**2:.0f} GiB",
        "kernel": platform.release(),
        "file system": file_system(folder),
        "max_queued_events": _sysctl("max_queued_events"),
        "load average before": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "tree generator": generator,
        "shardsync": shardsync.__version__,
    }
    found.update({name: peers.version(name) for name in peers.installed()})
    return found


def file_system(folder: Path) -> str:
    """The type of the file system that a folder lies on."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mounts.append((before.split()[4], after.split()[0]))
    inside = [m for m in mounts if f"{folder.resolve()}/".startswith(m[0].rstrip("/") + "/")]
    return max(inside, key=lambda mount: len(mount[0]))[1]


def _sysctl(name: str) -> str:
    return Path("/proc/sys/fs/inotify", name).read_text().strip()


def _first(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown 0"


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", REPOSITORY, *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "shardsync", "tools")
        return (git("rev-parse", "--short=10", "HEAD") or "none") + (
            " and changes" if changed else ""
        )
    except OSError:
        return "unknown"
