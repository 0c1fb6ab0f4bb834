"""`tools/bench scaling`: the same work at three sizes, for the tables of docs/scaling.md.

Takes some eight minutes for everything; --only takes a part. As root only: the kernel's memory
is read after its caches were dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from tools.benches import machine
from tools.benches.bench import Bench, Options
from tools.benches.processes import BenchFailed
from tools.benches.say import Display, tell
from tools.benches.scaling import directories, fan, page, rates, sizes
from tools.benches.scaling.model import Series
from tools.benches.trees import SCALES, Generator, Trees, default_folder

SERIES = ("directories", "changes", "nodes", "bytes")
_GROWING = {"changes": rates, "nodes": fan, "bytes": sizes}


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, _end)
    done: list[Series] = []
    try:
        where = _run(options, done)
    except (BenchFailed, KeyboardInterrupt, OSError) as error:
        tell(f"tools/bench scaling: {error or 'interrupted'}")
        return 1
    for series in done:
        print(page.table(series), end="\n\n")
    if options.markdown:
        page.merge(done, where)
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench scaling", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=SERIES, default=list(SERIES), metavar="NAME",
                        help=f"one or more of: {', '.join(SERIES)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", help="other sizes than the usual ones")
    parser.add_argument(
        "--trees", type=Path, default=default_folder(), help="where trees are kept"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="put the figures into docs/scaling.md"
    )
    return parser.parse_args()


def _run(options: argparse.Namespace, done: list[Series]) -> dict[str, str]:
    with contextlib.ExitStack() as stack:
        # /tmp, whatever TMPDIR says: paths of sockets are short.
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssb-", dir="/tmp")))
        display = stack.enter_context(Display())
        generator = Generator(work)
        where = machine.surroundings(work, generator.kind)
        for name in options.only:
            if name == "directories":
                done.append(_directories(options, generator, display, work))
                continue
            bench = _bench(options, "10k", generator, display, work)
            found = _GROWING[name].series()
            for size in options.sizes or _GROWING[name].SIZES:
                for number in range(options.rounds):
                    display.step(f"{name}: {size:,} {found.variable}, round {number + 1}")
                    _GROWING[name].measure(bench, found, size)
            done.append(found)
        return where


def _directories(
    options: argparse.Namespace, generator: Generator, display: Display, work: Path
) -> Series:
    found = directories.series()
    for scale in directories.SCALES:
        bench = _bench(options, scale, generator, display, work)
        # A million take two minutes to be walked, watched and given back by the kernel.
        for number in range(options.rounds if scale != directories.SCALES[-1] else 1):
            display.step(f"directories: {scale}, round {number + 1}")
            directories.measure(bench, found)
    return found


def _bench(
    options: argparse.Namespace, scale: str, generator: Generator, display: Display, work: Path
) -> Bench:
    trees = Trees(
        folder=options.trees.resolve(), scale=SCALES[scale], generator=generator, display=display
    )
    return Bench(
        options=Options(
            rounds=options.rounds, peers=(), changes=0, events=0, idle_seconds=0.0, create=0,
            backlog=0,
        ),
        trees=trees,
        generator=generator,
        display=display,
        work=work,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
