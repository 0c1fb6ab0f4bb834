"""What falls between two steps of a Watcher: between a read and its commit, or under a scan."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardsync.watch.watcher import Watcher
from tests.support.clock import ShiftedClock
from tests.support.queue import small_queue
from tests.support.watching import Watching

HOUR_US = 3_600_000_000
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """Two directories of old subdirectories of the same names, not watched yet."""
    watching = Watching(tmp_path, clock=ShiftedClock())
    for top in ("p", "q"):
        for name in ("one", "two", "three"):
            (watching.root / top / name).mkdir(parents=True)
            (watching.root / top / name / "old").write_text("old")
    (tmp_path / "outside").mkdir()
    time.sleep(0.15)
    yield watching
    watching.close()


def exchange(one: Path, other: Path) -> None:
    """Swap two names in one step, as `mv --exchange`."""
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    assert ctypes.CDLL(None).renameat2(*paths, _RENAME_EXCHANGE) == 0


def once_after_a_read(watcher: Watcher, act: Callable[[], object]) -> None:
    """`act` between the next read that brings events and whatever follows it."""
    read = watcher._inotify.read
    acted: list[object] = []

    def read_and_act() -> bytes:
        buffer = read()
        if buffer and not acted:
            acted.append(act())
            time.sleep(0.001)
        return buffer

    watcher._inotify.read = read_and_act  # type: ignore[method-assign]


def once_before_a_watch(watcher: Watcher, below: Path, act: Callable[[], object]) -> list[object]:
    """`act` before the next watch below a directory is added; the list tells when it was."""
    real = watcher._inotify._add_watch
    acted: list[object] = []

    def act_and_add(fd: int, path: bytes, mask: int) -> int:
        # A bare name, or one by a descriptor.
        if not acted and os.path.realpath(path).startswith(os.fsencode(below) + b"/"):
            acted.append(act())
        wd: int = real(fd, path, mask)
        return wd

    watcher._inotify._add_watch = act_and_add  # type: ignore[assignment]
    return acted


def test_a_file_written_again_right_after_its_event_was_read_is_found(watching: Watching) -> None:
    """Journaled with the time of the read's end, it is not taken for journaled up to then."""
    watcher = watching.start().watcher
    assert watcher is not None
    file = watching.root / "p/one/old"
    file.write_text("first")
    once_after_a_read(watcher, lambda: file.write_text("second"))
    while not watching.changes():
        watching.tick()
    watching.drop()
    watching.start()
    assert b"p/one/old" in watching.paths()


def test_what_was_journaled_by_a_clock_that_was_set_back_hides_nothing(
    watching: Watching,
) -> None:
    """It seems to have been journaled after what changes now."""
    assert isinstance(watching.clock, ShiftedClock)
    watching.clock.ahead_us = HOUR_US
    watcher = watching.start().watcher
    assert watcher is not None
    (watching.root / "p/one/old").write_text("first")
    assert b"p/one/old" in watching.paths()
    watching.clock.ahead_us = 0
    for _ in range(2):  # heartbeats: the new clock is known, and no reason to compare all
        watcher._last_heartbeat = -1000.0
        watching.quiet()
    watching.drop()
    (watching.root / "p/one/old").write_text("second")
    watching.start()
    assert b"p/one/old" in watching.paths()


@pytest.mark.root
def test_a_heartbeat_behind_an_overflow_does_not_move_the_watermark(watching: Watching) -> None:
    """What was dropped came before it, and is looked for from before that."""
    many = [watching.root / f"p/one/{number}" for number in range(100)]
    for file in many:
        file.touch()
    with small_queue():
        watcher = watching.begin()
    watching.quiet()
    time.sleep(0.2)
    began_us = watching.clock.wall_us()
    for file in many:
        file.chmod(0o600)
    time.sleep(0.2)
    read = watcher._inotify.read

    def read_with_a_heartbeat() -> bytes:
        buffer = read()
        watcher._cookies.touch_heartbeat()
        return buffer + read()

    watcher._inotify.read = read_with_a_heartbeat  # type: ignore[method-assign]
    assert watching.tick().overflowed
    since = watcher._standing.watermark_us
    assert since is not None
    assert since < began_us


