"""An rsync that counts: a script put first in the daemons' PATH, which runs the real one.

It notes each run's arguments, and copies the list that comes on stdin; what
goes in and out of the real rsync stays as it is.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.benches.processes import BenchFailed

_SCRIPT = """\
#!/bin/bash
printf '%s\\n' "$*" >"{folder}/run.$$"
case " $* " in
*"-from=- "*) tee "{folder}/list.$$" | "{rsync}" "$@"; exit "${{PIPESTATUS[1]}}" ;;
esac
exec "{rsync}" "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What came by. `comparing`: runs that walk a tree (-r); their list names where.

    `entries`, `list_bytes`: of lists to be shipped; `looked_at`: entries of dry runs' lists.
    """

    runs: int
    comparing: int
    entries: int
    list_bytes: int
    looked_at: int


class CountedRsync:
    """The script, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        real = shutil.which("rsync")
        if real is None:
            raise BenchFailed("rsync is missing: tools/bench --install installs it")
        self._seen = folder / "seen"
        self._seen.mkdir(parents=True)
        self.program = folder / "rsync"
        self.program.write_text(_SCRIPT.format(folder=self._seen, rsync=real))
        self.program.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """With it, the script is the rsync that is found."""
        return {"PATH": f"{self.program.parent}:{os.environ['PATH']}"}

    def reset(self) -> None:
        """Count from 0."""
        for path in self._seen.iterdir():
            path.unlink()

    def count(self) -> Count:
        """Since the last reset, `--version` and the like left out."""
        found = {path.suffix: path.read_text() for path in self._seen.glob("run.*")}
        runs = [text for text in found.values() if text.strip() not in {"--version", "-V"}]
        lists = {path.suffix: path.read_bytes() for path in self._seen.glob("list.*")}
        shipped = [lists[run] for run in lists if not _is_dry(found[run])]
        listed = sum(content.count(b"\0") for content in lists.values())
        entries = sum(content.count(b"\0") for content in shipped)
        return Count(
            runs=len(runs),
            comparing=sum(_is_comparing(text) for text in runs),
            entries=entries,
            list_bytes=sum(map(len, shipped)),
            looked_at=listed - entries,
        )


def _is_dry(arguments: str) -> bool:
    return "-n" in arguments.split()


def _is_comparing(arguments: str) -> bool:
    return any(
        word == "--recursive" or (word[:1] == "-" and word[1:2] != "-" and {"r", "a"} & set(word))
        for word in arguments.split()
    )
