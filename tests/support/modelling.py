"""State machines over a tiny tree: its operations, and how many examples are tried.

Few names, so that they collide. What cannot be done is not done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

_VARIABLE = "SHARDSYNC_EXAMPLES"
_LIBC = ctypes.CDLL(None, use_errno=True)
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
places = st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/b/a", "b/a/b"])
_stored = st.sampled_from(["1", "2"])


class TreeMachine(RuleBasedStateMachine):
    """Names come, go and change places in `folder/tree`; what writes them is the machine's own."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="shardsync-model-"))
        self.outside = self.folder / "outside"
        self.outside.mkdir()

    def at(self, place: str) -> Path:
        return self.folder / "tree" / place

    @rule(place=places)
    def make(self, place: str) -> None:
        with contextlib.suppress(OSError):
            self.at(place).mkdir(parents=True)

    @rule(place=places)
    def remove(self, place: str) -> None:
        with contextlib.suppress(OSError):
            self.at(place).unlink()

    @rule(place=places)
    def remove_tree(self, place: str) -> None:
        with contextlib.suppress(OSError):
            shutil.rmtree(self.at(place))

    @rule(one=places, other=places)
    def rename(self, one: str, other: str) -> None:
        with contextlib.suppress(OSError):
            self.at(one).rename(self.at(other))

    @rule(one=places, other=places)
    def exchange(self, one: str, other: str) -> None:
        paths = [os.fsencode(self.at(place)) for place in (one, other)]
        _LIBC.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)

    @rule(place=places, name=_stored)
    def move_out(self, place: str, name: str) -> None:
        with contextlib.suppress(OSError):
            self.at(place).rename(self.outside / name)

    @rule(place=places, name=_stored)
    def move_in(self, place: str, name: str) -> None:
        with contextlib.suppress(OSError):
            (self.outside / name).rename(self.at(place))

    @rule(place=places, mode=st.sampled_from([0o700, 0o750]))
    def chmod(self, place: str, mode: int) -> None:
        with contextlib.suppress(OSError):
            if not self.at(place).is_symlink():
                self.at(place).chmod(mode)


def examples(few: int, *, steps: int) -> settings:
    """`few` in CI; with SHARDSYNC_EXAMPLES=N in the environment N, new ones in every run."""
    asked = os.environ.get(_VARIABLE, "")
    return settings(
        max_examples=int(asked or few),
        stateful_step_count=steps,
        deadline=None,
        derandomize=not asked,
        suppress_health_check=list(HealthCheck),
    )
