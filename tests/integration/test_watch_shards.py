"""Several Watchers on one tree, the Plan changing under them, watches running out, slots."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.journal.plan import Plan, PlanState, write_plan
from shardsync.model import ShardState
from shardsync.watch import catching_up, polling
from shardsync.watch.assemble import prefixes_of
from shardsync.watch.polling import POLL_SECONDS
from tests.support.slots import Programs
from tests.support.watching import Watching, planned

ALL = planned(0, (b"",))
NEWS = planned(1, (b"news", b"a/deep"))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Watching, Watching]]:
    """Shard 0 has the tree less `news` and `a/deep`, which Shard 1 has."""
    whole = Watching(tmp_path, shard=ALL, others=(NEWS,))
    news = Watching(tmp_path, shard=NEWS, others=(ALL,))
    for name in ("news/2024", "a/deep/x", "a/b"):
        (whole.root / name).mkdir(parents=True)
    time.sleep(0.15)
    whole.start()
    news.start()
    yield whole, news
    whole.close()
    news.close()


def test_each_path_has_one_owner(pair: tuple[Watching, Watching]) -> None:
    """The longest listed prefix decides, in one tree with nested prefixes."""
    whole, news = pair
    for name in ("news/f", "news/2024/f", "a/deep/x/f", "a/f", "a/b/f"):
        (whole.root / name).write_text("x")
    assert whole.paths() == {b"a/f", b"a/b/f"}
    assert news.paths() == {b"news/f", b"news/2024/f", b"a/deep/x/f"}


def test_a_prefix_removed_and_made_again_is_picked_up(pair: tuple[Watching, Watching]) -> None:
    """The parent's owner journals the name, the prefix's owner what is below the newcomer."""
    whole, news = pair
    shutil.rmtree(whole.root / "news")
    assert b"news" in whole.paths()
    news.seen()
    (whole.root / "news/2025").mkdir(parents=True)
    (whole.root / "news/2025/f").write_text("x")
    assert whole.seen() == {("entry", b"news")}
    time.sleep(1.1)
    assert ("tree", b"news") in news.seen()
    (whole.root / "news/2025/g").write_text("x")
    assert news.seen() == {("entry", b"news/2025/g")}


def test_a_prefix_replaced_by_another_directory_is_followed(
    pair: tuple[Watching, Watching],
) -> None:
    """A release swapped in by two renames: the old inode is let go of."""
    whole, news = pair
    (whole.folder / "next/2026").mkdir(parents=True)
    os.rename(whole.root / "news", whole.folder / "gone")
    os.rename(whole.folder / "next", whole.root / "news")
    time.sleep(1.1)
    assert ("tree", b"news") in news.seen()
    (whole.root / "news/2026/f").write_text("x")
    (whole.folder / "gone/2024/f").write_text("x")
    assert news.seen() == {("entry", b"news/2026/f")}


def test_a_prefix_moved_below_another_of_the_same_shard_is_still_watched(
    pair: tuple[Watching, Watching],
) -> None:
    """It is no prefix any more, and what happens in it is this Shard's business all the same."""
    whole, news = pair
    os.rename(whole.root / "news", whole.root / "a/deep/moved")
    news.seen()
    time.sleep(1.1)
    news.seen()
    time.sleep(1.1)
    news.seen()
    (whole.root / "a/deep/moved/f").write_text("x")
    (whole.root / "a/deep/moved/2024/f").write_text("x")
    assert news.paths() == {b"a/deep/moved/f", b"a/deep/moved/2024/f"}


def test_a_flush_waits_for_a_prefix_that_was_replaced_just_before(
    pair: tuple[Watching, Watching],
) -> None:
    """No event tells the owner of the newcomer, so it looks before it acknowledges."""
    whole, news = pair
    (whole.folder / "next").mkdir()
    os.rename(whole.root / "news", whole.folder / "gone")
    os.rename(whole.folder / "next", whole.root / "news")
    assert news.watcher is not None
    news.watcher._last_look = time.monotonic() + 1000.0
    news.touch("flush-1")
    news.quiet()
    told = [change.position for change in news.changes() if change.path == b"news"]
    assert told
    assert news.cookies()["flush-1"] >= told[0]


@pytest.mark.fault("renamed-across-shards")
def test_a_move_between_shards_is_seen_by_both(pair: tuple[Watching, Watching]) -> None:
    """One journals the going, the other the coming, each as `tree`."""
    whole, news = pair
    os.rename(whole.root / "a/b", whole.root / "news/b")
    assert whole.seen() == {("tree", b"a/b")}
    assert ("tree", b"news/b") in news.seen()
    (whole.root / "news/b/f").write_text("x")
    assert whole.seen() == set()
    assert news.seen() == {("entry", b"news/b/f")}


