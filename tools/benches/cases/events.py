"""How fast one Watcher takes events from a full kernel queue into its Journal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.benches.bench import Bench, settle
from tools.benches.cases.flow import Rewriter
from tools.benches.instance import Instance
from tools.benches.model import US, Part
from tools.benches.peers import inotifywait
from tools.benches.processes import BenchFailed, await_true, running

_FILES, _PER_DIRECTORY = 100_000, 100
_EVENTS_PER_FILE = 2
"""MODIFY and CLOSE_WRITE: opened without truncating, written once, closed."""
_QUEUE_SHARE = 0.75
"""The rest of the queue is left to what was read of late, and to heartbeats."""
_QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
_SECONDS = 300.0


def events(bench: Bench, part: Part) -> None:
    """Stopped, given a queue full of events, continued, timed until all are journaled."""
    queue = int(_QUEUE.read_text())
    burst = min(int(queue * _QUEUE_SHARE), bench.options.events) // _EVENTS_PER_FILE
    part.note(
        f"bursts of {burst * _EVENTS_PER_FILE:,} events, as fs.inotify.max_queued_events is"
        f" {queue:,}; a third more than {bench.options.events:,} would take all in one burst"
    )

    def measure(program: str, folder: Path) -> None:
        with _tree(bench) as (tree, rewriter):
            run = _ours if program == US else _inotifywait
            count, seconds = run(folder, tree, rewriter, burst, bench.options.events)
        part.add(program, "events", count / seconds, "events/s")
        if program == US:
            part.add(program, "time by burst", seconds / (count / burst / _EVENTS_PER_FILE))

    bench.rounds(part, bench.with_peers("inotifywait"), measure)


@contextlib.contextmanager
def _tree(bench: Bench) -> Iterator[tuple[Path, Rewriter]]:
    with bench.memory_folder(_FILES) as folder:
        tree = folder / "tree"
        bench.generator.run("files", tree, 4, _FILES, _PER_DIRECTORY)
        argv = [*bench.generator.argv, "rewrite", str(tree), str(_PER_DIRECTORY)]
        with running(argv, stdin=subprocess.PIPE, output=subprocess.PIPE, errors=2) as process:
            yield tree, Rewriter(process)


def _ours(
    folder: Path, tree: Path, rewriter: Rewriter, burst: int, wanted: int
) -> tuple[int, float]:
    instance = Instance(folder=folder / "shardsync", root=tree, node=folder / "node", shards=1)
    instance.write_settings()
    with instance.running():
        settle(2)
        before = _overflows(instance)
        (pid,) = instance.watchers()
        found = _bursts(
            pid, rewriter, burst, wanted,
            mark=lambda number: instance.flush(f"burst-{number}"),
            is_taken=lambda number: instance.is_acknowledged(f"burst-{number}"),
        )  # fmt: skip
        for cookie in instance.state.cookies.glob("flush-burst-*"):
            cookie.unlink()
        if _overflows(instance) != before:
            raise BenchFailed("the queue overflowed: something else writes into the tree")
        return found


def _inotifywait(
    folder: Path, tree: Path, rewriter: Rewriter, burst: int, wanted: int
) -> tuple[int, float]:
    output = folder / "inotifywait.out"
    with inotifywait(tree, folder, "-e", "modify", "-e", "close_write") as peer:
        return _bursts(
            peer.pid, rewriter, burst, wanted,
            mark=lambda number: (tree / f"mark-{number}").touch(),
            is_taken=lambda number: holds_at_end(output, f"mark-{number}"),
        )  # fmt: skip


def _bursts(
    pid: int,
    rewriter: Rewriter,
    burst: int,
    wanted: int,
    *,
    mark: Callable[[int], None],
    is_taken: Callable[[int], bool],
) -> tuple[int, float]:
    """(events, seconds): only the time from SIGCONT until the mark behind them was taken."""
    done, seconds, number, start = 0, 0.0, 0, 0
    while done < wanted:
        os.kill(pid, signal.SIGSTOP)
        left = burst
        while left:
            size = min(left, _FILES - start)
            rewriter.rewrite(start, start + size)
            left -= size
            start = (start + size) % _FILES
        mark(number)
        began = time.monotonic()
        os.kill(pid, signal.SIGCONT)
        at = await_true(
            lambda count=number: is_taken(count),  # type: ignore[misc]
            seconds=_SECONDS, what="the events", every=0.001,
        )  # fmt: skip
        seconds += at - began
        done += burst * _EVENTS_PER_FILE
        number += 1
    return done, seconds


def holds_at_end(log: Path, text: str) -> bool:
    """Whether the last bytes of a log say so."""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 400))
        return text.encode() in file.read()


def _overflows(instance: Instance) -> int:
    return sum(row.overflows for row in instance.progress().values())
