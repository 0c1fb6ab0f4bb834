"""Files rewritten here and there, until all of them are on the Node."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tools.benches.bench import Bench, settle
from tools.benches.model import US, Part
from tools.benches.peers import await_lsyncd_ready, lsyncd
from tools.benches.processes import BenchFailed, await_true
from tools.benches.trees import LEAF_FILE

ALL_THERE = "first write to all on the Node"
_FILES, _MANY = 1_000, 20_000
_THERE_SECONDS = 180.0
_LSYNCD_SECONDS = 90.0
_REST_SECONDS = 2.0


def scattered(bench: Bench, part: Part) -> None:
    """1,000 files in as many directories, one after the other as fast as they can be written."""
    _scatter(bench, part, _FILES)


def scattered_many(bench: Bench, part: Part) -> None:
    """20,000 of them, or all that the tree has."""
    _scatter(bench, part, min(_MANY, bench.trees.scale.files))


def _scatter(bench: Bench, part: Part, files: int) -> None:
    bench.need_watches(part)
    bench.served()
    part.note(f"{files:,} files")

    def measure(program: str, folder: Path) -> None:
        paths = pick(bench, files)
        if program == US:
            with bench.serving() as (instance, _):
                instance.command("flush", "--timeout", "1h")
                settle(_REST_SECONDS)
                part.add(US, ALL_THERE, _timed(bench, paths, None))
        elif program == "lsyncd":
            with lsyncd(bench.trees.tree, folder, target=bench.trees.node, binary="rsync") as peer:
                await_lsyncd_ready(folder, peer)
                settle(_REST_SECONDS)
                part.add(program, ALL_THERE, _timed(bench, paths, peer.process))
        else:
            part.add(f"{program}, given the list", ALL_THERE, _bare(bench, paths))

    bench.rounds(part, bench.with_peers("lsyncd", "rsync"), measure)


def pick(bench: Bench, number: int) -> list[str]:
    """Files of the tree, each in a directory of its own, none twice."""
    scale = bench.trees.scale
    leaves = bench.random.sample(range(scale.files), number)
    return [f"{scale.leaf(leaf)}/{LEAF_FILE}" for leaf in leaves]


def rewrite(tree: Path, paths: list[str]) -> None:
    """Give each new bytes, in place; a length of its own tells old from new on a Node."""
    for path in paths:
        name = tree / path
        size = 100 + (os.stat(name).st_size + 1) % 100
        # Not truncated first, which frees its block: slow on a disk mounted with `discard`.
        with open(name, "r+b") as file:
            file.write(os.urandom(size))
            file.truncate()


def _timed(bench: Bench, paths: list[str], process: subprocess.Popen[bytes] | None) -> float:
    bench.trees.begin_change()
    began = time.monotonic()
    rewrite(bench.trees.tree, paths)
    there = await_true(
        lambda: _are_there(bench, paths),
        seconds=_THERE_SECONDS if process is None else _LSYNCD_SECONDS,
        what="the files on the Node", process=process, every=0.005,
    )  # fmt: skip
    bench.trees.end_change()
    return there - began


def _bare(bench: Bench, paths: list[str]) -> float:
    bench.trees.begin_change()
    began = time.monotonic()
    rewrite(bench.trees.tree, paths)
    done = subprocess.run(
        [
            "rsync", "-lptgoD", "-I", "--files-from=-", "--from0",
            f"{bench.trees.tree}/", f"{bench.trees.node}/",
        ],
        input=b"".join(path.encode() + b"\0" for path in paths),
        check=False,
    )  # fmt: skip
    elapsed = time.monotonic() - began
    if done.returncode or not _are_there(bench, paths):
        raise BenchFailed(f"rsync with the list ended with {done.returncode}")
    bench.trees.end_change()
    return elapsed


def _are_there(bench: Bench, paths: list[str]) -> bool:
    """Whether each has size and mtime of its original; rsync sets both with the rename."""
    return all(_is_there(bench, path) for path in reversed(paths))


def _is_there(bench: Bench, path: str) -> bool:
    try:
        ours, theirs = os.stat(bench.trees.tree / path), os.stat(bench.trees.node / path)
    except FileNotFoundError:
        return False
    return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)