def test_what_the_plan_took_away_while_down_has_not_gone(tmp_path: Path) -> None:
    """It is remembered and watched no more, and nobody is to compare it for that."""
    alone = Watching(tmp_path)
    for name in ("news/2024", "a/deep/x", "gone"):
        (alone.root / name).mkdir(parents=True)
    time.sleep(0.15)
    alone.start()
    assert alone.stop()
    alone.changes()
    shutil.rmtree(alone.root / "gone")
    alone.others = (NEWS,)
    alone.start()
    assert {c.path for c in alone.changes() if c.scope.name == "TREE"} == {b"gone"}
    alone.close()


def test_a_prefix_whose_attributes_changed_is_journaled_by_its_owner(
    pair: tuple[Watching, Watching],
) -> None:
    """The owner of the directory above may be down, and its catch-up enters no other's prefix."""
    whole, news = pair
    assert whole.stop()
    news.seen()
    (whole.root / "news").chmod(0o700)
    whole.start()
    assert b"news" in news.paths() | {c.path for c in whole.changes()}


def test_a_prefix_that_went_and_came_back_is_watched_before_a_flush(
    pair: tuple[Watching, Watching],
) -> None:
    """Its watch was left when it went, and tells nothing from then on."""
    whole, news = pair
    os.rename(whole.root / "news", whole.folder / "aside")
    news.tick()
    os.rename(whole.folder / "aside", whole.root / "news")
    news.tick()
    (whole.root / "news/2024/f").write_text("x")
    news.touch("flush-1")
    for _ in range(100):
        news.tick()
        if news.cookies():
            break
    assert {c.path for c in news.changes()} & {b"news", b"news/2024/f"}
    (whole.root / "news/2024/g").write_text("x")
    assert b"news/2024/g" in news.paths()


def test_a_directory_taken_for_one_just_made_still_carries_a_foreign_prefix_away(
    pair: tuple[Watching, Watching],
) -> None:
    """It was renamed over the new one before that one's own event was read."""
    whole, _ = pair
    (whole.root / "b").mkdir()
    os.rename(whole.root / "a", whole.root / "b")
    whole.quiet()
    (whole.root / "b/deep/x/f").write_text("x")
    assert b"b/deep/x/f" in whole.paths()


def test_a_subtree_that_carries_a_foreign_prefix_away_is_watched_whole(
    pair: tuple[Watching, Watching],
) -> None:
    """At its new place `deep` is no listed prefix any more, so the mover's owner has it."""
    whole, news = pair
    os.rename(whole.root / "a", whole.root / "c")
    whole.seen()
    time.sleep(1.1)
    news.quiet()
    (whole.root / "c/deep/x/f").write_text("x")
    assert whole.seen() == {("entry", b"c/deep/x/f")}
    assert news.paths().isdisjoint({b"a/deep/x/f"})


