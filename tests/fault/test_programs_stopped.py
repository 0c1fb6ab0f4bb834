"""Programs that stand still, or are killed for want of memory: they catch up."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.control.programs import Commands, commands
from shardsync.journal.reader import JournalReader
from shardsync.journal.state_reader import StateReader
from tests.support import narrow_watcher
from tests.support.instances import Instance, eventually, instance
from tests.support.memory import memory_limit


def narrow(made: Instance) -> Commands:
    """The real programs; a Watcher's kernel queue holds 64 events."""
    real = commands(made.state, made.config)
    script = Path(narrow_watcher.__file__)
    python = ("env", f"PYTHONPATH={script.parents[2]}", sys.executable, str(script))
    ours = commands(made.state, made.config, python=python)
    return replace(real, watcher=ours.watcher)


def pid_of(made: Instance, name: str) -> int:
    pid = made.program(name).pid
    assert pid is not None
    return pid


def is_another(made: Instance, name: str, pid: int) -> bool:
    return pid_of(made, name) != pid


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def churn(root: Path, mark: str, files: int) -> None:
    """New files in a new and in an old directory, the old ones moved, rewritten and removed."""
    (root / mark).mkdir()
    for number in range(files):
        (root / mark / f"f{number}").write_text(mark)
        (root / "old" / f"f{number}").write_text(f"{mark} {number}")
    os.rename(root / mark / "f0", root / "old/moved")
    os.unlink(root / "old/f1")
    os.rename(root / mark, root / f"{mark}-moved")


@pytest.mark.root
@pytest.mark.fault("watcher-stopped", "sync-stopped", "out-of-memory")
def test_what_stood_still_catches_up(tmp_path: Path) -> None:
    """The Watcher's queue overflows meanwhile; the sync process's Changes are pruned meanwhile."""
    with instance(tmp_path, shards=1) as made:
        (made.root / "old").mkdir()
        made.write_settings(shards=1, retention="1s")
        made.lifecycle().up(made.settings(), programs=narrow(made))
        eventually(made.is_in_step)
        journal = JournalReader(made.state.journal("main-00"))

        with stopped(pid_of(made, "watcher-00")):
            churn(made.root, "a", 500)
        eventually(made.is_in_step)
        assert journal.progress().overflows

        with stopped(pid_of(made, "sync")):
            before = StateReader(made.state.state_db).cursors(("main", "web1"))["main-00"]
            churn(made.root, "b", 100)
            time.sleep(1)
            made.supervisorctl("restart", "shardsync:watcher-00")  # prunes at its start
            eventually(lambda: journal.progress().pruned_to > before.position)
        eventually(made.is_in_step)

        for name in ("watcher-00", "sync"):
            pid = pid_of(made, name)
            with memory_limit(pid, limit_bytes=4096):
                churn(made.root, f"c-{name}", 1000)
                eventually(functools.partial(is_another, made, name, pid))
            eventually(made.is_in_step)
        journal.close()
