"""Folding events into Changes, with literal event tuples."""

from __future__ import annotations

from shardsync import inotify as kernel
from shardsync.model import Kind
from shardsync.watch.events import Fold
from shardsync.watch.gathered import Gathered, NoFilter

COOKIES = 1
ROOT = 2
SUB = 3
DIR = kernel.ISDIR


class FakeDirectories:
    """Two directories, and a diary of what was asked."""

    def __init__(self) -> None:
        self.paths: dict[int, bytes] = {ROOT: b"", SUB: b"sub"}
        self.diary: list[tuple[object, ...]] = []

    def path(self, wd: int) -> bytes | None:
        return self.paths.get(wd)

    def directory_came(self, wd: int, name: bytes, *, moved: bool, origin: bytes | None) -> None:
        self.diary.append(("came", wd, name, moved, origin))

    def directory_moved(self, wd: int) -> None:
        self.diary.append(("moved", wd))

    def attributes_changed(self, wd: int) -> None:
        self.diary.append(("attributes", wd))

    def watch_ended(self, wd: int, *, unmounted: bool) -> None:
        self.diary.append(("ended", wd, unmounted))
        self.paths.pop(wd, None)

    def missed_directory(self, wd: int) -> None:
        self.diary.append(("missed", wd))


class Folding:
    """A Fold and its fakes."""

    def __init__(self) -> None:
        self.gathered = Gathered()
        self.directories = FakeDirectories()
        self.opened: dict[bytes, tuple[float, int]] = {}
        self.fold = Fold(
            gathered=self.gathered,
            surroundings=self.directories,
            opened=self.opened,
            cookie_wd=COOKIES,
        )

    def take(self, *events: kernel.Event) -> list[tuple[str, bytes, bytes | None]]:
        """Fold, and return the rows as (scope and kind, path, moved_from), sorted."""
        self.fold.fold(events, (10.0, 1_000))
        scopes = {1: "entry", 2: "tree", 3: "listing"}
        return sorted(
            (
                "attributes" if kind == Kind.ATTRIBUTES else scopes[scope],
                path,
                moved_from,
            )
            for path, scope, kind, _, moved_from in self.gathered.take(
                observed_at=7, excluded=NoFilter()
            )
        )


def test_a_file_is_pending_until_it_is_closed() -> None:
    """CREATE and MODIFY journal nothing; CLOSE_WRITE journals the bytes."""
    folding = Folding()
    assert folding.take((SUB, kernel.CREATE, 0, b"f"), (SUB, kernel.MODIFY, 0, b"f")) == []
    assert folding.fold.fresh == {b"sub/f": (10.0, 1_000)}
    assert folding.fold.created == [b"sub/f"]
    assert folding.take((SUB, kernel.CLOSE_WRITE, 0, b"f")) == [("entry", b"sub/f", None)]
    assert folding.fold.fresh == {}


def test_many_events_of_a_path_are_one_change() -> None:
    """Content outweighs attributes, whatever came first."""
    folding = Folding()
    assert folding.take(
        (ROOT, kernel.ATTRIB, 0, b"f"),
        (ROOT, kernel.CLOSE_WRITE, 0, b"f"),
        (ROOT, kernel.ATTRIB, 0, b"f"),
        (ROOT, kernel.ATTRIB, 0, b"g"),
    ) == [("attributes", b"g", None), ("entry", b"f", None)]


def test_attributes_of_a_file_being_written_wait_for_its_close() -> None:
    """GNU tar sets the times before it closes; half a file is not worth sending."""
    folding = Folding()
    assert folding.take((ROOT, kernel.CREATE, 0, b"f"), (ROOT, kernel.ATTRIB, 0, b"f")) == []


def test_a_modified_file_that_a_look_found_open_stays_there() -> None:
    """Its deadline runs from its first event, not from its latest."""
    folding = Folding()
    folding.opened[b"log"] = (20.0, 500)
    assert folding.take((ROOT, kernel.MODIFY, 0, b"log")) == []
    assert folding.fold.fresh == {}
    assert folding.take((ROOT, kernel.CLOSE_WRITE, 0, b"log")) == [("entry", b"log", None)]
    assert folding.opened == {}


def test_a_deletion_ends_what_was_pending() -> None:
    """The path is journaled: it is to be found gone."""
    folding = Folding()
    assert folding.take((ROOT, kernel.CREATE, 0, b"f"), (ROOT, kernel.DELETE, 0, b"f")) == [
        ("entry", b"f", None)
    ]
    assert folding.fold.fresh == {}


