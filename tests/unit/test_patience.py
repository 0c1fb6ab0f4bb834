"""A state directory that cannot be used for now is waited for, and one that never can is not."""

from __future__ import annotations

import pytest

from shardsync.errors import MadeByNewer, StateUnusable
from shardsync.log import Log
from shardsync.patience import patiently
from tests.support.clock import FakeClock


def test_a_full_disk_is_waited_for() -> None:
    """The work is done again until it ends; with a pause in between."""
    clock = FakeClock()
    found = [StateUnusable("full"), StateUnusable("full"), None]
    waited: list[float] = []

    def work() -> None:
        error = found.pop(0)
        if error is not None:
            raise error

    patiently(work, clock=clock, log=Log("test"), wait=waited.append)
    assert found == []
    assert waited == [2.0, 2.0]


def test_a_stop_ends_the_waiting() -> None:
    """Who is told to stop does not wait for a disk."""
    clock = FakeClock()

    def work() -> None:
        raise StateUnusable("full")

    patiently(work, clock=clock, log=Log("test"), wait=lambda _: True)


def test_a_file_of_a_newer_version_is_not_waited_for() -> None:
    """It would be waited for in vain."""

    def work() -> None:
        raise MadeByNewer("state.db")

    with pytest.raises(MadeByNewer):
        patiently(work, clock=FakeClock(), log=Log("test"), wait=lambda _: pytest.fail("waited"))