def test_a_new_owner_and_the_old_one_both_observe_until_the_plan_says_so(tmp_path: Path) -> None:
    """During a re-plan a prefix has at least one observer; afterwards exactly one."""
    moving = planned(1, (b"news",), state=PlanState.NEW, since_us=time.time_ns() // 1000)
    active = planned(1, (b"news",))
    old = Watching(tmp_path, shard=ALL, others=(moving,))
    (old.root / "news").mkdir(parents=True)
    old.start()
    new = Watching(tmp_path, shard=moving, others=(ALL,)).start()
    old.seen()
    new.seen()
    (old.root / "news/both").write_text("x")
    assert old.paths() == {b"news/both"}
    assert new.paths() == {b"news/both"}
    assert new.epochs() == ["first_start"]
    plan = Plan(generation=2, shards=(ALL, active))
    assert old.watcher is not None
    assert new.watcher is not None
    old.watcher.follow(ALL, generation=2, prefixes=prefixes_of(plan, ALL))
    new.watcher.follow(active, generation=2, prefixes=prefixes_of(plan, active))
    (old.root / "news/one").write_text("x")
    assert old.paths() == set()
    assert new.paths() == {b"news/one"}
    assert old.progress().generation == 2
    back = Plan(generation=3, shards=(ALL,))
    (old.root / "news/unseen").mkdir()
    old.watcher.follow(ALL, generation=3, prefixes=prefixes_of(back, ALL))
    assert ("tree", b"news") in old.seen()
    (old.root / "news/unseen/f").write_text("x")
    assert old.seen() == {("entry", b"news/unseen/f")}
    old.close()
    new.close()


class Limit:
    """inotify_add_watch with a limit of our own: the machine's is everybody's."""

    def __init__(self, *, real: object, left: int) -> None:
        self.left = left
        self._real = real
        self._given: set[int] = set()

    def __call__(self, fd: int, path: bytes, mask: int) -> int:
        wd: int = self._real(fd, path, mask)  # type: ignore[operator]
        if wd < 0 or wd in self._given:
            return wd
        if self.left <= 0:
            libc = ctypes.CDLL(None)
            libc.inotify_rm_watch(fd, wd)
            ctypes.set_errno(errno.ENOSPC)
            return -1
        self.left -= 1
        self._given.add(wd)
        return wd


def test_a_flush_touched_before_watches_ran_out_waits_for_a_poll(tmp_path: Path) -> None:
    """The scan that was open may have passed a directory without a watch before it changed."""
    watching = Watching(tmp_path)
    for number in range(3000):
        (watching.root / f"d{number}").mkdir(parents=True)
    time.sleep(0.15)
    watcher = watching.begin()
    watcher._inotify._add_watch = Limit(real=watcher._inotify._add_watch, left=2)  # type: ignore[assignment]
    for _ in range(1000):
        if watcher._scanner.polled > 1000:
            break
        watching.tick(0)
    assert watcher._scanner.is_open
    for number in range(3000):
        (watching.root / f"d{number}/f").write_text("x")
    watching.touch("flush-1")
    watching.quiet()
    changes = watching.changes()
    answered = watching.cookies()["flush-1"]
    assert {b"d%d/f" % n for n in range(3000)} <= {
        c.path for c in changes if c.position <= answered
    }
    watching.close()


def test_what_cannot_be_watched_is_polled_until_it_can(tmp_path: Path) -> None:
    """Counted, found by the next poll, at once for a flush, and healed when watches are back."""
    watching = Watching(tmp_path)
    for number in range(10):
        (watching.root / f"d{number}/e").mkdir(parents=True)
    time.sleep(0.15)
    watcher = watching.begin()
    limit = Limit(real=watcher._inotify._add_watch, left=6)
    watcher._inotify._add_watch = limit  # type: ignore[assignment]
    watching.quiet()
    progress = watching.progress()
    assert progress.state is ShardState.POLLING
    assert progress.polled_directories + progress.watches == 21
    assert progress.polled_directories > 0
    watching.seen()
    for number in range(10):
        (watching.root / f"d{number}/e/f").write_text("x")
    watching.touch("flush-poll")
    watching.quiet()
    assert {b"d%d/e/f" % number for number in range(10)} <= watching.paths()
    assert "flush-poll" in watching.cookies()
    # Gone when one poll looks, back at its old place when the next one does.
    os.rename(watching.root / "d9/e", tmp_path / "away")
    watcher._polling.last = -POLL_SECONDS
    assert ("listing", b"d9") in watching.seen()
    os.rename(tmp_path / "away", watching.root / "d9/e")
    watcher._polling.last = -POLL_SECONDS
    assert ("tree", b"d9/e") in watching.seen()
    limit.left = 100
    watcher._polling.last = -POLL_SECONDS
    watching.quiet()
    healed = watching.progress()
    assert (healed.state, healed.polled_directories) == (ShardState.FOLLOWING, 0)
    watching.seen()
    for number in range(10):
        (watching.root / f"d{number}/e/g").write_text("x")
    assert watching.paths() == {b"d%d/e/g" % number for number in range(10)}
    watching.close()


def test_prefixes_without_watches_are_polled_and_come_to_rest(tmp_path: Path) -> None:
    """They are there, so they are no newcomers to be scanned again and again."""
    names = [b"p%d" % number for number in range(20)]
    watching = Watching(tmp_path, shard=planned(1, tuple(names)), others=(planned(0),))
    for name in names:
        (watching.root / os.fsdecode(name) / "k").mkdir(parents=True)
    time.sleep(0.15)
    watcher = watching.begin()
    watcher._inotify._add_watch = Limit(real=watcher._inotify._add_watch, left=6)  # type: ignore[assignment]
    watching.quiet()
    watching.seen()
    (watching.root / "p19/k/f").write_text("x")
    watching.touch("flush-1")
    watching.quiet()
    assert "flush-1" in watching.cookies()
    seen = watching.seen()
    assert ("entry", b"p19/k/f") in seen
    assert "tree" not in {scope for scope, _ in seen}
    for _ in range(3):
        watcher._last_look = -100.0
        assert watching.seen() == set()
    watching.close()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    programs = Programs(tmp_path)
    programs.prepare()
    yield programs
    programs.end()


def test_a_slot_sleeps_until_it_is_assigned_a_shard_and_when_it_is_retired(
    programs: Programs,
) -> None:
    """Free in under 10 MB, following soon after the Plan says so, free again afterwards."""
    slot = programs.start(0)
    programs.log_has("slot.free")
    status = Path(f"/proc/{slot.pid}/status").read_text().splitlines()
    anonymous = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    assert anonymous < 10_000
    write_plan(programs.state.plan, Plan(generation=1, shards=(ALL,)))
    programs.log_has("scan.done")
    (programs.folder / "tree/a/f").write_text("x")
    programs.journaled(b"a/f")
    retired = planned(0, (b"",), state=PlanState.RETIRED)
    write_plan(programs.state.plan, Plan(generation=2, shards=(retired,)))
    (programs.state.cookies / "plan-2").touch()
    programs.log_has("watcher.stopped")
    slot.send_signal(signal.SIGTERM)
    assert slot.wait(20) == 0


@pytest.mark.fault("second-instance")
def test_a_second_copy_of_a_slot_waits_and_takes_over(programs: Programs) -> None:
    """An orphan of a killed supervisord and its successor never write side by side."""
    write_plan(programs.state.plan, Plan(generation=1, shards=(ALL,)))
    first = programs.start(0)
    programs.log_has("scan.done")
    second = programs.start(0)
    programs.log_has("slot.waits")
    first.kill()
    first.wait(10)
    (programs.folder / "tree/a/while-none").write_text("x")
    programs.journaled(b"a/while-none")
    assert second.poll() is None
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    programs.log_has("clean=True")


def test_a_shard_of_many_prefixes_opens_few_of_them_at_once(tmp_path: Path) -> None:
    """400 prefixes with 150 open files to be had: all are watched by the first pass."""
    names = [f"d{number:03d}" for number in range(400)]
    many = planned(1, tuple(os.fsencode(name) for name in names))
    watching = Watching(tmp_path, shard=many, others=(ALL,))
    for name in names:
        (watching.root / name / "x").mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 150, hard))
    try:
        watching.start()
        assert watching.progress().directories == 800
        assert watching.progress().state is ShardState.FOLLOWING
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        watching.close()


