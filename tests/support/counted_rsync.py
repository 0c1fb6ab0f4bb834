"""An `rsync` on the PATH that notes each run, then is the real one."""

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
        program = shutil.which("rsync")
        assert program is not None
        folder.mkdir()
        script = folder / "rsync"
        counted = cls(folder / "log")
        script.write_text(_SCRIPT.format(log=counted.log, program=program))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
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
