"""New files all at once, in new directories: with the Node in step, and after it was paused."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from shardsync.control.programs import SYNC_MODULE
from tools.benches.bench import Bench, settle
from tools.benches.instance import Instance
from tools.benches.model import US, Part
from tools.benches.peers import await_lsyncd_ready, lsyncd
from tools.benches.processes import BenchFailed, await_true, running, usage

ALL_THERE = "first file to all on the Node"
_FILES, _PER_DIRECTORY = 10_000, 10
_BACKLOG_PER_DIRECTORY = 1_000
_PROCESSES = 4
_LSYNCD_SECONDS = 90.0
_REST_SECONDS = 2.0
_LOOK_SECONDS = 0.5
_DRAIN_SECONDS = 3600.0
_MIB = 1024**2


def new_files(bench: Bench, part: Part) -> None:
    """10,000 files in 1,000 new directories, by four processes."""

    def measure(program: str, folder: Path) -> None:
        with bench.memory_folder(4 * _FILES) as place:
            tree, node = place / "tree", place / "node"
            tree.mkdir()
            node.mkdir()
            if program == US:
                instance = Instance(
                    folder=folder / "shardsync", root=tree, node=node, paused=False
                )
                instance.write_settings()
                with instance.running():
                    instance.command("flush", "--timeout", "5m")
                    settle(_REST_SECONDS)
                    part.add(US, ALL_THERE, _timed(bench, tree, node, None))
            elif program == "lsyncd":
                with lsyncd(tree, folder, target=node, binary="rsync") as peer:
                    await_lsyncd_ready(folder, peer)
                    settle(_REST_SECONDS)
                    part.add(program, ALL_THERE, _timed(bench, tree, node, peer.process))
            else:
                began = time.monotonic()
                _make(bench, tree)
                with running(["rsync", "-a", f"{tree}/", f"{node}/"]) as process:
                    process.wait()
                part.add(f"{program} -a, afterwards", ALL_THERE, time.monotonic() - began)

    bench.rounds(part, bench.with_peers("lsyncd", "rsync"), measure)


def _make(bench: Bench, tree: Path) -> None:
    bench.generator.run("files", tree, _PROCESSES, _FILES, _PER_DIRECTORY)


def _timed(bench: Bench, tree: Path, node: Path, process: subprocess.Popen[bytes] | None) -> float:
    began = time.monotonic()
    _make(bench, tree)
    there = await_true(
        lambda: sum(1 for _ in node.glob("e*/f*")) >= _FILES,
        seconds=_LSYNCD_SECONDS, what="the files on the Node", process=process, every=0.02,
    )  # fmt: skip
    return there - began


def backlog(bench: Bench, part: Part) -> None:
    """`--backlog` new files while the Node is paused, then drained: time, and memory."""
    count = bench.options.backlog
    part.note(f"{count:,} files in directories of {_BACKLOG_PER_DIRECTORY:,}")

    def measure(program: str, folder: Path) -> None:
        with bench.memory_folder(2 * count) as place:
            tree, node = place / "tree", place / "node"
            tree.mkdir()
            node.mkdir()
            if program == US:
                _drained(bench, part, folder, tree, node)
                return
            bench.generator.run("files", tree, _PROCESSES, count, _BACKLOG_PER_DIRECTORY)
            began = time.monotonic()
            with running(["rsync", "-a", f"{tree}/", f"{node}/"]) as process:
                process.wait()
            part.add(f"{program} -a", "backlog to all on the Node", time.monotonic() - began)

    bench.rounds(part, bench.with_peers("rsync"), measure, rounds=1)


def _drained(bench: Bench, part: Part, folder: Path, tree: Path, node: Path) -> None:
    instance = Instance(folder=folder / "shardsync", root=tree, node=node, paused=False)
    instance.write_settings()
    count = bench.options.backlog
    with instance.running():
        instance.command("flush", "--timeout", "5m")
        instance.command("pause", "node")
        before = {reader.path: reader.progress().changes_total for reader in instance.readers()}
        pid = _sync_pid(instance)
        idle = usage([pid]).rss / _MIB
        bench.generator.run("files", tree, _PROCESSES, count, _BACKLOG_PER_DIRECTORY)
        _await_quiet(instance)
        changes = sum(
            reader.progress().changes_total - before[reader.path] for reader in instance.readers()
        )
        began = time.monotonic()
        instance.command("resume", "node")
        peak = idle
        argv = instance.argv("flush", "--timeout", "1h")
        with running(argv, environment=instance.variables()) as flush:
            deadline = time.monotonic() + _DRAIN_SECONDS
            while flush.poll() is None and time.monotonic() < deadline:
                peak = max(peak, usage([pid]).rss / _MIB)
                time.sleep(_LOOK_SECONDS)
        if flush.returncode:
            raise BenchFailed(f"flush ended with {flush.returncode}")
        part.add(US, "backlog to all on the Node", time.monotonic() - began)
        part.add(US, "Changes in the backlog", changes, "")
        part.add(US, "RSS of the sync process, idle", idle, "MiB")
        part.add(US, "RSS of the sync process, most", peak, "MiB")
    part.check(
        "the sync process takes at most 100 MiB more than idle",
        peak - idle <= 100,
        f"{peak - idle:.1f} MiB",
    )


def _sync_pid(instance: Instance) -> int:
    for pid in instance.everything():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if SYNC_MODULE.encode() in words:
            return pid
    raise BenchFailed("no sync process is to be found")


def _await_quiet(instance: Instance) -> None:
    """Until all that is on disk is journaled."""
    instance.flush("bench")
    await_true(
        lambda: instance.is_acknowledged("bench"),
        seconds=_DRAIN_SECONDS, what="the Watchers' answer to a flush",
    )  # fmt: skip
    instance.forget("bench")
