"""`trace` and `journal`: what the Journals and state.db know of paths."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.cli.main import run
from shardsync.control.memory import MEMORY_FILE, Memory, write_memory
from shardsync.journal.records import BatchRecord, Compare, Cursor, Work, WorkReason
from shardsync.model import Kind, Scope
from tests.support.clock import FakeClock
from tests.support.instance import START, HandMade, change

WEB1 = ("main", "web1")
WEB2 = ("main", "web2")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    (tmp_path / "web2").mkdir()
    instance.write_settings(("web1", "web2"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHARDSYNC_CONFIG", raising=False)
    yield instance
    instance.close()


def _ship(made: HandMade, key: tuple[str, str], position: int, at: int, *work: Work) -> None:
    assert made.state_db
    made.state_db.know_node(key)
    cursor = Cursor(journal_id="id-main-00", position=position)
    made.state_db.record(
        key, BatchRecord(cursors={"main-00": cursor}, finished_at=at, work_added=work)
    )


def _file(made: HandMade, name: str) -> None:
    path = made.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    os.utime(path, ns=(0, (START - 1_000_000) * 1000))


def test_trace_tells_each_step_and_each_node(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Modified, observed, journaled, and shipped per Node; null where it is not yet."""
    _file(made, "a/b")
    made.open_state()
    journal = made.add_shard()
    made.clock.advance(0.25)
    last = journal.commit([change(b"other"), change(b"a/b", START + 5)])
    _ship(made, WEB1, last, START + 900_000)
    _ship(made, WEB2, last - 1, START + 800_000)
    assert run(["trace", "a/b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": "a/b",
        "modified_at": "2023-11-14T22:13:19.000000Z",
        "observed_at": "2023-11-14T22:13:20.000005Z",
        "journaled_at": "2023-11-14T22:13:20.250000Z",
        "shard": "main-00",
        "position": START + 1,
        "nodes": [
            {"name": "web1", "shipped_at": "2023-11-14T22:13:20.900000Z"},
            {"name": "web2", "shipped_at": None},
        ],
    }


def test_trace_finds_a_path_inside_a_moved_tree(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path without a Change of its own is told by the Change of the directory above it."""
    _file(made, "new/page")
    made.open_state()
    journal = made.add_shard()
    last = journal.commit([change(b"new", scope=Scope.TREE), change(b"newer")])
    _ship(made, WEB1, last, START + 7)
    assert run(["trace", str(made.root / "new/page"), "--node", "web1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "new/page",
        "  modified   2023-11-14T22:13:19.000000Z",
        "  observed   2023-11-14T22:13:20.000000Z (as part of new/)",
        f"  journaled  2023-11-14T22:13:20.000000Z  main-00:{START}",
        "  on web1  2023-11-14T22:13:20.000007Z",
    ]


def test_trace_never_says_shipped_of_open_work(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path that failed is not on the Node although the Cursor has moved past it."""
    made.open_state()
    journal = made.add_shard()
    last = journal.commit([change(b"a/b")])
    failed = Work(
        path=b"a",
        scope=Scope.TREE,
        compare=Compare.CONTENT,
        reason=WorkReason.RETRY,
        since=START,
    )
    _ship(made, WEB1, last, START + 7, failed)
    assert run(["trace", "a/b", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["nodes"][0] == {"name": "web1", "shipped_at": None}
    assert document["modified_at"] is None


def test_trace_of_what_was_never_seen(made: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """No Change, no state.db: nulls, and still exit 0."""
    made.add_shard()
    name = os.fsdecode(b"caf\xe9")
    assert run(["trace", name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "path": "caf\\xe9",
        "path_b64": "Y2Fm6Q==",
        "modified_at": None,
        "observed_at": None,
        "journaled_at": None,
        "shard": None,
        "position": None,
        "nodes": [{"name": "web1", "shipped_at": None}, {"name": "web2", "shipped_at": None}],
    }


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd"])
def test_a_path_outside_the_tree_is_refused(
    made: HandMade, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    """PATH never leads out of the Tree: exit 2."""
    assert run(["trace", path]) == 2
    assert capsys.readouterr().out == ""


def test_the_journal_as_json(made: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """All Shards' Changes in one document, in the order they happened; exact names in base64."""
    first = made.add_shard("main-00")
    second = made.add_shard("main-01")
    first.commit([change(b"a"), change(b"\xff", START + 20, scope=Scope.TREE)])
    second.commit([change(b"b", START + 10, kind=Kind.ATTRIBUTES)])
    assert run(["journal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "changes": [
            {
                "shard": "main-00",
                "position": START,
                "path": "a",
                "scope": "entry",
                "kind": "content",
                "observed_at": "2023-11-14T22:13:20.000000Z",
            },
            {
                "shard": "main-01",
                "position": START,
                "path": "b",
                "scope": "entry",
                "kind": "attributes",
                "observed_at": "2023-11-14T22:13:20.000010Z",
            },
            {
                "shard": "main-00",
                "position": START + 1,
                "path": "\\xff",
                "path_b64": "/w==",
                "scope": "tree",
                "kind": "content",
                "observed_at": "2023-11-14T22:13:20.000020Z",
            },
        ]
    }


def test_the_journal_since_a_position(made: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """SHARD:N starts at that very Change; other Shards at its moment. Lines are escaped."""
    first = made.add_shard("main-00")
    second = made.add_shard("main-01")
    first.commit([change(b"a"), change(b"n\nl", START + 20)])
    second.commit([change(b"early", START + 10), change(b"late", START + 30)])
    assert run(["journal", "--since", f"main-00:{START + 1}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2023-11-14T22:13:20.000020Z main-00:{START + 1} entry   content    n\\x0al",
        f"2023-11-14T22:13:20.000030Z main-01:{START + 1} entry   content    late",
    ]


def test_an_empty_journal_is_an_empty_document(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """No Change is no error; neither is no Plan at all."""
    assert run(["journal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"changes": []}


@pytest.mark.parametrize(
    ("since", "code"),
    [
        ("yesterday", 2),
        ("main-07:5", 2),
        (f"main-00:{1 << 70}", 2),
        ("2999-01-01T00:00", 2),
        (f"main-00:{START - 5}", 15),
    ],
)
def test_a_since_that_leads_nowhere(
    made: HandMade, capsys: pytest.CaptureFixture[str], since: str, code: int
) -> None:
    """A malformed T, an unknown Shard, a Position that no Journal can have and a time to come are
    usage errors; a pruned Position is exit 15.
    """
    journal = made.add_shard()
    journal.commit([change(b"a")])
    journal.prune(before_us=START + 1, max_bytes=1 << 40)
    assert run(["journal", "--since", since]) == code
    assert capsys.readouterr().out == ""


def test_trace_works_with_a_wrong_settings_file(
    made: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """An absolute path is understood by the root that was last observed."""
    _file(made, "a/b")
    made.add_shard().commit([change(b"a/b")])
    made.write_settings(more="[sync]\nno_such_key = 1")
    write_memory(made.state.path / MEMORY_FILE, Memory(roots={"main": str(made.root)}))
    assert run(["trace", str(made.root / "a/b"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["path"], document["position"], document["nodes"]) == ("a/b", START, [])
    assert document["modified_at"] == "2023-11-14T22:13:19.000000Z"
