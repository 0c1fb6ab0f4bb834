"""What directories cost: the time to watch them, and memory of Watchers and kernel."""

from __future__ import annotations

import os
from pathlib import Path

from tools.benches.bench import Bench, settle
from tools.benches.cases.start import REST_SECONDS, watching_instance
from tools.benches.instance import Instance
from tools.benches.model import Part
from tools.benches.scaling.model import Series

SCALES = ("10k", "100k", "1m")
_MIB = 1024**2
_CACHES = Path("/proc/sys/vm/drop_caches")


def series() -> Series:
    """Nothing measured yet."""
    return Series(
        name="directories",
        variable="directories",
        about=(
            "An instance of as many Shards as processors is started on a tree of"
            " directories with a file in each leaf, page cache warm, its one Node paused. Kernel"
            " memory: slabs that stay when all that can be given back was given back, above those"
            " after its end."
        ),
        step=1_000_000,
        target=10_000_000,
    )


def measure(bench: Bench, found: Series) -> None:
    """One start on the tree of this scale."""
    part = Part(case=found.name, scale=bench.trees.scale.name, about="")
    bench.need_watches(part)
    tree = bench.trees.need_tree()
    bench.warm_up(part, tree)
    with bench.folder() as folder:
        instance = watching_instance(folder, tree)
        with instance.running() as came:
            settle(REST_SECONDS)
            count = sum(row.directories for row in instance.progress().values())
            found.add("`up` until all is watched", count, came.following, "s")
            found.add("of that, scanning", count, came.scan, "s")
            found.add("memory of the Watchers", count, instance.memory().rss / _MIB, "MiB")
            found.add("Journals on disk", count, _journal_bytes(instance) / _MIB, "MiB")
            held = _slabs()
        found.add("kernel memory", count, (held - _slabs()) / _MIB, "MiB")
    for note in part.notes:
        found.note(note)


def _journal_bytes(instance: Instance) -> int:
    """With their write-ahead logs."""
    return sum(os.stat(path).st_size for path in instance.state.path.glob("journal-*"))


def _slabs() -> int:
    """Bytes, once what is merely cached is given back; only root can ask for that."""
    _CACHES.write_text("2\n")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return 1024 * int(line.split()[1])
    return 0
