"""An `rsync` on the PATH that notes each run, or has something done first, and is the real one."""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

_SCRIPT = """#!/bin/sh
echo "begin $$ $*" >> {log}
{program} "$@"
code=$?
echo "end $$" >> {log}
exit $code
"""


@dataclass(frozen=True, slots=True)
class CountedRsync:
    """What the runs were asked for. A remote side's own runs are told apart by `--server`."""

    log: Path

    @classmethod
    def install(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> CountedRsync:
        """From now on, for this process and what it starts."""
        counted = cls(folder / "log")
        folder.mkdir()
        _install(folder, _SCRIPT.format(log=counted.log, program=_program()), monkeypatch)
        counted.forget()
        return counted

    def forget(self) -> None:
        """Begin to count anew."""
        self.log.write_text("")

    def runs(self) -> list[str]:
        """The arguments of each run but those of a remote side."""
        lines = [line.split(" ", 2) for line in self.log.read_text().splitlines()]
        return [line[2] for line in lines if line[0] == "begin" and "--server" not in line[2]]

    def comparisons(self) -> list[str]:
        """The dry runs that compare what the tree has (not those that only list the Node)."""
        return [run for run in self.runs() if " -n " in run and "--existing" not in run]

    def trees(self) -> list[str]:
        """The runs that send whole subtrees."""
        return [run for run in self.runs() if " -r " in run and " -n " not in run]

    def most_at_once(self, what: str) -> int:
        """How many runs with `what` among their arguments went on at a time, at most."""
        going: set[str] = set()
        most = 0
        for line in self.log.read_text().splitlines():
            word, pid, *rest = line.split(" ", 2)
            if word == "end":
                going.discard(pid)
            elif rest and what in rest[0] and "--server" not in rest[0]:
                going.add(pid)
            most = max(most, len(going))
        return most


def rsync_after(folder: Path, command: str, *, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each run of this process, and of what it starts, has a shell do that first."""
    folder.mkdir()
    _install(folder, f'#!/bin/sh\n{command}\nexec {_program()} "$@"\n', monkeypatch)


def _program() -> str:
    program = shutil.which("rsync")
    assert program is not None
    return program


def _install(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder / "rsync"
    script.write_text(text)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
