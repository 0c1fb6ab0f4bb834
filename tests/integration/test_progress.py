"""The first scan of a large tree is seen: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.cli.live import LiveView, Spoken
from shardsync.control.processes import end, find
from shardsync.journal.writer import JournalWriter
from shardsync.layout import StateDirectory
from shardsync.model import NodeState, ShardState
from shardsync.observe.liveness import Liveness
from shardsync.observe.reader import StatusReader
from tests.support.clock import FakeClock
from tests.support.instance import HandMade
from tests.support.instances import Instance, instance
from tests.support.terminal import Terminal, terminal

KEY = ("main", "web1")
ALL_LOCKS = ("instance", "sync", "journal-main-00")
MAIN = ("-m", "shardsync.cli.main")
AFTER_UP = (
    "-c",
    """
import os
from shardsync.cli.invocation import Invocation
from shardsync.cli.lifecycle import _show_scan
from shardsync.clock import SystemClock
clock = SystemClock()
_show_scan(Invocation(config=None, env=os.environ, clock=clock), clock.monotonic())
""",
)
"""What `up` does once the programs run."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HandMade]:
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    yield instance
    instance.close()


@pytest.fixture(name="instance")
def real_instance() -> Iterator[Instance]:
    # Not tmp_path: the state directory must leave room for a unix socket.
    with tempfile.TemporaryDirectory(prefix="ss-") as name, instance(Path(name), shards=1) as real:
        yield real
        for path in Path(name).glob("home/shardsync/mirror-*"):
            end(find(StateDirectory(path=path)), StateDirectory(path=path), term_seconds=5)


def scanning(made: HandMade, done: int = 430_000) -> JournalWriter:
    """A Shard that has scanned so many of a million directories, a Node half-way."""
    journal = made.add_shard()
    made.hold(*ALL_LOCKS)
    state = made.open_state()
    state.know_node(KEY)
    state.set_node(KEY, state=NodeState.BOOTSTRAPPING, contacted=True, progress=0.5)
    go_on(journal, done)
    return journal


