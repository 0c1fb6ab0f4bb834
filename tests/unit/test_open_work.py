"""Since when a path is open that failed in a Batch."""

from __future__ import annotations

from shardsync.ship.fold import Pending, Want
from shardsync.ship.open_work import pending_since


def _pending(**since: int) -> dict[bytes, Pending]:
    return {
        path.encode(): Pending(path=path.encode(), want=Want.CONTENT, since=at)
        for path, at in since.items()
    }


def test_a_failed_path_is_open_since_its_own_change() -> None:
    """Not since it failed, as a flush that began in between waits for it."""
    assert pending_since([b"a"], _pending(a=5, b=3)) == {b"a": 5}


def test_a_directory_that_fails_is_open_since_the_oldest_change_below() -> None:
    """What is gone is deleted by its shallowest missing directory, which no Change names."""
    pending = _pending(**{"d/e/f": 7, "d/e/g": 4, "dd": 1})
    assert pending_since([b"d", b"d/e"], pending) == {b"d": 4, b"d/e": 4}


def test_a_file_that_fails_within_a_tree_is_open_since_the_change_of_the_tree() -> None:
    """The Change says where to look; what fails lies below."""
    assert pending_since([b"t/x/y"], _pending(t=2, u=1)) == {b"t/x/y": 2}


def test_what_no_change_explains_is_not_known() -> None:
    """It is open since it failed."""
    assert pending_since([b"x"], _pending(a=2)) == {}
