"""Commands that wait: for every Watcher's word, then for the sync process's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from shardsync.cli.main import run
from shardsync.cli.since import Reach, Since, refuse_too_old
from shardsync.errors import SinceTooOld
from shardsync.journal import requests
from shardsync.journal.plan import Origin, Plan, PlannedShard, PlanState, write_plan
from shardsync.journal.requests import Request, RequestKind, RequestState
from shardsync.journal.state_writer import StateWriter
from shardsync.journal.writer import JournalWriter
from shardsync.model import JournalId, ShardId, ShardState
from tests.support.clock import FakeClock
from tests.support.instance import START, HandMade, change


class Daemons:
    """Plays the Watchers and the sync process: a thread that answers what it is told to."""

    def __init__(self, made: HandMade) -> None:
        self.made = made
        self.deaf: set[str] = set()
        self.seen: list[Request] = []
        self.exit_code = 0
        self.on_cookie: Callable[[], None] = lambda: None
        self._stop = threading.Event()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        # SQLite wants its connections used by the thread that opened them.
        state = StateWriter.open(self.made.state.state_db, clock=self.made.clock)
        self._is_ready.set()
        while not self._stop.wait(0.005):
            cookies = [path.name for path in self.made.state.cookies.iterdir()]
            if cookies:
                self._acknowledge(cookies)
                self.on_cookie()
            self._serve(state)
        state.close()

    def _acknowledge(self, cookies: list[str]) -> None:
        for shard in set(self.made.journals) - self.deaf:
            journal = JournalWriter.open(
                self.made.state.journal(shard),
                shard=ShardId(shard),
                tree="main",
                clock=self.made.clock,
            )
            journal.commit(cookies=cookies)
            journal.close()

    def _serve(self, state: StateWriter) -> None:
        for path, request in requests.receive(self.made.state.requests):
            assert isinstance(request, Request)
            self.seen.append(request)
            state.received.put(request.id, kind=request.kind, body="")
            state.received.answer(
                request.id,
                state=RequestState.FAILED if self.exit_code else RequestState.DONE,
                exit_code=self.exit_code,
                message="web1 (no route)" if self.exit_code else "",
                total=7,
            )
            path.unlink()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    for shard in ("main-00", "main-01"):
        journal = instance.add_shard(shard)
        journal.commit([change(b"a"), change(b"b", START + 1_000_000)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHARDSYNC_CONFIG", raising=False)
    yield instance
    instance.close()


def test_flush_hands_over_where_every_watcher_was(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sync process is asked for the Positions that the Watchers named, of all Shards."""
    made.hold("sync", "journal-main-00", "journal-main-01")
    with Daemons(made) as daemons:
        assert run(["flush", "--node", "web1"]) == 0
    (request,) = daemons.seen
    assert (request.kind, request.nodes) == (RequestKind.FLUSH, ("web1",))
    assert request.positions == {"main-00": START + 1, "main-01": START + 1}
    assert request.deadline_us is not None
    assert capsys.readouterr().out.startswith("flushed web1 in ")
    assert list(made.state.cookies.iterdir()) == []