def test_directories_swapped_under_a_scan_are_watched(watching: Watching) -> None:
    """Their subdirectories have the same names, so no path of the scan leads nowhere."""
    tops = watching.root / "p", watching.root / "q"
    watcher = watching.begin()
    acted = once_before_a_watch(watcher, tops[0], lambda: exchange(*tops))
    watching.quiet()
    assert acted
    watching.changes()
    new = [top / name / "new" for top in tops for name in ("one", "two", "three")]
    for file in new:
        file.write_text("x")
    assert {os.fsencode(file.relative_to(watching.root)) for file in new} <= watching.paths()


def test_directories_swapped_there_and_back_under_a_scan_are_watched(watching: Watching) -> None:
    """Where they lie is where they were, and what the scan watched in between is not."""
    tops = watching.root / "p", watching.root / "q"
    watcher = watching.begin()
    there = once_before_a_watch(watcher, tops[0], lambda: exchange(*tops))
    step = watcher._scanner.step

    def step_and_swap_back(seconds: float) -> bool:
        done = step(seconds)
        if len(there) == 1:
            exchange(*tops)
            there.append(None)
        return done

    watcher._scanner.step = step_and_swap_back  # type: ignore[method-assign]
    watching.quiet()
    assert len(there) == 2
    watching.changes()
    new = [top / name / "new" for top in tops for name in ("one", "two", "three")]
    for file in new:
        file.write_text("x")
    assert {os.fsencode(file.relative_to(watching.root)) for file in new} <= watching.paths()


def test_a_scan_goes_on_under_the_new_name_of_its_directory(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed while it is listed, and another one in its place before the scan goes on."""
    monkeypatch.setattr("shardsync.watch.catching_up._STEP_SECONDS", 0.0)
    monkeypatch.setattr("shardsync.watch.scan._ENTRIES_A_LOOK", 1)
    outside = watching.folder / "outside/p"
    for name in ("one", "two", "three"):
        (outside / name).mkdir(parents=True)
    time.sleep(0.15)
    watcher = watching.begin()

    def replace() -> None:
        os.rename(watching.root / "p", watching.root / "renamed")
        os.rename(outside, watching.root / "p")

    acted = once_before_a_watch(watcher, watching.root / "p", replace)
    watching.quiet()
    assert acted
    watching.changes()
    tops = (watching.root / "p", watching.root / "renamed")
    new = [top / name / "new" for top in tops for name in ("one", "two", "three")]
    for file in new:
        file.write_text("x")
    assert {os.fsencode(file.relative_to(watching.root)) for file in new} <= watching.paths()


def test_a_directory_renamed_over_one_that_is_just_being_scanned_is_watched(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its subdirectories are listed as those of the one that it replaced, and not kept so."""
    monkeypatch.setattr("shardsync.watch.catching_up._STEP_SECONDS", 0.0)
    monkeypatch.setattr("shardsync.watch.scan._ENTRIES_A_LOOK", 1)
    outside = watching.folder / "outside/n"
    for name in ("one", "two", "three"):
        (outside / name).mkdir(parents=True)
    time.sleep(0.15)
    watcher = watching.start().watcher
    assert watcher is not None
    real = watcher._inotify._add_watch
    new = watching.root / "n"
    acted: list[object] = []

    def add_and_replace(fd: int, path: bytes, mask: int) -> int:
        is_new = os.path.realpath(path) == os.fsencode(new)
        wd: int = real(fd, path, mask)
        if is_new and not acted and len(calls) == 1:
            os.rename(outside, new)
            acted.append(path)
        calls.append(path)
        return wd

    calls: list[bytes] = []
    watcher._inotify._add_watch = add_and_replace  # type: ignore[assignment]
    new.mkdir()
    watching.quiet()
    assert acted
    for name in ("one", "two", "three"):
        (new / name / "new").write_text("x")
    assert {b"n/one/new", b"n/two/new", b"n/three/new"} <= watching.paths()


def test_what_went_from_a_directory_that_a_scan_found_gone_is_not_inherited(
    watching: Watching,
) -> None:
    """The scan was there before the events that tell of each entry; then it was made anew."""
    watcher = watching.start().watcher
    assert watcher is not None
    watching.changes()
    shutil.rmtree(watching.root / "p")
    for wd, _, _ in list(watcher._ledger._table._known()):
        watcher._territory.missed_directory(wd)
    watcher._territory.look_at_suspects()
    (watching.root / "p").mkdir()
    watching.quiet()
    assert b"p" in {c.path for c in watching.changes() if c.scope.name == "TREE"}
