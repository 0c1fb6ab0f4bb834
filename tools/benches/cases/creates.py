"""Files created at full speed by several processes, with the kernel's queue as it is."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tools.benches.bench import Bench
from tools.benches.instance import Instance
from tools.benches.model import US, Part
from tools.benches.peers import await_lsyncd_ready, lsyncd
from tools.benches.processes import BenchFailed, await_true, running

CREATED = "first file to all on the Node"
_PROCESSES, _PER_DIRECTORY = 4, 1_000
_LSYNCD_SECONDS = 120.0


def create(bench: Bench, part: Part) -> None:
    """By four processes, into an empty tree with one local Node beside it."""
    count = bench.options.create

    def measure(program: str, folder: Path) -> None:
        with bench.memory_folder(2 * count) as place:
            tree, node = place / "tree", place / "node"
            tree.mkdir()
            node.mkdir()
            if program == US:
                _ours(bench, part, folder, tree, node)
            elif program == "lsyncd":
                _lsyncd(bench, part, folder, tree, node)
            else:
                began = _create(bench, part, program, tree)
                with running(["rsync", "-a", f"{tree}/", f"{node}/"]) as process:
                    process.wait()
                part.add(f"{program} -a, afterwards", CREATED, time.monotonic() - began)

    part.note(f"{count:,} files in directories of {_PER_DIRECTORY:,}, by {bench.generator.kind}")
    bench.rounds(part, bench.with_peers("lsyncd", "rsync"), measure)


def _create(bench: Bench, part: Part, program: str, tree: Path) -> float:
    began = time.monotonic()
    bench.generator.run("files", tree, _PROCESSES, bench.options.create, _PER_DIRECTORY)
    part.add(program, "creating them", time.monotonic() - began)
    return began


def _ours(bench: Bench, part: Part, folder: Path, tree: Path, node: Path) -> None:
    instance = Instance(folder=folder / "shardsync", root=tree, node=node, paused=False)
    instance.write_settings()
    with instance.running():
        instance.command("flush", "--timeout", "5m")
        began = _create(bench, part, US, tree)
        instance.command("flush", "--timeout", "1h")
        part.add(US, CREATED, time.monotonic() - began)
        rows = instance.progress().values()
        part.add(US, "overflows of the queue", sum(row.overflows for row in rows), "")
        different = bench.differences(tree, node)
    part.check(
        "nothing is lost (rsync -naic --delete)",
        not different,
        f"{len(different)} lines {different[:3]}",
    )


def _lsyncd(bench: Bench, part: Part, folder: Path, tree: Path, node: Path) -> None:
    with lsyncd(tree, folder, target=node, binary="rsync") as peer:
        await_lsyncd_ready(folder, peer)
        began = _create(bench, part, "lsyncd", tree)

        def is_there() -> bool:
            done = subprocess.run(
                ["find", str(node), "-type", "f", "-name", "f*"],
                capture_output=True, check=False,
            )  # fmt: skip
            return done.stdout.count(b"\n") >= bench.options.create

        try:
            there = await_true(
                is_there, seconds=_LSYNCD_SECONDS, what="lsyncd", process=peer.process, every=0.5
            )
        except BenchFailed:
            part.note(f"lsyncd: not done {_LSYNCD_SECONDS:.0f} s after the last file was created")
        else:
            part.add("lsyncd", CREATED, there - began)