def test_flush_names_the_shard_that_does_not_answer(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Watcher that is stuck makes flush end with 14 at its timeout; nothing is asked for."""
    made.hold("sync", "journal-main-00", "journal-main-01")
    daemons = Daemons(made)
    daemons.deaf.add("main-01")
    made.journals["main-01"].commit(progress={"state": ShardState.SCANNING})
    with daemons:
        assert run(["flush", "--timeout", "300ms"]) == 14
    assert "still waiting for shard main-01 (scanning)\n" in capsys.readouterr().err
    assert daemons.seen == []
    assert list(made.state.cookies.iterdir()) == []


def test_flush_begins_anew_when_the_plan_changes(made: HandMade) -> None:
    """A Shard that takes over while flush waits is waited for too: nothing slips between."""
    made.hold("sync", "journal-main-00", "journal-main-01")
    daemons = Daemons(made)
    daemons.deaf.add("main-01")
    rounds: list[int] = []

    def replan() -> None:
        if not rounds:
            new = PlannedShard(
                id=ShardId("main-01"), tree="main", slot=1, prefixes=(b"",),
                journal_id=JournalId("id-main-01"), made_by=Origin.REPLAN,
            )  # fmt: skip
            old = replace(made.planned[0], state=PlanState.RETIRED)
            write_plan(made.state.plan, Plan(generation=2, shards=(old, new)))
            daemons.deaf.clear()
        rounds.append(1)

    daemons.on_cookie = replan
    with daemons:
        assert run(["flush"]) == 0
    (request,) = daemons.seen
    assert request.positions == {"main-01": START + 1}


def test_flush_does_not_wait_for_a_shard_that_was_retired(made: HandMade) -> None:
    """A Watcher that the Plan lets go of never acknowledges: its successors are asked instead."""
    made.hold("sync", "journal-main-00", "journal-main-01")
    daemons = Daemons(made)
    daemons.deaf.add("main-01")

    def retire() -> None:
        old = replace(made.planned[1], state=PlanState.RETIRED)
        write_plan(made.state.plan, Plan(generation=2, shards=(made.planned[0], old)))

    daemons.on_cookie = retire
    with daemons:
        assert run(["flush", "--timeout", "30s"]) == 0
    (request,) = daemons.seen
    assert request.positions == {"main-00": START + 1}


def test_flush_gives_up_at_once_when_all_that_remains_is_stopped(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Watcher that an operator stopped does not come by waiting: 14 long before the timeout."""
    made.hold("sync", "journal-main-00")
    daemons = Daemons(made)
    daemons.deaf.add("main-01")
    with daemons:
        assert run(["flush", "--timeout", "1h"]) == 14
    assert "stopped or halted: shard main-01 (stopped)\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "flush",
        "pause web1",
        "resume web1",
        "reconcile",
        "reconcile --no-wait",
        f"replay --since main-00:{START}",
    ],
)
def test_what_needs_the_daemons_says_that_they_are_down(
    made: HandMade, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 16, and no request is left behind to surprise the next start."""
    assert run(command.split()) == 16
    assert capsys.readouterr().err == (
        f"shardsync: nothing runs in {made.state.path}\n  start them with `shardsync up`\n"
    )
    assert list(made.state.requests.iterdir()) == []


@pytest.mark.parametrize("code", [2, 14, 15])
def test_the_answer_decides_the_exit_code(
    made: HandMade, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed request ends the command with the code and the words of its answer."""
    made.hold("sync")
    daemons = Daemons(made)
    daemons.exit_code = code
    with daemons:
        assert run(["reconcile", "--path", "a/b"]) == code
    (request,) = daemons.seen
    assert (request.kind, request.path) == (RequestKind.RECONCILE, b"a/b")
    assert capsys.readouterr().err.startswith("shardsync: reconcile: web1 (no route)\n")


def test_pause_and_resume_ask_for_what_was_said(made: HandMade) -> None:
    """Options become the fields of the request, no more."""
    made.hold("sync")
    with Daemons(made) as daemons:
        assert run(["pause", "web1", "--for", "2h"]) == 0
        assert run(["resume", "web1", "--allow-delete"]) == 0
        assert run(["resume", "--accept-root"]) == 0
        assert run(["resume"]) == 2
        assert run(["resume", "web1", "--accept-root"]) == 2
        assert run(["pause", "web7"]) == 2
    pause, resume, accept = daemons.seen
    assert pause.until_us is not None
    assert (resume.nodes, resume.allow_delete, resume.adopt) == (("web1",), True, False)
    assert (accept.nodes, accept.tree, accept.accept_root) == ((), "main", True)


def test_replay_lists_distinct_paths_and_asks_for_nothing(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--dry-run` lists each path once, of all Shards, and works while everything is down."""
    made.journals["main-00"].commit([change(b"a"), change(b"sub/c", START + 2_000_000)])
    assert run(["replay", "--since", f"main-00:{START + 1}", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == ["a", "b", "sub/c"]
    since = f"main-00:{START + 1}"
    assert run(["replay", "--since", since, "--dry-run", "--path", "sub"]) == 0
    assert capsys.readouterr().out.splitlines() == ["sub/c"]


def test_replay_starts_after_the_positions_of_that_moment(made: HandMade) -> None:
    """By Position: that very Change is the first; the other Shards from its observed_at."""
    made.hold("sync")
    with Daemons(made) as daemons:
        assert run(["replay", "--since", f"main-00:{START + 1}", "--node", "web1"]) == 0
    (request,) = daemons.seen
    assert request.positions == {"main-00": START, "main-01": START}
    assert request.history_us is None


@pytest.mark.parametrize("since", ["2001-01-01", f"main-01:{START}"])
def test_replay_refuses_what_the_journals_have_lost(
    made: HandMade, since: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pruned, or older than any retention: exit 15 instead of a replay with gaps."""
    made.journals["main-01"].prune(before_us=START + 1, max_bytes=1 << 40)
    assert run(["replay", "--since", since, "--dry-run"]) == 15
    assert "reconcile --node NODE" in capsys.readouterr().err


HOUR = 3_600_000_000
YOUNG = Reach(pruned=None, begins=START)


def test_a_young_instance_has_lost_nothing() -> None:
    """T before the first Journal, when no Node was followed yet: replayed from its beginning."""
    since = Since(at_us=START - HOUR)
    assert refuse_too_old(since, YOUNG, oldest_kept_us=START - 9 * HOUR, was_followed=False)
    later = Since(at_us=START + 1)
    assert not refuse_too_old(later, YOUNG, oldest_kept_us=START - 9 * HOUR, was_followed=True)


@pytest.mark.parametrize(
    ("reach", "oldest_kept_us", "followed"),
    [
        (YOUNG, START - 9 * HOUR, ["web1"]),
        (YOUNG, START, []),
        (Reach(pruned=(START - HOUR, "main-00"), begins=START - 9 * HOUR), 0, []),
    ],
    ids=["a Journal was replaced", "beyond the retention", "pruned since"],
)
def test_a_replay_with_gaps_is_refused(
    reach: Reach, oldest_kept_us: int, followed: list[str]
) -> None:
    """Whatever took the Changes since T away, the replay says so and sends nothing."""
    since = Since(at_us=START - HOUR)
    with pytest.raises(SinceTooOld):
        refuse_too_old(since, reach, oldest_kept_us=oldest_kept_us, was_followed=bool(followed))


def test_a_node_of_two_trees_must_be_told_apart(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pause web1` never stops a Node that was not meant; with --tree it names which."""
    for name in ("docs", "docs-web1"):
        (made.folder / name).mkdir()
    (made.folder / "shardsync.toml").write_text(
        f'[[tree]]\nname = "main"\nroot = "{made.root}"\n'
        f'[[tree]]\nname = "docs"\nroot = "{made.folder}/docs"\n'
        f'[state]\ndir = "{made.state.path}"\n'
        f'[[node]]\nname = "web1"\ntree = "main"\ntarget = "{made.folder}/web1"\n'
        f'[[node]]\nname = "web1"\ntree = "docs"\ntarget = "{made.folder}/docs-web1"\n'
    )
    made.hold("sync")
    with Daemons(made) as daemons:
        assert run(["pause", "web1"]) == 2
        assert run(["resume", "web1", "--adopt"]) == 2
        assert run(["resume", "--accept-root"]) == 2
        assert run(["pause", "web1", "--tree", "docs"]) == 0
    assert [(request.tree, request.nodes) for request in daemons.seen] == [("docs", ("web1",))]
    printed = capsys.readouterr()
    assert printed.out == "paused docs/web1\n"
    assert "say --tree with one of: main, docs" in printed.err
