"""What Nodes cost: 1,000 files to so many local ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tools.benches.bench import Bench, settle
from tools.benches.cases.fan_out import await_same, following, place, rewrite
from tools.benches.instance import Instance
from tools.benches.processes import usage
from tools.benches.scaling.model import Series
from tools.benches.scaling.roles import RSYNCS, SYNC, cpu_by_role, cpu_since, sync_pid

SIZES = (1, 4, 16)
_FILES = 1_000
_MIB = 1024**2


def series() -> Series:
    """Nothing measured yet."""
    return Series(
        name="nodes",
        variable="local Nodes",
        about=(
            f"{_FILES:,} files rewritten, from before the first write until each is on every Node;"
            " all settings as they are, so at most 8 rsyncs at a time; on a tmpfs. Memory, open"
            " files and processes: in step, before the first write, with the rsyncs that wait."
        ),
        step=1,
        target=200,
    )


def measure(bench: Bench, found: Series, count: int) -> None:
    """One instance with so many Nodes; two rounds of rewriting."""
    with (
        bench.folder() as folder,
        place(bench, count, files=_FILES) as (tree, nodes),
        following(folder, tree, nodes, "[sync]\n") as instance,
    ):
        _memory(found, count, instance)
        for _ in range(2):
            _timed(found, count, instance, tree, nodes)


def _memory(found: Series, count: int, instance: Instance) -> None:
    pid = sync_pid(instance)
    everything = instance.everything()
    used = usage(everything)
    found.add("memory of the sync process", count, usage([pid]).rss / _MIB, "MiB")
    found.add("memory of all processes (PSS)", count, used.pss / _MIB, "MiB")
    found.add(
        "open files of the sync process", count, len(os.listdir(f"/proc/{pid}/fd")), "descriptors"
    )
    found.add("processes", count, len(everything), "processes")


def _timed(found: Series, count: int, instance: Instance, tree: Path, nodes: list[Path]) -> None:
    before, began = cpu_by_role(instance), time.monotonic()
    rewrite(tree)
    there = await_same(tree, nodes)
    found.add(f"{_FILES:,} files on all Nodes", count, there - began, "s")
    settle(2)
    spent = cpu_since(instance, before)
    for role in (SYNC, RSYNCS):
        found.add(f"CPU of that, {role}", count, spent[role], "s")