def go_on(journal: JournalWriter, done: int, state: ShardState = ShardState.SCANNING) -> None:
    journal.commit(
        [],
        progress={
            "state": state,
            "scan_done": done,
            "scan_total": 1_000_000,
            "directories": done,
            "pid": os.getpid(),
        },
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def on_a_terminal(made: HandMade, *words: str) -> Iterator[Terminal]:
    with terminal([sys.executable, *words], cwd=made.folder, env=environment()) as shown:
        yield shown


def elsewhere(made: HandMade, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=made.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_up_shows_a_bar_until_all_is_watched(made: HandMade) -> None:
    """How much, how far, and at the end how many directories; the exit code is 0."""
    journal = scanning(made)
    for shown in on_a_terminal(made, *AFTER_UP):
        text = shown.wait_for("430,000 of 1,000,000 directories")
        assert "43%" in text
        assert "━" in text
        go_on(journal, 900_000)
        shown.wait_for("90%")
        go_on(journal, 1_001_011, ShardState.FOLLOWING)
        assert shown.end() == 0
        assert "watching 1,001,011 directories after " in shown.text()


def test_ctrl_c_ends_the_bar_alone(made: HandMade) -> None:
    """`up` has done its work: exit code 0, and where the rest is to be seen."""
    scanning(made)
    for shown in on_a_terminal(made, *AFTER_UP):
        shown.wait_for("43%")
        shown.interrupt()
        assert shown.end() == 0
        assert "the scan goes on" in shown.text()


def test_a_shard_that_does_not_come_to_watch_is_named(made: HandMade) -> None:
    """Nothing is waited for in vain."""
    go_on(scanning(made), 5, ShardState.HALTED)
    for shown in on_a_terminal(made, *AFTER_UP):
        assert shown.end() == 0
        assert "shard main-00 is halted" in shown.text()


def test_a_watcher_that_cannot_start_is_not_waited_for(made: HandMade) -> None:
    """Why is told instead; it tries again by itself."""
    journal = scanning(made)
    why = "no inotify instance is left"
    journal.commit([], progress={"state": ShardState.STARTING, "last_error": why})
    for shown in on_a_terminal(made, *AFTER_UP):
        assert shown.end() == 0
        assert f"shard main-00: {why}" in shown.text()


def test_what_is_polled_is_told_at_the_end(made: HandMade) -> None:
    """With the way to find out why."""
    journal = scanning(made)
    polling = {"state": ShardState.POLLING, "directories": 2000, "polled_directories": 1500}
    journal.commit([], progress=polling)
    for shown in on_a_terminal(made, *AFTER_UP):
        assert shown.end() == 0
        assert "watching 500 directories after " in shown.text()
        assert "1,500 directories more without a watch, polled instead" in shown.text()


def test_top_and_mirror_show_the_pace_too(made: HandMade) -> None:
    """Directories a second, and how long it will take; the bar goes when the scan is over."""
    journal = scanning(made, done=100_000)
    for shown in on_a_terminal(made, *MAIN, "top"):
        shown.wait_for("10%  100,000 of 1,000,000 directories")
        go_on(journal, 900_000)
        text = shown.wait_for("90%  900,000 of 1,000,000 directories, ")
        text = shown.wait_for("/s, ")
        assert " left" in text
        go_on(journal, 1_000_000, ShardState.FOLLOWING)
        shown.wait_for("following")
        shown.interrupt()
        assert shown.end() == 130


@pytest.mark.parametrize(("tree", "shards"), [(None, 1), ("main", 1), ("docs", 0)])
def test_top_shows_one_tree_of_several(made: HandMade, tree: str | None, shards: int) -> None:
    """With --tree what belongs to others is left out."""
    scanning(made)
    reader = StatusReader(
        state=made.state, settings=None, clock=made.clock, liveness=Liveness(state=made.state)
    )
    shown = LiveView(reader=reader, clock=made.clock, tree=tree).follow(lambda _: True)
    assert (len(shown.shards), len(shown.nodes)) == (shards, shards)


def test_a_real_up_on_a_terminal_ends_when_all_is_watched(instance: Instance) -> None:
    """And elsewhere it returns at once, without a word of it."""
    for number in range(20):
        (instance.root / f"d{number}").mkdir()
    argv = [sys.executable, *MAIN, "up", "--config", str(instance.config)]
    with terminal(argv, cwd=instance.folder, env=environment()) as shown:
        assert shown.end(seconds=60) == 0
        assert "watching 21 directories after " in shown.text()
    instance.lifecycle().down()
    done = subprocess.run(argv, env=environment(), capture_output=True, timeout=60, check=True)
    assert b"watching" not in done.stdout + done.stderr
    instance.lifecycle().down()
    with terminal([*argv, "--no-wait"], cwd=instance.folder, env=environment()) as shown:
        assert shown.end(seconds=60) == 0
        assert "watching" not in shown.text()


def test_a_real_mirror_on_a_terminal(instance: Instance, tmp_path: Path) -> None:
    """The live table until Ctrl-C; `--once` ends by itself."""
    (instance.root / "page").write_text("x")
    env = {**environment(), "XDG_STATE_HOME": str(instance.folder / "home")}
    argv = [sys.executable, *MAIN, "mirror", str(instance.root), str(instance.node)]
    with terminal([*argv, "--once"], cwd=instance.folder, env=env) as shown:
        assert shown.end(seconds=90) == 0
        assert "up to date after " in shown.text()
    with terminal(argv, cwd=instance.folder, env=env) as shown:
        shown.wait_for("following", seconds=90)
        shown.interrupt()
        assert shown.end(seconds=90) == 0
        assert "the next run goes on from there" in shown.text()


def test_status_shows_a_bar_for_each_scan_and_bootstrap(made: HandMade) -> None:
    """On a terminal."""
    scanning(made)
    for shown in on_a_terminal(made, *MAIN, "status"):
        assert shown.end() == 0
        lines = shown.text().splitlines()
        assert any("main-00" in line and "scanning 43%" in line for line in lines)
        (scan,) = [line for line in lines if line.startswith("scan main-00")]
        assert "━" in scan
        assert "43%  430,000 of 1,000,000 directories" in scan
        (bootstrap,) = [line for line in lines if line.startswith("bootstrap web1")]
        assert bootstrap.rstrip().endswith("50%")


def test_status_says_it_in_a_line_elsewhere(made: HandMade) -> None:
    """No bar, no escape sequence."""
    scanning(made)
    done = elsewhere(made, *MAIN, "status")
    assert done.returncode == 0
    assert "shard main-00 scanning 43% program=" in done.stdout
    assert "node main/web1 bootstrapping 50% lag=" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "━" not in done.stdout


def test_an_estimate_that_was_too_low_never_says_done(made: HandMade) -> None:
    """An open scan is at most at 99%: `up`, and who reads the metric, wait for its end."""
    go_on(scanning(made), 2_000_000)
    assert "shard main-00 scanning 99% " in elsewhere(made, *MAIN, "status").stdout


def test_a_watcher_that_has_not_written_yet_is_starting(made: HandMade) -> None:
    """What the one before it left is not its state: `up` would stop showing at once."""
    journal = scanning(made)
    for left in (
        {"state": ShardState.STOPPED, "pid": 0},
        {"state": ShardState.FOLLOWING, "pid": 1},
    ):
        journal.commit([], progress=left)
        assert "shard main-00 starting " in elsewhere(made, *MAIN, "status").stdout


def test_a_live_line_tells_of_progress_every_five_seconds(made: HandMade) -> None:
    """What stands still is told once a minute."""
    journal = scanning(made)
    said: list[str] = []
    spoken = Spoken(clock=made.clock, tell=said.append)
    reader = StatusReader(
        state=made.state, settings=None, clock=made.clock, liveness=Liveness(state=made.state)
    )

    def shown(seconds: float) -> list[str]:
        made.clock.advance(seconds)
        said.clear()
        spoken.show(reader.read())
        return [line.partition(" program")[0] for line in said if line.startswith("shard")]

    assert shown(0) == ["shard main-00 scanning 43%"]
    go_on(journal, 500_000)
    assert shown(3) == []
    assert shown(3) == ["shard main-00 scanning 50%"]
    assert shown(3) == []
    go_on(journal, 1_000_000, ShardState.FOLLOWING)
    assert shown(0) == ["shard main-00 following"]
    assert shown(6) == []
    reader.close()
