"""What Changes cost: small files made at a steady rate, with one local Node."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import statistics
import time
from pathlib import Path

from tools.benches.arrivals import Arrivals
from tools.benches.bench import Bench, settle
from tools.benches.instance import Instance
from tools.benches.processes import await_true
from tools.benches.scaling.model import Series
from tools.benches.scaling.roles import REST, RSYNCS, SYNC, WATCHERS, cpu_by_role, cpu_since

SIZES = (500, 2_000, 8_000)
SECONDS = 10.0
_FOLDERS = 100
_TICK_SECONDS = 0.01
_THERE_SECONDS = 120.0


def series() -> Series:
    """Nothing measured yet."""
    return Series(
        name="changes",
        variable="new files a second",
        about=(
            f"Small files made in {_FOLDERS} directories at a steady rate for {SECONDS:.0f} s,"
            " on a tmpfs with its one local Node beside it, all settings as they are. CPU: until"
            f" the last file is there, by the {SECONDS:.0f} s, in percent of a core. Lag: of each"
            " file from its close until it is on the Node, as the kernel tells."
        ),
        step=1_000,
        target=50_000,
    )


def measure(bench: Bench, found: Series, rate: int) -> None:
    """One stream into an instance of its own."""
    files = int(rate * SECONDS)
    with bench.folder() as folder, bench.memory_folder(3 * files) as place:
        tree, node = place / "tree", place / "node"
        for number in range(_FOLDERS):
            (tree / f"d{number}").mkdir(parents=True)
        instance = Instance(folder=folder / "shardsync", root=tree, node=node, paused=False)
        instance.write_settings()
        with instance.running():
            instance.command("flush", "--timeout", "5m")
            settle(2)
            before, batches = cpu_by_role(instance), _batches(instance)
            grown = _bytes(instance)
            lags, drained = _stream(tree, node, files, rate)
            settle(1)
            spent = cpu_since(instance, before)
            _tell(found, rate, spent, lags)
            found.add("last file there, after the last was made", rate, drained, "s")
            journal = (_bytes(instance) - grown) / files
            found.add("Journal, each file", rate, journal, "bytes")
            told = (_batches(instance) - batches) / (SECONDS + drained)
            found.add("Batches", rate, told, "a second")
            rows = instance.progress().values()
            overflows = sum(row.overflows for row in rows)
            found.add("overflows of the kernel's queue", rate, overflows, "times")


def _tell(found: Series, rate: int, spent: dict[str, float], lags: list[float]) -> None:
    for role in (WATCHERS, SYNC, RSYNCS, REST):
        found.add(f"CPU, {role}", rate, 100 * spent[role] / SECONDS, "%")
    found.add("CPU, all together", rate, 100 * sum(spent.values()) / SECONDS, "%")
    found.add("Lag, median", rate, 1000 * statistics.median(lags), "ms")
    found.add("Lag, greatest", rate, 1000 * max(lags), "ms")


def _stream(tree: Path, node: Path, files: int, rate: int) -> tuple[list[float], float]:
    """(seconds of each file, seconds from the last file's close until the last arrived)."""
    closed: dict[str, float] = {}
    with Arrivals(node / f"d{number}" for number in range(_FOLDERS)) as arrivals:
        began = time.monotonic()
        while len(closed) < files:
            due = min(files, int((time.monotonic() - began) * rate))
            for number in range(len(closed), due):
                name = f"page-{number}.html"
                with open(f"{tree}/d{number % _FOLDERS}/{name}", "wb") as file:
                    file.write(b"a small page\n" * 15)
                closed[name] = time.monotonic()
            time.sleep(_TICK_SECONDS)
        last = max(closed.values())
        await_true(
            lambda: len(arrivals.at) >= files,
            seconds=_THERE_SECONDS, what="the files on the Node",
        )  # fmt: skip
    lags = [arrivals.at[name] - at for name, at in closed.items()]
    return lags, max(0.0, max(arrivals.at.values()) - last)


def _batches(instance: Instance) -> int:
    logs = instance.state.logs.glob("sync*.log*")
    return sum(log.read_bytes().count(b"batch.shipped") for log in logs)


def _bytes(instance: Instance) -> int:
    """What the Journals hold, whether it is in the file yet or in the write-ahead log."""
    total = 0
    for path in instance.state.path.glob("journal-*.db"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
            total += math.prod(
                journal.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "page_size")
            )
    return total
