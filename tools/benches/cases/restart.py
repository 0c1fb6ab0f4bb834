"""Stopped cleanly and started again with nothing changed: until the Node is current."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tools.benches.bench import Bench, settle
from tools.benches.instance import Instance
from tools.benches.model import US, Part
from tools.benches.peers import await_lsyncd_ready, lsyncd
from tools.benches.processes import BenchFailed, running

CURRENT = "start to current"
_FLUSH = ("flush", "--timeout", "1h")
_AFTERMATH_SECONDS = 2.0


def restart(bench: Bench, part: Part) -> None:
    """`up` until `flush` has answered; lsyncd until its first rsync is through; rsync -a."""
    bench.need_watches(part)
    instance = bench.served()

    def measure(program: str, folder: Path) -> None:
        bench.warm_up(part, bench.trees.tree, bench.trees.node)
        if program != US:
            restart_peer(bench, part, program, folder)
            return
        changes, entries = restart_ours(bench, part, instance)
        part.check("no Change was journaled", not changes, f"{len(changes)}: {changes[:5]}")
        part.check("nothing was listed to be shipped", entries == 0, f"{entries} entries")

    bench.rounds(part, bench.with_peers("lsyncd", "rsync"), measure)


def restart_ours(bench: Bench, part: Part, instance: Instance) -> tuple[list[bytes], int]:
    """Start it, wait for a flush; (paths of the Changes journaled, entries sent to rsync)."""
    positions = instance.positions()
    bench.counted.reset()
    instance.environment = bench.counted.environment
    with instance.started() as began:
        with running(
            instance.argv(*_FLUSH), environment=instance.variables(), output=subprocess.PIPE
        ) as flush:
            came = instance.await_following(began)
            said, _ = flush.communicate()
            current = time.monotonic() - began
        if flush.returncode:
            raise BenchFailed(f"flush after the restart: {said.decode(errors='replace')}")
        settle(_AFTERMATH_SECONDS)
        changes = instance.changes_after(positions)
    count = bench.counted.count()
    part.add(US, CURRENT, current)
    part.add(US, "start to following", came.following)
    part.add(US, "Changes journaled", len(changes), "")
    part.add(US, "list entries sent to rsync", count.entries, "")
    part.add(US, "bytes of lists", count.list_bytes, "")
    part.add(US, "entries that a dry run looked at", count.looked_at, "")
    part.add(US, "rsyncs that compare trees", count.comparing, "")
    part.add(US, "rsyncs started, waiting ones included", count.runs, "")
    return changes, count.entries


def restart_peer(bench: Bench, part: Part, program: str, folder: Path) -> None:
    """A peer on the same tree and Node."""
    tree, node = bench.trees.tree, bench.trees.node
    bench.counted.reset()
    began = time.monotonic()
    if program == "lsyncd":
        binary = str(bench.counted.program)
        with lsyncd(tree, folder, target=node, binary=binary) as peer:
            part.add(program, CURRENT, await_lsyncd_ready(folder, peer) - began)
    else:
        argv = [str(bench.counted.program), "-a", "--delete", f"{tree}/", f"{node}/"]
        with running(argv) as process:
            if process.wait():
                raise BenchFailed(f"{argv} ended with {process.returncode}")
        part.add(program, CURRENT, time.monotonic() - began)
    part.add(program, "rsyncs that compare trees", bench.counted.count().comparing, "")
