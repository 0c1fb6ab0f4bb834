"""The sysctl.d file that raises the kernel's limits: its text, and how it is written and loaded.

Never lowers a limit. Needs root, and a kernel that lets this machine's root
change it: in a container the host's must.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shardsync.control.limits import (
    INSTANCES,
    KERNEL_WATCH_BYTES,
    NAMESPACE_KEYS,
    QUEUED_EVENTS,
    WATCHES,
    Limits,
    Need,
    present,
    recommended,
)
from shardsync.errors import UsageError
from shardsync.files import replace_file

SYSCTL_FILE = Path("/etc/sysctl.d/60-shardsync.conf")
_PROC = Path("/proc")
_OTHER_PLACES = (
    Path("/etc/sysctl.d"),
    Path("/run/sysctl.d"),
    Path("/usr/local/lib/sysctl.d"),
    Path("/usr/lib/sysctl.d"),
)
_LAST_READ = Path("/etc/sysctl.conf")

_HEAD = """\
# Kernel limits for about {directories:,} watched directories, by `shardsync tune`: put this into
# {file}, then `sysctl --system`; `shardsync tune --apply` does both.
# Where watches run out, the rest of the directories is polled, which status and metrics tell.
"""
_WHY = {
    WATCHES: """\
# One watch a directory, twice over: a re-plan watches what it moves twice, and a tree grows.
# About {kib:.2f} KiB of kernel memory each, only while used. Per user.
""",
    INSTANCES: """\
# One instance a Watcher, one for the sync process, the rest for other programs. Per user.
""",
    QUEUED_EVENTS: """\
# Events that may wait while a Watcher is busy; beyond it the Shard is scanned anew.
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One limit that was raised, or is to be."""

    key: str
    old: int | None
    new: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What is to be done. `values`: for the file, which has them if `is_written`. `changes`:
    what the kernel has less of.
    """

    values: Mapping[str, int]
    changes: tuple[Change, ...]
    is_written: bool

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.is_written and not self.changes


class Tuner:
    """Raises limits for good: now in the kernel, and in a file for the next boot."""

    def __init__(
        self,
        *,
        file: Path = SYSCTL_FILE,
        proc: Path = _PROC,
        others: Iterable[Path] = _OTHER_PLACES,
        last_read: Path = _LAST_READ,
    ) -> None:
        self.file = file
        self._proc = proc
        self._others = tuple(others)
        self._last_read = last_read

    def plan(self, need: Need) -> Tuning:
        """What `need` asks for, and what of it is not so yet."""
        limits = present(proc=self._proc)
        written = read_sysctls(self.file)
        wanted = recommended(need, limits)
        values = {key: max(value, written.get(key, 0)) for key, value in wanted.items()}
        return Tuning(
            values=values,
            changes=tuple(_changes(values, limits)),
            is_written=written == values,
        )

    def apply(self, need: Need) -> Tuning:
        """Load and write what is not so yet; returns what that was. Idempotent. Raises UsageError.

        Crash safety: what is loaded and not yet written is found missing in
        the file by the next run; the file is replaced whole.
        """
        tuning = self.plan(need)
        # Loaded first: where the kernel refuses, nothing is left for the next boot to trip over.
        for change in tuning.changes:
            self._load(change)
        if not tuning.is_written:
            self._write(sysctl_text(tuning.values, need))
        return tuning

    def overriding(self, values: Mapping[str, int]) -> list[str]:
        """Settings in files that are read after ours and say less, as `FILE: KEY = VALUE`."""
        later = [
            path
            for folder in self._others
            for path in folder.glob("*.conf")
            if path.name > self.file.name and not path.is_symlink()
        ]
        later = [*sorted(later, key=lambda path: path.name), self._last_read]
        return [
            f"{path}: {key} = {value}"
            for path in later
            for key, value in read_sysctls(path).items()
            if value < values.get(key, 0)
        ]

    def _load(self, change: Change) -> None:
        path = self._proc.joinpath("sys", *change.key.split("."))
        try:
            path.write_text(f"{change.new}\n", "ascii")
        except OSError as error:
            refused = error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}
            raise UsageError(
                f"{change.key} = {change.new} cannot be set: {path}: {error.strerror}",
                hint="a container's limits are its host's: run `shardsync tune` here, put what it"
                f" prints into {SYSCTL_FILE} on the host, and run `sysctl --system` there"
                if refused
                else "this kernel does not take the value",
            ) from error

    def _write(self, text: str) -> None:
        try:
            self.file.parent.mkdir(mode=0o755, exist_ok=True)
            replace_file(self.file, text)
            self.file.chmod(0o644)
        except OSError as error:
            raise UsageError(
                f"{self.file}: {error.strerror}; the limits hold until the next boot",
                hint="run `shardsync tune` and put what it prints where sysctl.d(5) says",
            ) from error


def sysctl_text(values: Mapping[str, int], need: Need) -> str:
    """The file's text."""
    kib = KERNEL_WATCH_BYTES / 1024
    parts = [_HEAD.format(directories=need.directories, file=SYSCTL_FILE)]
    parts += [f"{_WHY[key].format(kib=kib)}{key} = {value}\n" for key, value in values.items()]
    return "\n".join(parts)


def read_sysctls(path: Path) -> dict[str, int]:
    """Our keys in a sysctl.d file, sysctl.d(5); none where it cannot be read."""
    found = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text("utf-8").splitlines():
            key, equals, value = line.strip().removeprefix("-").partition("=")
            name = key.strip().replace("/", ".")
            if equals and name in _WHY and value.strip().isdigit():
                found[name] = int(value)
    return found


def is_root() -> bool:
    """Whether this process may ask the kernel at all."""
    return os.geteuid() == 0


def _changes(values: Mapping[str, int], limits: Limits) -> Iterable[Change]:
    has = limits.settings
    for key, value in values.items():
        if has.get(key, 0) < value:
            yield Change(key=key, old=has.get(key), new=value)
        # Outside of user namespaces both names are one value, and the line above raised it.
        namespaced = NAMESPACE_KEYS.get(key, "")
        own = has.get(namespaced)
        if own is not None and own < value and own != has.get(key):
            yield Change(key=namespaced, old=own, new=value)
