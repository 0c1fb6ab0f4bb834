"""The table of directories, and that of pending files."""

from __future__ import annotations

import os

from shardsync.watch.directories import TOP, DirectoryTable
from shardsync.watch.pending import Look, PendingFiles


def filled() -> DirectoryTable:
    """Root 1, 1/a 2, 1/a/b 3, and c 5000 on another page."""
    table = DirectoryTable()
    table.bind(1, TOP, b"", 100)
    table.bind(2, 1, b"a", 200)
    table.bind(3, 2, b"b", 300)
    table.bind(5000, 1, b"c", 400)
    return table


def test_paths_are_put_together_from_the_parents() -> None:
    """The root is b""; an unknown watch has none."""
    table = filled()
    assert [table.path(wd) for wd in (1, 2, 3, 5000, 4, 99_999)] == [
        b"", b"a", b"a/b", b"c", None, None,
    ]  # fmt: skip
    assert len(table) == 4


def test_a_prefix_keeps_its_whole_path_as_its_name() -> None:
    """A Shard's prefix has no parent among the watches."""
    table = DirectoryTable()
    table.bind(7, TOP, b"news/2024", 1)
    table.bind(8, 7, b"x", 2)
    assert table.path(8) == b"news/2024/x"


def test_a_rename_moves_all_below_by_one_entry() -> None:
    """Children know their parent, not their path."""
    table = filled()
    table.bind(2, 5000, b"renamed", 200)
    assert table.path(3) == b"c/renamed/b"
    assert len(table) == 4


def test_a_detached_subtree_has_no_paths_until_it_is_bound_again() -> None:
    """One mark for a subtree of any size; a pass over the pages finds what it holds."""
    table = filled()
    table.detach(2)
    assert (table.path(2), table.path(3), table.path(5000)) == (None, None, b"c")
    assert list(table.outside()) == [[2, 3], []]
    table.bind(2, 1, b"back", 200)
    assert (table.path(3), table.detached) == (b"back/b", 0)
    assert list(table.outside()) == [[], []]


def test_what_lies_below_an_outside_directory_is_found_on_later_pages() -> None:
    """Each page is judged as it is when its turn comes: what was given up has no path either."""
    table = filled()
    table.bind(9000, 5000, b"below", 900)
    table.bind(9001, 9000, b"deeper", 901)
    table.detach(5000)
    given_up = []
    for page in table.outside():
        for wd in page:
            table.forget(wd)
        given_up += page
    assert given_up == [5000, 9000, 9001]
    assert (len(table), table.detached) == (3, 0)


def test_a_forgotten_watch_is_free_and_its_page_given_back() -> None:
    """Watches only grow, so memory must not."""
    table = filled()
    table.forget(5000)
    table.forget(5000)
    assert (table.path(5000), table.knows(5000), len(table)) == (None, False, 3)
    assert list(table._pages) == [0]


def test_a_round_tells_what_a_scan_did_not_come_across() -> None:
    """After an overflow, old bindings are lies until they are made anew."""
    table = filled()
    table.begin_round()
    table.bind(1, TOP, b"", 100)
    table.bind(2, 1, b"a", 200)
    assert (table.is_seen(2), table.is_seen(3)) == (True, False)
    assert sorted(table.unseen()) == [3, 5000]


def test_names_do_not_pile_up() -> None:
    """A directory renamed for ever costs one name, not one a rename."""
    table = filled()
    for number in range(50_000):
        table.bind(2, 1, b"name-%d" % number, 200)
    assert table.path(3) == b"name-49999/b"
    assert len(table._pages[0].names) < 100_000


def test_a_loop_of_parents_ends() -> None:
    """Out-of-date bindings may form one for a moment."""
    table = filled()
    table.bind(2, 3, b"a", 200)
    assert table.path(3) is None


class FakeProbe:
    """Says of each path what it was told to say."""

    def __init__(self, **looks: Look) -> None:
        self._looks = looks

    def look(self, path: bytes) -> Look:
        return self._looks[path.decode()]

    def kind(self, path: bytes) -> os.stat_result | None:
        return None


def test_pending_files_become_due_by_a_look_and_by_max_open() -> None:
    """Nobody writes it: after 0.1 s. Somebody does, or who knows: after `max_open`."""
    pending = PendingFiles(
        probe=FakeProbe(quiet=Look.DONE, busy=Look.WRITING, foreign=Look.UNKNOWN),
        max_open_seconds=10.0,
    )
    fresh = {b"quiet": (100.0, 1), b"busy": (100.0, 2), b"foreign": (100.0, 3), b"new": (100.2, 4)}
    assert pending.due(fresh, 100.05) == []
    assert pending.due(fresh, 100.15) == [b"quiet"]
    assert fresh == {b"new": (100.2, 4)}
    assert pending.oldest_us(fresh) == 2
    assert pending.due({}, 109.9) == []
    assert pending.due({}, 110.0) == [b"busy", b"foreign"]
    assert pending.oldest_us({}) is None


def test_a_flush_takes_all_pending_files() -> None:
    """Open or not: as they are now."""
    pending = PendingFiles(probe=FakeProbe(), max_open_seconds=10.0)
    pending.opened[b"open"] = (5.0, 1)
    fresh = {b"new": (1.0, 2)}
    assert pending.all(fresh) == [b"new", b"open"]
    assert (fresh, pending.opened) == ({}, {})
