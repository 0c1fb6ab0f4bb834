"""Memory per watched directory, above what the same program needs for an empty tree; and flow."""

from __future__ import annotations

from pathlib import Path

from tools.benches.bench import Bench, settle, watching
from tools.benches.cases.flow import flow
from tools.benches.cases.start import REST_SECONDS, start_once, watching_instance
from tools.benches.model import US, Part
from tools.benches.processes import BenchFailed, Usage, usage

_PEERS = ("lsyncd", "inotifywait", "watchman")
_MIB = 1024**2


def memory(bench: Bench, part: Part) -> None:
    """RSS and PSS, 2 s after all was watched; those of a warm start in the same run count."""
    for program in bench.with_peers(*_PEERS):
        bench.display.step(f"memory: {program}")
        try:
            if program not in bench.memory:
                start_once(bench, part, program)
            base = _base(bench, program)
        except BenchFailed as error:
            part.check(f"{program} could be measured", program != US, str(error))
            continue
        _add(part, program, bench.memory[program], base, bench.trees.scale.directories)
    for used in bench.memory.get("all of shardsync", []):
        part.add("shardsync, all processes", "RSS", used.rss / _MIB, "MiB")
        part.add("shardsync, all processes", "PSS", used.pss / _MIB, "MiB")
    flow(bench, part)


def _add(part: Part, program: str, used: list[Usage], base: Usage, directories: int) -> None:
    for sample in used:
        part.add(program, "RSS", sample.rss / _MIB, "MiB")
        part.add(program, "PSS", sample.pss / _MIB, "MiB")
        part.add(program, "RSS above base", (sample.rss - base.rss) / directories, "B/directory")
    part.add(program, "RSS on an empty tree", base.rss / _MIB, "MiB")


def _base(bench: Bench, program: str) -> Usage:
    """On an empty tree; for shardsync as many Watchers as there were on the full one."""
    with bench.folder() as folder:
        tree = folder / "empty"
        tree.mkdir()
        if program != US:
            with watching(program)(tree, folder) as peer:
                settle(REST_SECONDS)
                return usage(peer.pids())
        return _own_base(tree, folder)


def _own_base(tree: Path, folder: Path) -> Usage:
    # Some sections, so that every Shard of the Plan gets one.
    for number in range(64):
        (tree / f"d{number}").mkdir()
    instance = watching_instance(folder, tree)
    with instance.running():
        settle(REST_SECONDS)
        return instance.memory()
