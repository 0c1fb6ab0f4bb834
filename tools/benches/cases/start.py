"""From the command to all directories watched, page cache warm or dropped."""

from __future__ import annotations

from pathlib import Path

from tools.benches.bench import Bench, drop_caches, settle, watching
from tools.benches.instance import Instance
from tools.benches.model import US, Part
from tools.benches.processes import usage

WATCHED = "start to watching"
_PEERS = ("lsyncd", "inotifywait", "watchman")
REST_SECONDS = 2.0


def warm(bench: Bench, part: Part) -> None:
    """Page cache warm, made so before each program, which is not measured."""
    tree = _prepared(bench, part)

    def measure(program: str, folder: Path) -> None:
        bench.warm_up(part, tree)
        _start(bench, part, program, tree, folder, keep_memory=True)

    bench.rounds(part, bench.with_peers(*_PEERS), measure)


def cold(bench: Bench, part: Part) -> None:
    """The page cache dropped before each start; root only."""
    tree = _prepared(bench, part)
    drop_caches()

    def measure(program: str, folder: Path) -> None:
        drop_caches()
        _start(bench, part, program, tree, folder, keep_memory=False)

    bench.rounds(part, bench.with_peers(*_PEERS), measure)


def start_once(bench: Bench, part: Part, program: str) -> None:
    """One start whose memory is kept, for the case that needs nothing else."""
    tree = _prepared(bench, part)
    with bench.folder() as folder:
        _start(bench, None, program, tree, folder, keep_memory=True)


def watching_instance(folder: Path, tree: Path) -> Instance:
    """A shardsync that only watches: its one Node is paused from the beginning."""
    instance = Instance(folder=folder / "shardsync", root=tree, node=folder / "node")
    instance.write_settings()
    return instance


def _prepared(bench: Bench, part: Part) -> Path:
    bench.need_watches(part)
    return bench.trees.need_tree()


def _start(
    bench: Bench, part: Part | None, program: str, tree: Path, folder: Path, *, keep_memory: bool
) -> None:
    if program == US:
        instance = watching_instance(folder, tree)
        with instance.running() as came:
            if part is not None:
                part.add(US, WATCHED, came.following)
                part.add(US, "first Watcher's start to watching", came.scan)
            if keep_memory:
                settle(REST_SECONDS)
                bench.memory.setdefault(US, []).append(instance.memory())
                bench.memory.setdefault("all of shardsync", []).append(
                    usage(instance.everything())
                )
        return
    with watching(program)(tree, folder) as peer:
        if part is not None:
            part.add(program, WATCHED, peer.seconds)
        if keep_memory:
            settle(REST_SECONDS)
            bench.memory.setdefault(program, []).append(usage(peer.pids()))
