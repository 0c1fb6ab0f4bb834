"""Failpoints for real processes: a folder that the programs of an instance are told of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardsync.failpoints import VARIABLE


class Failpoints:
    """Those of the processes that are started while it is `told`, and of their successors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @contextmanager
    def told(self) -> Iterator[None]:
        """What is started meanwhile goes by it, for as long as it lives."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, str(self.folder))
            yield

    def arm(self, *steps: str) -> None:
        """Each step `POINT:N:ACTION`; one follows the other."""
        (self.folder / ",".join(steps)).touch()

    def disarm(self) -> None:
        """Let nobody be struck any more."""
        for name in self.left():
            (self.folder / name).unlink(missing_ok=True)

    def left(self) -> list[str]:
        """What has not struck yet."""
        return os.listdir(self.folder)
