"""The same changes to many Nodes: beside bare rsyncs, and with one Node that hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.nodes import RsyncDaemon
from tools.benches.bench import Bench, settle
from tools.benches.instance import Instance
from tools.benches.model import US, Part
from tools.benches.processes import BenchFailed, await_true

_FILES, _PER_DIRECTORY = 10_000, 100
_COUNTS = (1, 8, 16)
_PARALLEL = 8
_BARE = "rsync, given the list"
_THERE_SECONDS = 300.0
_REST_SECONDS = 2.0
_SINGLES = 20


def fan_out(bench: Bench, part: Part) -> None:
    """10,000 files rewritten, to 1, 8 and 16 local Nodes, at most 8 rsyncs at a time."""
    for count in _COUNTS:

        def measure(program: str, folder: Path, count: int = count) -> None:
            with place(bench, count) as (tree, nodes):
                if program == US:
                    with following(folder, tree, nodes):
                        began = time.monotonic()
                        rewrite(tree)
                        there = await_same(tree, nodes)
                        part.add(US, f"{count} Nodes", there - began)
                else:
                    began = time.monotonic()
                    names = rewrite(tree)
                    _bare(tree, nodes, names)
                    part.add(_BARE, f"{count} Nodes", time.monotonic() - began)

        bench.rounds(part, bench.with_peers("rsync"), measure)
    bench.rounds(part, [US], lambda _, folder: _with_one_stopped(bench, part, folder))


def _with_one_stopped(bench: Bench, part: Part, folder: Path) -> None:
    """Single files to 8 local Nodes and a daemon, which is then stopped; 2 rsyncs at a time."""
    with place(bench, 8) as (tree, nodes):
        far = folder / "far"
        far.mkdir()
        with RsyncDaemon(workspace=folder, path=far) as daemon:
            sync = "[sync]\nmax_rsyncs = 2\n"
            with following(folder, tree, nodes, sync, daemon.url):
                await_same(tree, [far])
                for what in ("all well", "one more stopped"):
                    if what != "all well":
                        daemon.signal(signal.SIGSTOP)
                        _single(tree, nodes, "unmeasured")
                        settle(3.0)
                    for number in range(_SINGLES):
                        seconds = _single(tree, nodes, f"single-{number}")
                        part.add(
                            US, f"one file to the last of 8 Nodes, {what}", 1000 * seconds, "ms"
                        )
                daemon.signal(signal.SIGCONT)
                await_same(tree, [far])


def _single(tree: Path, nodes: Sequence[Path], name: str) -> float:
    path = f"e00000/{name}-{time.monotonic_ns()}"
    (tree / path).write_text("a page\n")
    began = time.monotonic()
    there = await_true(
        lambda: all((node / path).exists() for node in nodes),
        seconds=_THERE_SECONDS, what="a single file on the Nodes", every=0.0005,
    )  # fmt: skip
    settle(0.15)
    return there - began


@contextlib.contextmanager
def place(bench: Bench, count: int, *, files: int = _FILES) -> Iterator[tuple[Path, list[Path]]]:
    """A tree of so many files, and copies of it."""
    with bench.memory_folder(files * (count + 1)) as folder:
        tree = folder / "tree"
        tree.mkdir()
        bench.generator.run("files", tree, 4, files, _PER_DIRECTORY)
        nodes = [folder / f"node-{number}" for number in range(count)]
        for node in nodes:
            subprocess.run(["cp", "-a", tree, node], check=True)
        yield tree, nodes


@contextlib.contextmanager
def following(
    folder: Path, tree: Path, nodes: Sequence[Path], more: str = "", far: str = ""
) -> Iterator[Instance]:
    """An instance with these Nodes, in step."""
    tables = "".join(
        f'[[node]]\nname = "node-{number}"\ntarget = "{node}"\n'
        for number, node in enumerate(nodes[1:], start=1)
    )
    if far:
        tables += f'[[node]]\nname = "far"\ntarget = "{far}"\n'
    more = more or f"[sync]\nmax_rsyncs = {_PARALLEL}\n"
    instance = Instance(
        folder=folder / "shardsync", root=tree, node=nodes[0], paused=False, more=more
    )
    instance.write_settings()
    with (instance.folder / "shardsync.toml").open("a") as settings:
        settings.write(tables)
    with instance.running():
        instance.command("flush", "--timeout", "10m")
        settle(_REST_SECONDS)
        yield instance


def rewrite(tree: Path) -> list[str]:
    """Every file with other bytes; their names."""
    names = []
    for folder in sorted(os.listdir(tree)):
        for name in os.listdir(tree / folder):
            names.append(f"{folder}/{name}")
            (tree / folder / name).write_bytes(os.urandom(20))
    return names


def _bare(tree: Path, nodes: Sequence[Path], names: Sequence[str]) -> None:
    entries = b"".join(name.encode() + b"\0" for name in names)

    def one(node: Path) -> int:
        argv = ["rsync", "-lptgoD", "-I", "--files-from=-", "--from0", f"{tree}/", f"{node}/"]
        return subprocess.run(argv, input=entries, check=False).returncode

    with ThreadPoolExecutor(_PARALLEL) as pool:
        codes = list(pool.map(one, nodes))
    if any(codes):
        raise BenchFailed(f"rsync with the list ended with {codes}")


def await_same(tree: Path, nodes: Sequence[Path]) -> float:
    """When each file has size and mtime of its original everywhere; rsync sets both at once.

    Asked of the last files of each directory, and then once of all: looking at all of them all
    the time would take a processor from what is measured. Monotonic seconds.
    """
    wanted = _stamps(tree)
    last: dict[str, list[str]] = {}
    for path in wanted:
        last.setdefault(path.partition("/")[0], []).append(path)
    some = [path for paths in last.values() for path in paths[-3:]]
    for node in nodes:
        await_true(
            lambda node=node: all(_stamp(node / path) == wanted[path] for path in some),  # type: ignore[misc]  # bound now
            seconds=_THERE_SECONDS, what=f"files on {node.name}", every=0.02,
        )  # fmt: skip
    there = time.monotonic()
    for node in nodes:
        if _stamps(node) != wanted:
            there = await_true(
                lambda node=node: _stamps(node) == wanted,  # type: ignore[misc]  # bound now
                seconds=_THERE_SECONDS, what=f"all files on {node.name}", every=0.02,
            )  # fmt: skip
    return there


def _stamps(tree: Path) -> dict[str, tuple[int, int] | None]:
    found = {}
    for folder in os.scandir(tree):
        with os.scandir(folder.path) as entries:
            for entry in entries:
                found[f"{folder.name}/{entry.name}"] = _stamp(entry.path)
    return found


def _stamp(path: Path | str) -> tuple[int, int] | None:
    """None where it is gone, as rsync's temporary files soon are."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
