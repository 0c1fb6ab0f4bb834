"""A Watcher on a real tree: what changes while it follows is in its Journal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.watching import Watching


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    watching = Watching(tmp_path)
    (watching.root / "a/b").mkdir(parents=True)
    (watching.root / "a/b/old").write_text("old")
    yield watching
    watching.close()


def test_a_first_start_journals_nothing_that_was_there(watching: Watching) -> None:
    """The bootstrap of the Nodes covers the tree as it is."""
    time.sleep(0.15)
    watching.start()
    assert watching.changes() == []


def test_a_written_file_is_journaled(watching: Watching) -> None:
    """Create, write, close: one Change of the path alone."""
    watching.start()
    watching.changes()
    (watching.root / "a/new").write_text("x")
    assert watching.seen() == {("entry", b"a/new")}


def test_what_happens_in_fresh_directories_is_journaled(watching: Watching) -> None:
    """Mkdir -p and a file deep below, all before the first event is read."""
    watching.start()
    watching.changes()
    (watching.root / "x/y/z").mkdir(parents=True)
    (watching.root / "x/y/z/f").write_text("x")
    assert watching.paths() == {b"x", b"x/y", b"x/y/z", b"x/y/z/f"}
    (watching.root / "x/y/z/g").write_text("x")
    assert watching.seen() == {("entry", b"x/y/z/g")}


def test_a_deletion_is_journaled(watching: Watching) -> None:
    watching.start()
    watching.changes()
    shutil.rmtree(watching.root / "a")
    assert {b"a", b"a/b", b"a/b/old"} <= watching.paths()
