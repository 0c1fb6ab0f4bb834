"""One small file, from close to visible on the Node: shardsync beside lsyncd, taking turns.

Both run at once, each on a tree and a Node of its own, with a settle delay of
0; files are written one at a time and alternately, so that a slow moment of
the machine hits both. Prints the distributions and the ratio of the medians.
With --rate, one after the other and alone: so many files a second, never waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.nodes import RsyncDaemon, Sshd
from tools.benches.arrivals import Arrivals

REPOSITORY = Path(__file__).resolve().parents[2]
VISIBLE_SECONDS = 20.0
KINDS = ("local", "daemon", "ssh")
PROGRAMS = ("shardsync", "lsyncd")
SECTIONS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="tools/bench one-file")
    parser.add_argument("--node", choices=KINDS, default="local")
    parser.add_argument("--files", type=int, default=200, help="for each of the two")
    parser.add_argument("--pause", type=float, default=0.15, help="seconds between two files")
    parser.add_argument("--rate", type=float, default=0.0, help="a stream of so many a second")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # /tmp, whatever TMPDIR says: paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="ssb-", dir="/tmp") as folder:
        place, kind, files = Path(folder), options.node, options.files
        figures = (
            stream(place, kind, files, options.rate)
            if options.rate
            else measure(place, kind, files, options.pause)
        )
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    print(f"one small file, {options.node} Node, {options.files} files each, close to visible")
    print(f"{'':10} {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8}   milliseconds")
    for name in ("shardsync", "lsyncd"):
        row = figures[name]
        print(f"{name:10}", *(f"{row[key]:8.1f}" for key in ("p50", "p90", "p99", "max")))
    print(f"ratio of the medians: {figures['ratio']:.2f}")


def measure(folder: Path, kind: str, files: int, pause: float) -> dict[str, Any]:
    """Milliseconds per file for both programs, summed up."""
    samples: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with contextlib.ExitStack() as stack:
        places = {
            name: stack.enter_context(in_step(folder / name, name, kind)) for name in PROGRAMS
        }
        time.sleep(3)
        for number in range(files):
            for name, (source, node) in places.items():
                path = f"section-{number % SECTIONS}/page-{number}.html"
                samples[name].append(await_visible(source, node, path))
                time.sleep(pause)
    return compared(samples)


def stream(folder: Path, kind: str, files: int, rate: float) -> dict[str, Any]:
    """As `measure`, but `rate` files a second for one program, and then for the other."""
    samples: dict[str, list[float]] = {}
    for name in PROGRAMS:
        with in_step(folder / name, name, kind) as (source, node):
            time.sleep(3)
            samples[name] = streamed(source, node, files, rate)
    return compared(samples)


def streamed(source: Path, node: Path, files: int, rate: float) -> list[float]:
    """Milliseconds from close to visible of each file; `inf` for one that did not come in time."""
    closed: dict[str, float] = {}
    with Arrivals(node / f"section-{number}" for number in range(SECTIONS)) as arrivals:
        began = time.monotonic()
        for number in range(files):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            name = f"page-{number}.html"
            (source / f"section-{number % SECTIONS}" / name).write_text("a small page\n" * 15)
            closed[name] = time.monotonic()
        deadline = time.monotonic() + VISIBLE_SECONDS
        while len(closed.keys() & arrivals.at.keys()) < files and time.monotonic() < deadline:
            time.sleep(0.05)
        return [1000 * (arrivals.at.get(name, math.inf) - at) for name, at in closed.items()]


def compared(samples: dict[str, list[float]]) -> dict[str, Any]:
    """Percentiles of each program, and the ratio of the medians."""
    figures: dict[str, Any] = {name: summed_up(values) for name, values in samples.items()}
    figures["ratio"] = figures["shardsync"]["p50"] / figures["lsyncd"]["p50"]
    return figures


@contextlib.contextmanager
def in_step(base: Path, name: str, kind: str) -> Iterator[tuple[Path, Path]]:
    """(tree, Node) of a program that runs and has shipped its first file."""
    source, node = base / "tree", base / "node"
    for number in range(SECTIONS):
        (source / f"section-{number}").mkdir(parents=True)
    node.mkdir()
    target = str(node)
    ssh_options: Sequence[str] = ()
    with contextlib.ExitStack() as stack:
        if kind == "daemon":
            target = stack.enter_context(RsyncDaemon(workspace=base, path=node)).url
        elif kind == "ssh":
            sshd = stack.enter_context(Sshd(workspace=base))
            target, ssh_options = f"127.0.0.1:{node}", sshd.ssh_options
        start = {"shardsync": run_shardsync, "lsyncd": run_lsyncd}[name]
        stack.enter_context(start(base, source, target, ssh_options))
        await_visible(source, node, "section-0/warm-up", seconds=60)
        yield source, node


def await_visible(source: Path, node: Path, path: str, seconds: float = VISIBLE_SECONDS) -> float:
    """Write a file and wait for it on the Node; milliseconds from close to visible."""
    content = os.urandom(200).hex()
    goal = node / path
    (source / path).write_text(content)
    closed = time.monotonic()
    while time.monotonic() < closed + seconds:
        if goal.exists():
            elapsed = 1000 * (time.monotonic() - closed)
            if goal.read_text() != content:
                sys.exit(f"{goal} holds other bytes than were written")
            return elapsed
        time.sleep(0.0002)
    sys.exit(f"{goal} was not there after {seconds:.0f} s")


def summed_up(values: list[float]) -> dict[str, float]:
    """Percentiles of milliseconds."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": statistics.median(values), "p90": cuts[89], "p99": cuts[98], "max": max(values)}


@contextlib.contextmanager
def run_shardsync(
    base: Path, source: Path, target: str, ssh_options: Sequence[str]
) -> Iterator[None]:
    """A whole instance under supervisord."""
    settings = base / "shardsync.toml"
    settings.write_text(
        f'[tree]\nname = "main"\nroot = "{source}"\n'
        f'[state]\ndir = "{base}/state"\n[metrics]\nlisten = ""\n'
        f'[[node]]\nname = "web1"\ntarget = "{target}"\n'
        f"ssh_options = {json.dumps(list(ssh_options))}\n"
    )
    program = [str(REPOSITORY / ".venv/bin/shardsync"), "--config", str(settings)]
    subprocess.run([*program, "up"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([*program, "down"], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def run_lsyncd(
    base: Path, source: Path, target: str, ssh_options: Sequence[str]
) -> Iterator[None]:
    """Lsyncd with delay 0 in the foreground."""
    config = base / "lsyncd.conf.lua"
    shell = f'rsync = {{ rsh = "{shlex.join(["ssh", *ssh_options])}" }}' if ssh_options else ""
    config.write_text(
        "settings { nodaemon = true }\n"
        f'sync {{ default.rsync, source = "{source}", target = "{target}/",'
        f" delay = 0, {shell} }}\n"
    )
    with (base / "lsyncd.log").open("wb") as log:
        process = subprocess.Popen(["lsyncd", config], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


if __name__ == "__main__":
    main()
