"""Memory while Changes flow through: files rewritten again and again, the Watcher keeping up."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tools.benches.bench import Bench
from tools.benches.cases.start import watching_instance
from tools.benches.instance import Instance
from tools.benches.model import Part
from tools.benches.processes import await_true, running, usage

_FILES = 20_000
_PER_DIRECTORY = 100
_PASS = 5_000
"""Files rewritten before the Watcher is waited for: 10,000 events, less than the default queue."""
_MIB = 1024**2
_ANSWER_SECONDS = 120.0


class Rewriter:
    """The generator's `rewrite`, told what to rewrite."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def rewrite(self, start: int, end: int) -> None:
        """Open, write and close each of these files; returns when it is done."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 (both are pipes)
        assert stdout is not None  # noqa: S101 (as above)
        stdin.write(f"{start} {end}\n".encode())
        stdin.flush()
        stdout.readline()


def flow(bench: Bench, part: Part) -> None:
    """`--changes` Changes through two Watchers with a paused Node: RSS at 10 % and at the end."""
    wanted = bench.options.changes
    with bench.folder() as folder, bench.memory_folder(_FILES) as place:
        tree = place / "tree"
        bench.generator.run("files", tree, 4, _FILES, _PER_DIRECTORY)
        instance = watching_instance(folder, tree)
        argv = [*bench.generator.argv, "rewrite", str(tree), str(_PER_DIRECTORY)]
        with (
            instance.running(),
            running(argv, stdin=subprocess.PIPE, output=subprocess.PIPE, errors=2) as process,
        ):
            _pour(bench, part, instance, Rewriter(process), wanted, folder)


def _pour(
    bench: Bench, part: Part, instance: Instance, rewriter: Rewriter, wanted: int, folder: Path
) -> None:
    del folder
    began = time.monotonic()
    done = passes = 0
    early: tuple[float, float] | None = None
    overflows = _overflows(instance)
    while done < wanted:
        start = passes * _PASS % _FILES
        rewriter.rewrite(start, start + _PASS)
        await_acknowledged(instance, f"flow-{passes}")
        passes += 1
        done = sum(row.changes_total for row in instance.progress().values())
        bench.display.part("memory: Changes flowing through", done, wanted)
        if early is None and done >= wanted / 10:
            early = _mebibytes(instance)
    seconds = time.monotonic() - began
    last = _mebibytes(instance)
    if early is None:
        early = last
    for moment, (watchers, everything) in (("10 %", early), ("the end", last)):
        part.add(f"Watchers at {moment}", "RSS while Changes flow", watchers, "MiB")
        part.add(f"all processes at {moment}", "RSS while Changes flow", everything, "MiB")
    part.note(
        f"{done:,} Changes flowed through in {seconds:.0f} s, {_PASS:,} files rewritten at a time;"
        f" the queue overflowed {_overflows(instance) - overflows} times"
    )
    part.check(
        "memory is flat while Changes flow (no more than 10 % and 5 MiB above that at 10 %)",
        last[0] <= 1.1 * early[0] + 5,
        f"Watchers {early[0]:.1f} MiB, then {last[0]:.1f} MiB",
    )


def await_acknowledged(instance: Instance, cookie: str) -> float:
    """Monotonic time at which all Watchers have journaled what was on disk before."""
    instance.flush(cookie)
    at = await_true(
        lambda: instance.is_acknowledged(cookie),
        seconds=_ANSWER_SECONDS, what="the Watchers' answer to a flush", every=0.001,
    )  # fmt: skip
    instance.forget(cookie)
    return at


def _mebibytes(instance: Instance) -> tuple[float, float]:
    return instance.memory().rss / _MIB, usage(instance.everything()).rss / _MIB


def _overflows(instance: Instance) -> int:
    return sum(row.overflows for row in instance.progress().values())
