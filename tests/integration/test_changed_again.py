"""What changes while it is being shipped: sent again, once. rsync's own log counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.compare import differences
from tests.support.nodes import local_node
from tests.support.sync import Instance, run, running

SLOW = "500"
"""KiB a second."""
LARGE = 1024**2
"""Two seconds' worth."""


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """A Node whose rsyncs log each file they send."""
    made = Instance(tmp_path)
    (tmp_path / "node").mkdir()
    logging = (f"--log-file={tmp_path / 'sent'}", "--log-file-format=%o %n")
    made.nodes = [replace(local_node(tmp_path / "node"), bandwidth=SLOW, rsync_options=logging)]
    return made


def _sent(instance: Instance, name: str) -> int:
    """How often it was sent."""
    lines = (instance.folder / "sent").read_text().splitlines()
    return sum(line.endswith(f" send {name}") for line in lines)


def _is_under_way(instance: Instance, name: str) -> Callable[[], bool]:
    """Whether rsync's temporary file for it is on the Node, with something in it."""
    node = instance.folder / "node"

    def look() -> bool:
        names = [each for each in os.listdir(node) if each.startswith(f".{name}.")]
        return any((node / each).stat().st_size for each in names)

    return look


def test_a_path_changed_while_its_batch_runs_is_sent_again_once(instance: Instance) -> None:
    """However often it changed meanwhile; the rest of the Batch is not sent again."""
    tree, node = instance.tree, instance.folder / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (tree / "a").write_text("1")
            (tree / "large").write_bytes(b"x" * LARGE)
            instance.changed("a", "large")
            await sync.until(_is_under_way(instance, "large"))
            assert (node / "a").read_text() == "1"
            for number in range(2, 7):
                (tree / "a").write_text(str(number))
                instance.changed("a")
            await sync.followed()
            assert (node / "a").read_text() == "6"
            assert (_sent(instance, "a"), _sent(instance, "large")) == (2, 1)

    run(work)


@pytest.mark.fault("source-vanishes")
def test_a_file_caught_half_written_is_sent_again(instance: Instance) -> None:
    """Rewritten in place while rsync reads it: what the Node has then is neither old nor new."""
    tree, node = instance.tree, instance.folder / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (tree / "large").write_bytes(b"o" * LARGE)
            instance.changed("large")
            await sync.until(_is_under_way(instance, "large"))
            status = os.stat(tree / "large")
            (tree / "large").write_bytes(b"n" * LARGE)
            os.utime(tree / "large", ns=(status.st_atime_ns, status.st_mtime_ns))
            instance.changed("large")
            await sync.followed()
            assert (node / "large").read_bytes() == b"n" * LARGE
            assert _sent(instance, "large") == 2
            assert differences(tree, node) == []

    run(work)


@pytest.mark.fault("source-vanishes")
def test_a_file_that_grows_while_it_is_sent_is_whole_in_the_end(instance: Instance) -> None:
    """And one that shrinks: rsync gives up on neither."""
    tree, node = instance.tree, instance.folder / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            for name in ("grows", "shrinks"):
                (tree / name).write_bytes(b"o" * LARGE)
            instance.changed("grows", "shrinks")
            for name, size in (("grows", LARGE + 1), ("shrinks", 1)):
                await sync.until(_is_under_way(instance, name))
                os.truncate(tree / name, size)
                instance.changed(name)
            await sync.followed(seconds=60)
            assert differences(tree, node) == []

    run(work)


@pytest.mark.fault("source-vanishes")
def test_a_file_that_became_a_fifo_holds_nobody_up(instance: Instance) -> None:
    """Rsync has it in its list as a file, and would wait for somebody to write to it."""
    tree, node = instance.tree, instance.folder / "node"

    async def work() -> None:
        async with running(instance) as sync:
            await sync.followed()
            (tree / "large").write_bytes(b"x" * LARGE)
            (tree / "later").write_text("a file")
            instance.changed("large", "later")
            await sync.until(_is_under_way(instance, "large"))
            (tree / "later").unlink()
            os.mkfifo(tree / "later")
            instance.changed("later")
            await sync.followed()
            assert (node / "large").stat().st_size == LARGE
            assert (node / "later").is_fifo()

    run(work)
