"""One small file, from close to visible on the Node: shardsync beside lsyncd, taking turns.

Both run at once, each on a tree and a Node of its own, with a settle delay of
0; files are written one at a time and alternately, so that a slow moment of
the machine hits both. Prints the distributions and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.nodes import RsyncDaemon

REPOSITORY = Path(__file__).resolve().parents[2]
VISIBLE_SECONDS = 20.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="tools/bench one-file")
    parser.add_argument("--node", choices=["local", "daemon"], default="local")
    parser.add_argument("--files", type=int, default=200, help="for each of the two")
    parser.add_argument("--pause", type=float, default=0.15, help="seconds between two files")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardsync-bench-") as folder:
        figures = measure(Path(folder), options.node, options.files, options.pause)
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
    samples: dict[str, list[float]] = {"shardsync": [], "lsyncd": []}
    with contextlib.ExitStack() as stack:
        places = {}
        for name, start in (("shardsync", run_shardsync), ("lsyncd", run_lsyncd)):
            base = folder / name
            source, node = base / "tree", base / "node"
            for number in range(20):
                (source / f"section-{number}").mkdir(parents=True)
            node.mkdir()
            target = str(node)
            if kind == "daemon":
                target = stack.enter_context(RsyncDaemon(workspace=base, path=node)).url
            stack.enter_context(start(base, source, target))
            places[name] = (source, node)
            await_visible(source, node, "section-0/warm-up", seconds=60)
        time.sleep(3)
        for number in range(files):
            for name, (source, node) in places.items():
                path = f"section-{number % 20}/page-{number}.html"
                samples[name].append(await_visible(source, node, path))
                time.sleep(pause)
    figures: dict[str, Any] = {name: summed_up(values) for name, values in samples.items()}
    figures["ratio"] = statistics.median(samples["shardsync"]) / statistics.median(
        samples["lsyncd"]
    )
    return figures


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
    cuts = statistics.quantiles(values, n=100)
    return {"p50": statistics.median(values), "p90": cuts[89], "p99": cuts[98], "max": max(values)}


@contextlib.contextmanager
def run_shardsync(base: Path, source: Path, target: str) -> Iterator[None]:
    """A whole instance under supervisord."""
    settings = base / "shardsync.toml"
    settings.write_text(
        f'[tree]\nname = "main"\nroot = "{source}"\n'
        f'[state]\ndir = "{base}/state"\n[metrics]\nlisten = ""\n'
        f'[[node]]\nname = "web1"\ntarget = "{target}"\n'
    )
    program = [str(REPOSITORY / ".venv/bin/shardsync"), "--config", str(settings)]
    subprocess.run([*program, "up"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([*program, "down"], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def run_lsyncd(base: Path, source: Path, target: str) -> Iterator[None]:
    """Lsyncd with delay 0 in the foreground."""
    config = base / "lsyncd.conf.lua"
    config.write_text(
        "settings { nodaemon = true }\n"
        f'sync {{ default.rsync, source = "{source}", target = "{target}/", delay = 0 }}\n'
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
