"""`tools/bench`: makes trees, measures shardsync beside its peers, prints tables of medians."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tools.benches import machine, peers, report, table
from tools.benches.bench import Bench, Options
from tools.benches.cases import CASES, DEFAULT, OPTIONAL
from tools.benches.model import Part
from tools.benches.processes import BenchFailed
from tools.benches.say import Display, tell
from tools.benches.trees import SCALES, Generator, Trees, default_folder

_EPILOG = """\
Every case runs the programs by turns, in an order that rotates from round to
round. Trees are kept in the folder of --trees for the next run; all else that
a run makes goes with it. The exit code is 1 where a case found something that
ought not to be so.
"""


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, _end)
    done = Done()
    try:
        _offer(install=options.install)
        _run(options, done)
    except BenchFailed as error:
        tell(f"tools/bench: {error}")
        return 1
    except KeyboardInterrupt:
        tell("interrupted; what was started has been ended, and these cases were done:")
        _report(options, done)
        return 130
    _report(options, done)
    return 0 if all(part.is_well for part in done.parts) else 1


@dataclass(slots=True)
class Done:
    """The cases that came to their end, and where they were run."""

    parts: list[Part] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)


def _report(options: argparse.Namespace, done: Done) -> None:
    for part in done.parts:
        print(table.text(part), end="\n\n")
    if options.json:
        text = json.dumps(report.document(done.parts, done.where), indent=1)
        options.json.write_text(text + "\n")
    if options.markdown and done.parts:
        report.merge(done.parts, done.where)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench", description=__doc__, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--scale", choices=list(SCALES), default="10k", help="leaf directories")
    parser.add_argument(
        "--case", nargs="+", choices=list(CASES), default=list(DEFAULT), metavar="NAME",
        help=f"one or more of: {', '.join(CASES)}"
        f" (default: all but {', '.join(sorted(OPTIONAL))})",
    )  # fmt: skip
    parser.add_argument("--rounds", type=_positive, default=3)
    parser.add_argument(
        "--peers", nargs="*", choices=list(peers.PACKAGES), default=list(peers.PACKAGES),
        metavar="NAME", help=f"beside these alone: {', '.join(peers.PACKAGES)}",
    )  # fmt: skip
    parser.add_argument(
        "--trees", type=Path, default=default_folder(), help="where trees are kept"
    )
    parser.add_argument(
        "--only-trees", action="store_true", help="make the trees, measure nothing"
    )
    parser.add_argument("--remove-trees", action="store_true", help="delete the trees afterwards")
    parser.add_argument("--install", action="store_true", help="install missing peers first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--markdown", action="store_true", help="put the figures into docs/benchmarks.md, README"
    )
    parser.add_argument(
        "--changes", type=_positive, help="how many Changes flow in `memory`", default=100_000
    )
    parser.add_argument("--events", type=_positive, default=200_000, help="how many in `events`")
    parser.add_argument("--create", type=_positive, default=200_000, help="files in `create`")
    parser.add_argument(
        "--backlog", type=_positive, default=1_000_000, help="how many Changes in `backlog`"
    )
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _offer(*, install: bool) -> None:
    absent = peers.missing()
    if not absent:
        return
    packages = " ".join(peers.PACKAGES[name] for name in absent)
    tell(f"not installed: {', '.join(absent)} (packages: {packages})")
    if not install and sys.stdin.isatty() and sys.stderr.isatty():
        sys.stderr.write("install them? [y/N] ")
        sys.stderr.flush()
        install = sys.stdin.readline().strip().lower() in {"y", "yes"}
    if not install:
        tell("going on without; --install installs them")
        return
    script = 'source "$1"; shift; install_packages "$@"'
    setup = str(machine.REPOSITORY / "tools/setup.sh")
    subprocess.run(["bash", "-c", script, "bash", setup, *packages.split()], check=False)


def _run(options: argparse.Namespace, done: Done) -> None:
    with contextlib.ExitStack() as stack:
        # /tmp, whatever TMPDIR says: paths of sockets are short.
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssb-", dir="/tmp")))
        display = stack.enter_context(Display())
        generator = Generator(work)
        trees = Trees(
            folder=options.trees.resolve(),
            scale=SCALES[options.scale],
            generator=generator,
            display=display,
        )
        if options.remove_trees:
            stack.callback(shutil.rmtree, trees.folder, ignore_errors=True)
        bench = Bench(
            options=Options(
                rounds=options.rounds,
                peers=tuple(name for name in options.peers if name in peers.installed()),
                changes=options.changes,
                events=options.events,
                idle_seconds=options.idle_seconds,
                create=options.create,
                backlog=options.backlog,
            ),
            trees=trees,
            generator=generator,
            display=display,
            work=work,
        )
        if options.only_trees:
            trees.need_pair()
            return
        trees.folder.mkdir(parents=True, exist_ok=True)
        done.where = machine.surroundings(trees.folder, generator.kind)
        for name in options.case:
            done.parts.append(_part(bench, name))


def _part(bench: Bench, name: str) -> Part:
    case = CASES[name]
    part = Part(case=name, scale=bench.trees.scale.name, about=case.about)
    try:
        case.run(bench, part)
    except (BenchFailed, OSError) as error:
        part.check("could be measured", False, str(error))
    return part


if __name__ == "__main__":
    sys.exit(main())
