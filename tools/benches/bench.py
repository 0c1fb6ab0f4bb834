"""What the cases share: options, trees, programs, rounds, and one instance with a Node in step."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.benches import peers
from tools.benches.counted import CountedRsync
from tools.benches.instance import Came, Instance
from tools.benches.model import US, Part, rotated
from tools.benches.processes import BenchFailed, Usage, running
from tools.benches.say import Display
from tools.benches.trees import Generator, Trees
from tools.benches.warming import warm_up

_TMPFS = Path("/dev/shm")  # noqa: S108 (the tmpfs that every Linux has)
_SPARE_BYTES = 1024**3
_MAX_DELETE = 100_000_000
"""Ten directories of 1,000 files that are renamed in every round are no accident here."""
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for; see `--help`."""

    rounds: int
    peers: tuple[str, ...]
    changes: int
    events: int
    idle_seconds: float
    create: int
    backlog: int


@dataclass(slots=True, kw_only=True)
class Bench:
    """One run at one scale. `work`: a folder that goes with the run."""

    options: Options
    trees: Trees
    generator: Generator
    display: Display
    work: Path
    memory: dict[str, list[Usage]] = field(default_factory=dict)
    random: random.Random = field(default_factory=lambda: random.Random(4))  # noqa: S311 (a seed, for repeatable scattering)
    _served: Instance | None = None
    _counted: CountedRsync | None = None

    def with_peers(self, *names: str) -> list[str]:
        """Ourselves and those of `names` that the user wants and that are installed."""
        return [US, *(name for name in names if name in self.options.peers)]

    def rounds(
        self,
        part: Part,
        programs: Sequence[str],
        measure: Callable[[str, Path], None],
        *,
        rounds: int | None = None,
    ) -> None:
        """`measure` each program in each round, in an order that rotates; a failure is told."""
        number = rounds or self.options.rounds
        for count in range(number):
            for program in rotated(programs, count):
                self.display.step(f"{part.case}, round {count + 1} of {number}: {program}")
                try:
                    with self.folder() as folder:
                        measure(program, folder)
                except (BenchFailed, OSError, subprocess.TimeoutExpired) as error:
                    if program == US:
                        part.check("could be measured", False, str(error))
                    part.note(f"{program}: {error}")

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A fresh folder for one measurement, removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self.work, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def memory_folder(self, files: int) -> Iterator[Path]:
        """A fresh folder on a tmpfs where that has room for so many small files, else on disk.

        So the disk is not what is measured, and clearing away takes no minutes: a file system
        mounted with `discard` may need a millisecond for each file that is removed.
        """
        place = self.trees.folder
        with contextlib.suppress(OSError):
            disk = os.statvfs(_TMPFS)
            if disk.f_bavail * disk.f_frsize > 4096 * files + _SPARE_BYTES:
                place = _TMPFS
        with tempfile.TemporaryDirectory(
            dir=place, prefix="ssb-", ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)

    def warm_up(self, part: Part, *trees: Path) -> None:
        """Make the page cache warm; the report tells where that was not to be had."""
        if not warm_up(self.display, *trees):
            part.note("the page cache did not become warm: the machine takes it back too soon")

    def need_watches(self, part: Part) -> None:
        """Raises BenchFailed where the limit is too low for the tree."""
        needed = self.trees.scale.directories + 20_000
        limit = int(_WATCHES.read_text())
        if limit < needed:
            raise BenchFailed(
                f"{part.case} at {part.scale} needs {needed:,} inotify watches, the limit is"
                f" {limit:,}: as root, sysctl -w fs.inotify.max_user_watches={2 * needed}"
            )

    @property
    def counted(self) -> CountedRsync:
        """The rsync that counts."""
        if self._counted is None:
            self._counted = CountedRsync(self.work / "counted")
        return self._counted

    @contextlib.contextmanager
    def serving(self, *, counted: bool = False) -> Iterator[tuple[Instance, Came]]:
        """The instance whose Node is a copy of the tree: up and following; down at the end."""
        instance = self.served()
        instance.environment = self.counted.environment if counted else {}
        with instance.running() as came:
            yield instance, came

    def served(self) -> Instance:
        """The same, down; made, with its first contact done, when it is asked for first."""
        if self._served is None:
            self.trees.need_pair()
            instance = Instance(
                folder=self.work / "served", root=self.trees.tree, node=self.trees.node,
                paused=False, more=f"[sync]\nmax_delete = {_MAX_DELETE}\n",
            )  # fmt: skip
            instance.write_settings()
            with instance.running():
                self._first_contact(instance)
            self._served = instance
        return self._served

    def _first_contact(self, instance: Instance) -> None:
        what = "first contact with a Node that is a copy of the tree (not measured)"
        self.display.step(what)
        with running(
            instance.argv("flush", "--timeout", "1h"), environment=instance.variables()
        ) as flush:
            while flush.poll() is None:
                self.display.part(what, round(100 * instance.node_progress()), 100)
                settle(0.5)
        if flush.returncode:
            raise BenchFailed(f"first contact: flush ended with {flush.returncode}")
        instance.command("resume", "node", "--adopt")
        instance.command("flush", "--timeout", "1h")

    def differences(self, tree: Path, node: Path) -> list[str]:
        """What `rsync -naic --delete` lists, the root's own line aside."""
        argv = ["rsync", "-naic", "--delete", f"{tree}/", f"{node}/"]
        with running(argv, output=subprocess.PIPE) as process:
            output, _ = process.communicate()
        if process.returncode:
            raise BenchFailed(f"{argv} ended with {process.returncode}")
        lines = output.decode(errors="replace").splitlines()
        return [line for line in lines if not line.endswith(" ./")]


def settle(seconds: float) -> None:
    """Let what just started come to rest."""
    time.sleep(seconds)


def drop_caches() -> None:
    """Forget all that was read from disk. Root only; raises BenchFailed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        raise BenchFailed(f"the page cache can only be dropped by root: {error}") from error


def watching(program: str) -> peers.Watching:
    """How a peer is started."""
    return peers.WATCHING[program]
