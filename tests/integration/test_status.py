"""How everything is doing, told from the state directory alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from shardsync.cli.main import run
from shardsync.cli.tables import tables
from shardsync.journal.plan import Origin, PlanState
from shardsync.journal.records import BatchRecord, Compare, Cursor, Work, WorkReason
from shardsync.model import NodeState, Scope, ShardState
from shardsync.observe.liveness import Liveness
from shardsync.observe.reader import StatusReader
from shardsync.observe.status import NodeStatus
from tests.support.clock import FakeClock
from tests.support.instance import START, HandMade, change, own_pid

KEY = ("main", "web1")
ALL_LOCKS = ("instance", "sync", "journal-main-00")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHARDSYNC_CONFIG", raising=False)
    yield instance
    instance.close()


def _follow(made: HandMade, *, behind: int = 0) -> None:
    """One Shard that follows, one Node that is `behind` Changes behind."""
    journal = made.add_shard()
    last = journal.commit(
        [change(b"a"), change(b"b", START + 1), change(b"c", START + 2)],
        progress={"state": ShardState.FOLLOWING, "watches": 7, "directories": 7,
                  "watermark_us": START + 5},
    )  # fmt: skip
    state = made.open_state()
    state.know_node(KEY)
    state.set_node(
        KEY, state=NodeState.FOLLOWING, owned=True, contacted=True, last_success=START + 9
    )
    cursor = Cursor(journal_id="id-main-00", position=last - behind)
    state.record(KEY, BatchRecord(cursors={"main-00": cursor}, finished_at=START + 9))


def _node(made: HandMade) -> NodeStatus:
    reader = StatusReader(
        state=made.state, settings=None, clock=made.clock, liveness=Liveness(state=made.state)
    )
    (node,) = reader.read().nodes
    reader.close()
    return node


def test_json_is_the_contract_to_the_letter(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """`status --json` prints these keys and values, in one document, and exits 0: all is well."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    assert run(["status", "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    journal_bytes = document["shards"][0].pop("journal_bytes")
    assert journal_bytes > 4096
    assert document == {
        "trees": [{"name": "main", "root": str(made.root), "state": "ok"}],
        "shards": [
            {
                "id": "main-00",
                "tree": "main",
                "program": "shardsync:watcher-00",
                "state": "following",
                "pid": own_pid(),
                "watches": 7,
                "directories": 7,
                "polled_directories": 0,
                "position": START + 2,
                "watermark": "2023-11-14T22:13:20.000005Z",
                "epoch": 1,
                "overflows": 0,
                "last_error": None,
            }
        ],
        "nodes": [
            {
                "tree": "main",
                "name": "web1",
                "state": "following",
                "owned": True,
                "lag_seconds": 0.0,
                "lag_changes": 0,
                "retry_paths": 0,
                "last_success": "2023-11-14T22:13:20.000009Z",
                "last_error": None,
                "verified_at": None,
                "progress": None,
                "audit": None,
            }
        ],
    }
    assert printed.err == ""


