"""What bytes cost: files of 1 MiB each, to one local Node."""

from __future__ import annotations

import os
import time

from tools.benches.bench import Bench, settle
from tools.benches.instance import Instance
from tools.benches.processes import await_true
from tools.benches.scaling.model import Series
from tools.benches.scaling.roles import RSYNCS, SYNC, WATCHERS, cpu_by_role, cpu_since

SIZES = (10, 100, 1_000)
_MIB = 1024**2
_THERE_SECONDS = 240.0


def series() -> Series:
    """Nothing measured yet."""
    return Series(
        name="bytes",
        variable="MiB of new files",
        about=(
            "New files of 1 MiB each of random bytes, made one after the other as fast as they can"
            " be written, on a tmpfs with its one local Node beside it: from before the first"
            " write until all are on the Node. No network is part of it."
        ),
        step=1_000,
        target=100_000,
    )


def measure(bench: Bench, found: Series, size: int) -> None:
    """`size` files into an instance of its own."""
    with bench.folder() as folder, bench.memory_folder(2 * size * _MIB // 4096) as place:
        tree, node = place / "tree", place / "node"
        tree.mkdir()
        instance = Instance(folder=folder / "shardsync", root=tree, node=node, paused=False)
        instance.write_settings()
        content = os.urandom(_MIB)
        with instance.running():
            instance.command("flush", "--timeout", "5m")
            settle(2)
            before, began = cpu_by_role(instance), time.monotonic()
            for number in range(size):
                (tree / f"{number:05d}.bin").write_bytes(content)
            made = time.monotonic() - began
            there = await_true(
                lambda: sum(1 for _ in node.glob("*.bin")) >= size,
                seconds=_THERE_SECONDS, what="the files on the Node", every=0.005,
            )  # fmt: skip
            found.add("first write to all on the Node", size, there - began, "s")
            found.add("of that, until the last was written", size, made, "s")
            settle(1)
            spent = cpu_since(instance, before)
        for role in (WATCHERS, SYNC, RSYNCS):
            found.add(f"CPU, {role}", size, spent[role], "s")