class Refusing:
    """inotify_add_watch that refuses one path, as for want of permission."""

    def __init__(self, *, real: object, path: bytes) -> None:
        self.path: bytes | None = path
        self._real = real

    def __call__(self, fd: int, path: bytes, mask: int) -> int:
        if os.path.realpath(path) == self.path:
            ctypes.set_errno(errno.EACCES)
            return -1
        wd: int = self._real(fd, path, mask)  # type: ignore[operator]
        return wd


@pytest.mark.fault("source-closed")
def test_a_directory_that_cannot_be_entered_is_tried_again(tmp_path: Path) -> None:
    """It delays only itself; once it can be entered, all of it is journaled and watched."""
    watching = Watching(tmp_path)
    (watching.root / "closed/x").mkdir(parents=True)
    (watching.root / "open").mkdir()
    time.sleep(0.15)
    watcher = watching.begin()
    refusing = Refusing(
        real=watcher._inotify._add_watch, path=os.fsencode(watching.root / "closed")
    )
    watcher._inotify._add_watch = refusing  # type: ignore[assignment]
    watching.quiet()
    (watching.root / "open/f").write_text("x")
    assert b"open/f" in watching.paths()
    refusing.path = None
    (watching.root / "closed").chmod(0o755)
    watcher._polling.last = -POLL_SECONDS
    watching.quiet()
    assert ("tree", b"closed") in watching.seen()
    (watching.root / "closed/x/f").write_text("x")
    assert watching.seen() == {("entry", b"closed/x/f")}
    watching.close()


def test_what_changed_while_a_directory_could_not_be_entered_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next flush, by a catch-up, and by the next start; however long ago it was."""
    monkeypatch.setattr(polling, "MARGIN_US", 0)
    monkeypatch.setattr(catching_up, "MARGIN_US", 0)
    watching = Watching(tmp_path)
    (watching.root / "closed/x").mkdir(parents=True)
    time.sleep(0.15)
    watching.start()
    for how in ("flush", "catch-up", "start"):
        assert watching.stop()
        (watching.root / "closed/x/f").write_text(how)
        watcher = watching.begin()
        real = watcher._inotify._add_watch
        refusing = Refusing(real=real, path=os.fsencode(watching.root / "closed"))
        watcher._inotify._add_watch = refusing  # type: ignore[assignment]
        watching.quiet()
        time.sleep(0.15)
        watcher._last_heartbeat = -1000.0
        assert b"closed/x/f" not in watching.paths()
        refusing.path = None
        if how == "flush":
            watching.touch("flush-1")
        elif how == "catch-up":
            watcher._fold.overflowed = True
        else:
            assert watching.stop()
            (watching.root / "closed").chmod(0o755)  # what let it be entered
            watching.start()
        assert ("tree", b"closed") in watching.seen(), how
    assert watching.cookies().keys() == {"flush-1"}
    watching.close()