def test_a_process_that_holds_no_lock_is_stopped(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its Watcher a Shard is stopped, without the sync process every Node: exit 14."""
    _follow(made)
    made.hold("instance")
    assert run(["status", "--json"]) == 14
    document = json.loads(capsys.readouterr().out)
    assert document["trees"][0]["state"] == "degraded"
    assert [shard["state"] for shard in document["shards"]] == ["stopped"]
    assert [shard["pid"] for shard in document["shards"]] == [None]
    assert [node["state"] for node in document["nodes"]] == ["stopped"]
    assert [node["lag_changes"] for node in document["nodes"]] == [0]


def test_status_prints_while_everything_is_down(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Down is exit 16, with all that the disk still tells."""
    _follow(made, behind=1)
    assert run(["status"]) == 16
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"tree main degraded {made.root}"
    assert printed[1].startswith("shard main-00 stopped program=shardsync:watcher-00 pid=-")
    assert printed[2].startswith("node main/web1 stopped lag=")
    assert " changes=1 retry=0 last_success=2023-11-14T22:13:20.000009Z" in printed[2]


def test_status_prints_before_the_first_start(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing on disk yet: the settings' Nodes, and null for every figure."""
    assert run(["status", "--json"]) == 16
    assert json.loads(capsys.readouterr().out) == {
        "trees": [{"name": "main", "root": str(made.root), "state": "degraded"}],
        "shards": [],
        "nodes": [
            {
                "tree": "main",
                "name": "web1",
                "state": "stopped",
                "owned": None,
                "lag_seconds": None,
                "lag_changes": None,
                "retry_paths": None,
                "last_success": None,
                "last_error": None,
                "verified_at": None,
                "progress": None,
                "audit": None,
            }
        ],
    }


def test_status_works_with_a_wrong_settings_file(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong file is told beside the status, which comes from the disk."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    made.write_settings(more="[sync]\nno_such_key = 1")
    assert run(["status", "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["trees"] == [{"name": "main", "root": None, "state": "ok"}]
    assert [node["name"] for node in document["nodes"]] == ["web1"]
    assert "no_such_key" in printed.err


def test_a_watcher_that_is_stuck_is_told(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that lives without a heartbeat is no well Shard: exit 14, with the reason."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    made.journals["main-00"].commit(progress={"pid": own_pid(), "heartbeat_us": START})
    assert run(["status"]) == 14
    assert "no heartbeat for " in capsys.readouterr().out
    made.journals["main-00"].commit(progress={"pid": own_pid() + 1})
    assert run(["status"]) == 0


@pytest.mark.fault("state-full")
@pytest.mark.root
def test_a_full_state_disk_is_told(made: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """The Watchers cannot write that they cannot write: status looks at the disk itself."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", str(made.state.path)]
    subprocess.run(mount, check=True, timeout=30)
    try:
        made.state.make()
        _follow(made)
        made.hold(*ALL_LOCKS)
        assert run(["status"]) == 0
        with contextlib.suppress(OSError), (made.state.path / "fill").open("wb", 0) as file:
            while True:
                file.write(b"x" * 4096)
        capsys.readouterr()
        assert run(["status"]) == 14
        assert "its disk is full" in capsys.readouterr().err
    finally:
        made.close()
        # Lazily: readers of the command may not have been collected yet.
        subprocess.run(["umount", "-l", str(made.state.path)], check=True, timeout=30)


@pytest.mark.fault("foreign-reader")
@pytest.mark.root
def test_another_users_state_is_not_called_down(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the locks cannot be looked at nobody knows what runs: 14 and the reason, never 16."""
    made.write_settings(more="[sync]\nno_such_key = 1")
    shutil.rmtree(made.state.path)
    made.state.path.write_text("no directory")
    assert run(["status", "--json"]) == 14
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"trees": [], "shards": [], "nodes": []}
    assert "run this as the user that the daemons run as" in printed.err
    assert run(["flush"]) == 12


def test_lag_counts_rows_and_open_work(made: HandMade) -> None:
    """Lag is the Journal's rows beyond the Cursor and the open work; its age is the oldest's."""
    _follow(made, behind=2)
    assert made.state_db
    retry = Work(
        path=b"x",
        scope=Scope.ENTRY,
        compare=Compare.CONTENT,
        reason=WorkReason.RETRY,
        since=START - 4_000_000,
    )
    made.clock.advance(6)
    found = _node(made)
    assert (found.lag_changes, found.lag_seconds, found.retry_paths) == (2, 5.999999, 0)
    made.state_db.record(KEY, BatchRecord(work_added=[retry]))
    found = _node(made)
    assert (found.lag_changes, found.lag_seconds, found.retry_paths) == (3, 10.0, 1)


def test_paths_that_failed_are_told_with_their_reasons(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each path that waits by itself: why, how often it was tried, when it is next; the first
    three, whatever succeeded since.
    """
    _follow(made)
    made.hold("sync")
    assert made.state_db
    failed = [
        Work(
            path=path,
            scope=Scope.ENTRY,
            compare=Compare.CONTENT,
            reason=WorkReason.RETRY,
            since=START,
            attempts=2,
            not_before=START + 8_000_000,
            last_error="Permission denied (13)",
        )
        for path in (b"a/b", b"odd\n", b"c", b"d", b"e")
    ]
    made.state_db.record(KEY, BatchRecord(work_added=failed))
    made.state_db.set_node(KEY, state=NodeState.FOLLOWING, last_error="")
    assert run(["status"]) == 14
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("node ")]
    why = "Permission denied (13) (tried 2 times, next 2023-11-14T22:13:28.000000Z)"
    assert told.endswith(
        f"5 paths being tried again: a/b: {why}, odd\\x0a: {why}, c: {why}, and 2 more"
    )


def test_a_journal_that_a_node_does_not_know_lags_from_its_making(made: HandMade) -> None:
    """A Cursor of another Journal's life says nothing: all since this one began may be missing."""
    _follow(made)
    assert made.state_db
    other = Cursor(journal_id="another", position=START + 2)
    made.state_db.record(KEY, BatchRecord(cursors={"main-00": other}))
    made.clock.advance(7)
    found = _node(made)
    assert (found.lag_changes, found.lag_seconds) == (3, 7.0)


def test_lag_counts_the_journals_of_a_replan(made: HandMade) -> None:
    """A re-plan's Shard counts from its first Change, a retired one while a Node is behind."""
    _follow(made)
    retired = made.add_shard("main-01", plan_state=PlanState.RETIRED)
    retired.commit([change(b"r1"), change(b"r2")])
    new = made.add_shard("main-02", made_by=Origin.REPLAN)
    new.commit([change(b"n")])
    assert _node(made).lag_changes == 1
    assert made.state_db
    behind = Cursor(journal_id="id-main-01", position=START)
    made.state_db.record(KEY, BatchRecord(cursors={"main-01": behind}))
    assert _node(made).lag_changes == 2


@pytest.mark.parametrize("order", [[0, 3, 5, 9], [9, 0, 5, 3], [5, 9, 0, 3], [5, 5, 5, 5]])
def test_lag_is_the_same_in_whatever_order_nodes_are_measured(
    made: HandMade, order: list[int]
) -> None:
    """Counting from what is known already changes no figure."""
    journal = made.add_shard()
    last = journal.commit([change(b"x") for _ in range(10)])
    state = made.open_state()
    for number, behind in enumerate(order):
        key = ("main", f"web{number}")
        state.know_node(key)
        cursor = Cursor(journal_id="id-main-00", position=last - behind)
        state.record(key, BatchRecord(cursors={"main-00": cursor}))
    reader = StatusReader(
        state=made.state, settings=None, clock=made.clock, liveness=Liveness(state=made.state)
    )
    assert [node.lag_changes for node in reader.read().nodes] == order


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"state": "following"}, 0),
        ({"state": "bootstrapping"}, 0),
        ({"state": "paused", "paused": True}, 0),
        ({"state": "backing_off", "last_error": "no route"}, 14),
        ({"state": "halted", "halted": "max_delete"}, 14),
        ({"state": "behind_retention"}, 14),
    ],
)
def test_exit_codes_of_node_states(made: HandMade, columns: dict[str, object], code: int) -> None:
    """A Node that failed makes status unwell; one at work, or paused on purpose, does not."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    assert made.state_db
    made.state_db.set_node(KEY, **columns)
    assert run(["status"]) == code


def test_a_halted_tree_is_told(made: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """A lost root halts its Tree: exit 14, and the reason for people."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    assert made.state_db
    made.state_db.set_tree("main", halted="root is another file system")
    assert run(["status"]) == 14
    line = capsys.readouterr().out.splitlines()[0]
    assert line == (
        f"tree main halted {made.root} root is another file system"
        " (if that is right: `shardsync resume --accept-root`)"
    )


def test_a_tree_that_only_its_watcher_halts_is_told_why(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sync process, down or with all Nodes paused, does not look at the root."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    why = f"root {made.root} is missing, or no directory"
    made.journals["main-00"].commit(progress={"state": "halted", "last_error": why})
    assert run(["status"]) == 14
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"tree main halted {made.root} {why} (if that is right: ")


def test_a_damaged_journal_leaves_a_gap_not_a_failure(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of a Journal that cannot be read are null; all else is there."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    made.journals["main-00"].close()
    made.state.journal("main-00").write_bytes(b"no database" * 1000)
    assert run(["status", "--json"]) == 14
    document = json.loads(capsys.readouterr().out)
    (shard,) = document["shards"]
    assert (shard["state"], shard["position"], shard["watches"]) == ("starting", None, None)
    assert "not a database" in shard["last_error"]
    (node,) = document["nodes"]
    assert (node["state"], node["lag_changes"]) == ("following", None)


def test_foreign_words_cannot_steer_the_terminal(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """What rsync or a file name said is escaped, in lines and in JSON."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    assert made.state_db
    made.state_db.set_node(KEY, state=NodeState.BACKING_OFF, last_error="\x1b[2Jgone\nweb2 ok")
    run(["status"])
    run(["status", "--json"])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\x1b[2Jgone\\x0aweb2 ok" in printed


def test_the_tables_hold_no_foreign_escapes(made: HandMade) -> None:
    """On a terminal too: colours are ours, the words of others are text."""
    _follow(made)
    made.hold(*ALL_LOCKS)
    assert made.state_db
    made.state_db.set_node(KEY, state=NodeState.BACKING_OFF, last_error="\x1b[2Jgone [red]x")
    with closing(
        StatusReader(
            state=made.state, settings=None, clock=made.clock, liveness=Liveness(state=made.state)
        )
    ) as reader:
        status = reader.read()
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=200, color_system="standard")
    console.print(tables(status, made.clock.wall_us()))
    printed = screen.getvalue()
    assert "\x1b[2J" not in printed
    assert "\\x1b[2Jgone [red]x" in printed
    assert "\x1b[31mbacking_off\x1b[0m" in printed


def test_an_unknown_node_is_a_usage_error(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelled Node is refused with the names that would do."""
    _follow(made)
    assert run(["status", "--node", "web9"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "shardsync: no node web9\n  known: web1\n"
