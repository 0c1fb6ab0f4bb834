"""state.db on real SQLite: a Batch's progress is all there or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardsync.journal import requests
from shardsync.journal.records import BatchRecord, Compare, Cursor, Work, WorkReason
from shardsync.journal.requests import Request, RequestKind, RequestState
from shardsync.journal.state_reader import StateReader
from shardsync.journal.state_writer import StateWriter
from shardsync.model import NodeState, Scope
from tests.support.clock import FakeClock

KEY = ("main", "web1")


def _open(folder: Path, clock: FakeClock) -> StateWriter:
    writer = StateWriter.open(folder / "state.db", clock=clock)
    writer.know_node(KEY)
    return writer


def _retry(path: bytes, since: int, *, attempts: int = 1) -> Work:
    return Work(
        path=path,
        scope=Scope.ENTRY,
        compare=Compare.CONTENT,
        reason=WorkReason.RETRY,
        since=since,
        attempts=attempts,
    )


def test_cursors_and_work_move_in_one_step(tmp_path: Path) -> None:
    """What a Batch leaves open is stored with the Cursor that has moved past it."""
    clock = FakeClock()
    writer = _open(tmp_path, clock)
    cursor = Cursor(journal_id="j", position=7)
    batch = BatchRecord(
        cursors={"main-00": cursor},
        work_added=[_retry(b"a", 5), _retry(b"b", 3)],
        deleted_entries=4,
        finished_at=99,
    )
    writer.record(KEY, batch)
    reader = StateReader(tmp_path / "state.db")
    assert reader.cursors(KEY) == {"main-00": cursor}
    assert reader.work_summary(KEY) == (2, 2, 3)
    assert reader.shipped_at(KEY, "main-00", 6) == 99
    assert reader.shipped_at(KEY, "main-00", 8) is None
    assert reader.deleted_since(KEY, clock.wall_us()) == 4
    again = _retry(b"a", 9, attempts=2)
    done = [item.id for item in reader.work(KEY) if item.path == b"b"]
    writer.record(KEY, BatchRecord(work_added=[again], work_done=done))
    (left,) = reader.work(KEY)
    assert (left.path, left.since, left.attempts) == (b"a", 5, 2)
    writer.close()


def test_the_cursor_history_tells_where_a_node_was(tmp_path: Path) -> None:
    """One row a minute; a time in between finds the row before it."""
    clock = FakeClock()
    writer = _open(tmp_path, clock)
    start = clock.wall_us()
    for position in (10, 20, 30):
        writer.note_history(KEY, {"main-00": Cursor(journal_id="j", position=position)})
        clock.advance(45)
    reader = StateReader(tmp_path / "state.db")
    assert reader.cursors_at(KEY, start + 80_000_000)["main-00"].position == 10
    assert reader.cursors_at(KEY, start + 95_000_000)["main-00"].position == 30
    assert reader.cursors_at(KEY, start - 1) == {}
    writer.close()


def test_a_new_start_replaces_cursors_and_opens_work(tmp_path: Path) -> None:
    """A bootstrap that is killed is found open again."""
    writer = _open(tmp_path, FakeClock())
    work = Work(
        path=b"",
        scope=Scope.TREE,
        compare=Compare.ATTRIBUTES,
        reason=WorkReason.BOOTSTRAP,
        since=1,
    )
    writer.restart_node(
        KEY,
        cursors={"main-00": Cursor(journal_id="j", position=1)},
        work=[work],
        state=NodeState.BOOTSTRAPPING,
    )
    writer.close()
    reader = StateReader(tmp_path / "state.db")
    assert [item.reason for item in reader.work(KEY)] == [WorkReason.BOOTSTRAP]


@pytest.mark.parametrize("reason", [WorkReason.RECONCILE, WorkReason.RETRY])
def test_what_is_joined_is_compared_as_closely_as_either_asked(
    tmp_path: Path, reason: WorkReason
) -> None:
    """A reconcile by contents is not cut to sizes and times by one that began meanwhile, nor a
    file whose write was told to a look at its time.
    """
    writer = _open(tmp_path, FakeClock())
    closer = (
        Compare.EMPTY,
        Compare.ATTRIBUTES,
        Compare.CHECKSUM,
        Compare.CONTENT,
        Compare.ANEW,
    )
    for before in closer:
        for then in closer:
            path = f"{before} {then}".encode()
            for compare in (before, then):
                item = replace(_retry(path, 1), compare=compare, reason=reason)
                writer.add_work(KEY, [item])
    found = {item.path.decode(): item.compare for item in writer.read.work(KEY)}
    assert len(found) == 25
    for told, compare in found.items():
        assert closer.index(compare) == max(closer.index(Compare(one)) for one in told.split())
    writer.close()


def test_batch_records_are_bounded_by_time(tmp_path: Path) -> None:
    """Pruning forgets old Batches and history, never Cursors."""
    writer = _open(tmp_path, FakeClock())
    for number in (1, 2, 3):
        cursor = Cursor(journal_id="j", position=number)
        writer.record(KEY, BatchRecord(cursors={"s": cursor}, finished_at=number))
    writer.prune(before_us=3)
    assert writer.read.shipped_at(KEY, "s", 1) == 3
    assert writer.read.cursors(KEY)["s"].position == 3
    writer.close()


@pytest.mark.fault("journal-corrupt")
def test_a_corrupt_state_is_set_aside(tmp_path: Path) -> None:
    """Nodes then have no Cursors, which leads to a reconcile; the file is kept."""
    _open(tmp_path, FakeClock()).close()
    (tmp_path / "state.db").write_bytes(b"not a database at all" * 500)
    writer = StateWriter.open(tmp_path / "state.db", clock=FakeClock())
    assert writer.read.nodes() == {}
    assert (tmp_path / "state.db.corrupt-1700000000").exists()
    writer.close()


def test_requests_travel_by_the_spool(tmp_path: Path) -> None:
    """A request arrives whole; garbage is told apart and named; answers are found by id."""
    request = Request(id="r1", kind=RequestKind.REPLAY, path=b"a\xff", positions={"main-00": 5})
    requests.send(tmp_path, request)
    (tmp_path / "zz.json").write_text("{")
    found = {path.name: what for path, what in requests.receive(tmp_path)}
    assert found["r1.json"] == request
    assert isinstance(found["zz.json"], str)
    writer = _open(tmp_path, FakeClock())
    writer.received.put("r1", kind=request.kind, body="{}")
    writer.received.answer("r1", state=RequestState.FAILED, exit_code=14, message="no")
    answer = StateReader(tmp_path / "state.db").answer("r1")
    assert answer is not None
    assert (answer.state, answer.exit_code, answer.message) == (RequestState.FAILED, 14, "no")
    writer.close()
