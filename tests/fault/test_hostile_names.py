"""Names that look like options, commands, formats, escapes: no output of ours passes them on."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardsync.cli.main import run
from shardsync.errors import ShardsyncError
from shardsync.journal.records import BatchRecord, Compare, Cursor, Work, WorkReason
from shardsync.log import Log, start_logging
from shardsync.model import Scope
from shardsync.ship.outcome import Outcome
from tests.support.clock import FakeClock
from tests.support.instance import START, HandMade, change
from tests.support.nodes import Sshd
from tests.support.transports import ODD_NAMES, SECONDS, snapshot, transport

WEB1 = ("main", "web1")
MOVING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that steer a terminal, or turn a line's direction."""
HOSTILE = (
    *ODD_NAMES,
    b"--rsh=touch canary",
    b"-e sh",
    b"$(touch canary)",
    b"`touch canary`",
    b";touch canary",
    b"%s%n{}{0}",
    b"@%o|%i|%n",
    b"\x1b]0;title\x07",
    b"\x1b]52;c;Y2FuYXJ5\x07",
    b"\x9b31m",
    b"a\rb",
    b"\x7f\x08\x08",
    "left\u202eright\u2066\u200f".encode(),
    "lines\u2028of\u2029text\u0085".encode(),
    b"2026-01-01T00:00:00Z error forged.event\nnext=1",
    b"<img src=x onerror=alert(1)>",
    b'a"} 1\nforged_metric{x="',
    b"[bold red]markup",
    b"\xed\xa0\x80",
)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    """A Tree of hostile names, all journaled, none on the Node, each being tried again there."""
    instance = HandMade(folder=tmp_path, clock=FakeClock())
    instance.make()
    for name in HOSTILE:
        Path(os.fsdecode(os.fsencode(instance.root) + b"/" + name)).write_text("x")
    journal = instance.add_shard()
    last = journal.commit([change(name, START) for name in HOSTILE])
    state = instance.open_state()
    state.know_node(WEB1)
    work = [
        Work(
            path=name,
            scope=Scope.ENTRY,
            compare=Compare.CONTENT,
            reason=WorkReason.RETRY,
            since=START,
            not_before=START,
            last_error=name.decode("utf-8", "backslashreplace"),
        )
        for name in HOSTILE
    ]
    cursor = Cursor(journal_id="id-main-00", position=last)
    state.record(
        WEB1, BatchRecord(cursors={"main-00": cursor}, finished_at=START, work_added=work)
    )
    said = [name.decode("utf-8", "backslashreplace") for name in HOSTILE]
    state.set_node(WEB1, last_error=" ".join(said))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHARDSYNC_CONFIG", raising=False)
    yield instance
    instance.close()


def assert_harmless(text: str) -> None:
    """Nothing but newlines moves the cursor."""
    bad = {char for char in text if char != "\n" and unicodedata.category(char) in MOVING}
    assert bad == set()


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["status", "--json"],
        ["journal"],
        ["journal", "--json"],
        ["verify"],
        ["verify", "--json"],
        ["replay", "--since", f"main-00:{START}", "--dry-run"],
        ["trace", "--", *(os.fsdecode(name) for name in HOSTILE)],
        ["replay", "--since", f"main-00:{START}", "--path", "../\x1b[31m"],
        ["replay", "--since", "\x1b[31m"],
        ["status", "--tree", "\x1b[31m\u202e"],
        ["flush", "--node", "a\rb"],
        ["\x1b[31m"],
    ],
    ids=lambda words: " ".join(words[:2]).encode("ascii", "backslashreplace").decode(),
)
def test_no_command_prints_a_name_as_it_is(
    made: HandMade, capfdbinary: pytest.CaptureFixture[bytes], words: list[str]
) -> None:
    """What arguments, errors, tables and JSON say of a name is harmless on a terminal."""
    code = run(words)
    out, err = capfdbinary.readouterr()
    assert out or err
    if words[0] in {"status", "journal", "verify"} or "--dry-run" in words:
        assert code in {0, 2, 3, 14, 16}
        assert code == 2 or b"touch canary" in out
    assert_harmless(out.decode())
    assert_harmless(err.decode())
    if "--json" in words:
        json.loads(out)


def test_trace_takes_any_name(made: HandMade, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """It is found by its exact bytes, and printed harmlessly."""
    for name in HOSTILE:
        code = run(["trace", "--", os.fsdecode(name)])
        out, err = capfdbinary.readouterr()
        assert (code, err) == (0, b"")
        assert b"main-00:" in out
        assert_harmless(out.decode())


def fail(text: str) -> None:
    """An error that tells of a name and forgot to escape it."""
    raise ShardsyncError(text)


def test_no_name_forges_a_log_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A line of the log is one event, whatever it tells of, tracebacks included."""
    start_logging()
    log = Log("test")
    try:
        for name in HOSTILE:
            text = name.decode("utf-8", "surrogateescape")
            log.warning("path.failed", path=name, error=text)
            try:
                fail(text)
            except ShardsyncError:
                log.bug("path.failed", path=name)
    finally:
        logging.getLogger("shardsync").handlers.clear()
    said = capfdbinary.readouterr().err.decode()
    assert_harmless(said)
    events = [line for line in said.splitlines() if " forged.event" in line.partition(" ")[2]]
    assert all("path.failed" in line or "ShardsyncError" in line for line in events)


def test_no_name_is_a_command_where_there_is_a_shell(tmp_path: Path) -> None:
    """Over ssh, as files and as directories that were renamed, all arrive and none is run."""
    canary = f"canary-{os.getpid()}"
    commands = [b"$(touch %s)", b"`touch %s`", b";touch %s;", b"'|touch %s #", b"a --log-file=%s"]
    names = [name % canary.encode() for name in commands]
    root, node = tmp_path / "tree", tmp_path / "node"
    node.mkdir()
    for name in (*HOSTILE, *(b"file " + name for name in names)):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).parent.mkdir(exist_ok=True)
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_text("x")
    for name in names:
        (root / os.fsdecode(name)).mkdir()
        (root / os.fsdecode(name) / "f").write_text("x")

    async def run() -> None:
        route = transport(sshd.node(node), root)
        shipped = await route.ship(sorted(os.listdir(os.fsencode(root))), deadline_seconds=SECONDS)
        assert shipped.outcome is Outcome.SHIPPED, shipped
        for name in names:
            if route.can_move(name):
                moved = await route.ship_moved(
                    name,
                    origins=[b"old " + name],
                    link=True,
                    checksum=False,
                    filters=(),
                    deadline_seconds=SECONDS,
                )
                assert moved.outcome is Outcome.SHIPPED, moved
        await route.close()

    with Sshd(workspace=tmp_path) as sshd:
        asyncio.run(run())
    assert snapshot(node) == snapshot(root)
    assert not (Path.home() / canary).exists()