def test_a_file_move_is_paired_by_its_cookie() -> None:
    """Not necessarily adjacent, and across reads."""
    folding = Folding()
    assert folding.take(
        (ROOT, kernel.MOVED_FROM, 9, b"a"), (SUB, kernel.CLOSE_WRITE, 0, b"x")
    ) == [
        ("entry", b"a", None),
        ("entry", b"sub/x", None),
    ]
    assert folding.take((SUB, kernel.MOVED_TO, 9, b"b")) == [("entry", b"sub/b", b"a")]
    assert folding.directories.diary == []


def test_half_a_move_has_no_origin() -> None:
    """From outside, or the waiting was given up."""
    folding = Folding()
    folding.take((ROOT, kernel.MOVED_FROM, 9, b"a"))
    folding.fold.age(10.5)
    assert folding.take((SUB, kernel.MOVED_TO, 9, b"b")) == [("entry", b"sub/b", None)]


def test_a_directory_move_is_a_tree_at_both_ends() -> None:
    """The deletion of a whole subtree is known, and so is its arrival."""
    folding = Folding()
    assert folding.take(
        (ROOT, kernel.MOVED_FROM | DIR, 9, b"d"),
        (SUB, kernel.MOVED_TO | DIR, 9, b"e"),
        (7, kernel.MOVE_SELF, 0, b""),
    ) == [("tree", b"d", None), ("tree", b"sub/e", b"d")]
    assert folding.directories.diary == [("came", SUB, b"e", True, b"d"), ("moved", 7)]


def test_a_new_directory_is_journaled_and_told() -> None:
    """The Watcher adds the watch and scans."""
    folding = Folding()
    assert folding.take((ROOT, kernel.CREATE | DIR, 0, b"d")) == [("entry", b"d", None)]
    assert folding.directories.diary == [("came", ROOT, b"d", False, None)]


def test_events_of_a_directory_without_a_path_are_dropped_but_its_directories_told() -> None:
    """It was moved out; should it come back, its new directories must be looked for."""
    folding = Folding()
    assert (
        folding.take((99, kernel.CLOSE_WRITE, 0, b"f"), (99, kernel.CREATE | DIR, 0, b"d")) == []
    )
    assert folding.directories.diary == [("missed", 99)]


def test_paths_follow_a_rename_within_one_buffer() -> None:
    """A path remembered for speed is forgotten when a directory moves."""
    folding = Folding()

    class Renaming(FakeDirectories):
        def directory_came(
            self, wd: int, name: bytes, *, moved: bool, origin: bytes | None
        ) -> None:
            self.paths[SUB] = name

    folding.fold._surroundings = Renaming()
    assert folding.take(
        (SUB, kernel.CLOSE_WRITE, 0, b"f"),
        (ROOT, kernel.MOVED_FROM | DIR, 5, b"sub"),
        (ROOT, kernel.MOVED_TO | DIR, 5, b"new"),
        (SUB, kernel.CLOSE_WRITE, 0, b"g"),
    ) == [
        ("entry", b"new/g", None),
        ("entry", b"sub/f", None),
        ("tree", b"new", b"sub"),
        ("tree", b"sub", None),
    ]


def test_cookies_are_told_in_order_and_never_journaled() -> None:
    """They are marks in the queue, not files of the tree."""
    folding = Folding()
    assert (
        folding.take(
            (COOKIES, kernel.CREATE, 0, b"flush-2"), (COOKIES, kernel.ATTRIB, 0, b"flush-1")
        )
        == []
    )
    assert folding.fold.cookies == [b"flush-2", b"flush-1"]


def test_an_overflow_is_told_and_the_rest_is_folded() -> None:
    """What came through is good; what did not is the catch-up's."""
    folding = Folding()
    assert folding.take((-1, kernel.OVERFLOW, 0, b""), (ROOT, kernel.CLOSE_WRITE, 0, b"f")) == [
        ("entry", b"f", None)
    ]
    assert folding.fold.overflowed


def test_an_unmount_is_no_deletion() -> None:
    """The watch ends; nothing is journaled."""
    folding = Folding()
    assert folding.take((SUB, kernel.UNMOUNT, 0, b""), (SUB, kernel.IGNORED, 0, b"")) == []
    assert folding.directories.diary == [("ended", SUB, True), ("ended", SUB, False)]


def test_decoding_keeps_names_byte_for_byte() -> None:
    """Padding goes, everything else stays; an event without a name has none."""
    buffer = (
        b"\x02\0\0\0\x08\0\0\0\0\0\0\0\x10\0\0\0" + b"\xff a\n".ljust(16, b"\0")
        + b"\xff\xff\xff\xff\0\x40\0\0\0\0\0\0\0\0\0\0"
    )  # fmt: skip
    assert kernel.decode(buffer) == [
        (2, kernel.CLOSE_WRITE, 0, b"\xff a\n"),
        (-1, kernel.OVERFLOW, 0, b""),
    ]
