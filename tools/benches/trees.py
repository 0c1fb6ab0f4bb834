"""The trees that are measured on: made by generate.c (or generate.py), kept between runs.

A folder for each scale holds `tree`, `node` (a copy of it, for cases with a
Node) and markers: `*.complete` says that a tree was made to its end. `changed`
is there once a case wrote into `tree`, and says whether `node` has all of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.benches.processes import BenchFailed, running
from tools.benches.say import Display

HERE = Path(__file__).resolve().parent
MTIME = 1_700_000_000
LEAF_FILE = "index.html"
_BYTES_PER_LEAF = 8_192
"""ext4: a directory and a small file, a block each."""
_SPARE_BYTES = 2 * 1024**3
_OPEN, _IN_STEP = "open", "in step"


@dataclass(frozen=True, slots=True)
class Scale:
    """`a` x `b` x `c` leaf directories, a file in each."""

    name: str
    a: int
    b: int
    c: int

    @property
    def files(self) -> int:
        """Files, and leaf directories."""
        return self.a * self.b * self.c

    @property
    def directories(self) -> int:
        """All directories, the root included."""
        return 1 + self.a + self.a * self.b + self.files

    def leaf(self, number: int) -> str:
        """Path of a leaf directory, 0 <= `number` < `files`."""
        rest, k = divmod(number, self.c)
        i, j = divmod(rest, self.b)
        return f"d{i:02d}/s{j:03d}/p{k:04d}"


SCALES = {
    scale.name: scale
    for scale in (
        Scale("10k", 10, 10, 100),
        Scale("100k", 10, 10, 1000),
        Scale("1m", 10, 100, 1000),
    )
}


def default_folder() -> Path:
    """Where trees are kept unless the user says otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return Path(cache or tempfile.gettempdir()) / f"shardsync-bench-{os.getuid()}"


class Generator:
    """generate.c, compiled here and now, or generate.py."""

    def __init__(self, folder: Path) -> None:
        self.argv = _compiled(folder) or [sys.executable, str(HERE / "generate.py")]

    @property
    def kind(self) -> str:
        """For the report."""
        return "Python" if self.argv[0] == sys.executable else "C"

    def run(self, *words: object) -> None:
        """To its end. Raises BenchFailed."""
        done = subprocess.run(
            [*self.argv, *map(str, words)], check=False, stdout=subprocess.DEVNULL
        )
        if done.returncode:
            raise BenchFailed(f"the generator failed: {words}")


def _compiled(folder: Path) -> list[str] | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = folder / "generate"
    done = subprocess.run(
        [compiler, "-O2", "-o", program, HERE / "generate.c"], check=False, capture_output=True
    )
    return [str(program)] if done.returncode == 0 else None


class Trees:
    """The trees of one scale, in their folder."""

    def __init__(
        self, *, folder: Path, scale: Scale, generator: Generator, display: Display
    ) -> None:
        self.scale = scale
        self.folder = folder / scale.name
        self.tree = self.folder / "tree"
        self.node = self.folder / "node"
        self.outside = self.folder / "outside"
        self._changed = self.folder / "changed"
        self._generator = generator
        self._display = display

    def need_tree(self) -> Path:
        """The tree, made unless it is there. Raises BenchFailed."""
        self._need(self.tree)
        return self.tree

    def need_pair(self) -> None:
        """Tree and Node, the same in all but their roots' own attributes."""
        made = [self._need(self.tree), self._need(self.node)]
        changed = self._changed.read_text() if self._changed.exists() else ""
        if changed == _OPEN or (changed and any(made)):
            self._display.step("an earlier run was cut short: mending its trees")
            self._restore_shape()
            self._bring_in_step()
            self.end_change()

    def _restore_shape(self) -> None:
        """Every leaf with its file again, and nothing beside what the generator makes."""
        scale = self.scale
        for entry in os.scandir(self.tree):
            if not entry.name.startswith("d"):
                shutil.rmtree(entry.path)
        for number in range(scale.files):
            leaf = self.tree / scale.leaf(number)
            names = os.listdir(leaf)
            for name in names:
                if name != LEAF_FILE:
                    shutil.rmtree(leaf / name)
            if LEAF_FILE not in names:
                (leaf / LEAF_FILE).write_text("back again\n")

    def begin_change(self) -> None:
        """From now on the Node lacks something that the tree has."""
        self._changed.write_text(_OPEN)

    def end_change(self) -> None:
        """They are the same again."""
        self._changed.write_text(_IN_STEP)

    def _bring_in_step(self) -> None:
        argv = ["rsync", "-a", "--delete", f"{self.tree}/", f"{self.node}/"]
        with running(argv) as process:
            if process.wait():
                raise BenchFailed(f"{argv} ended with {process.returncode}")

    def _need(self, tree: Path) -> bool:
        """Whether it had to be made."""
        complete = self.folder / f"{tree.name}.complete"
        if complete.exists() and tree.is_dir():
            return False
        self._need_space()
        shutil.rmtree(tree, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make(tree)
        complete.touch()
        return True

    def _need_space(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(self.folder)
        needed = self.scale.files * _BYTES_PER_LEAF + _SPARE_BYTES
        if disk.f_bavail * disk.f_frsize < needed or disk.f_favail < 3 * self.scale.files:
            raise BenchFailed(
                f"{self.folder}: a tree of {self.scale.directories:,} directories needs"
                f" {needed / 1024**3:.0f} GiB and {2 * self.scale.files:,} inodes that are free;"
                " name another place with --trees"
            )

    def _make(self, tree: Path) -> None:
        scale = self.scale
        what = f"making {tree} ({scale.directories:,} directories)"
        self._display.step(what)
        words = [str(tree), *(str(number) for number in (scale.a, scale.b, scale.c, MTIME))]
        with running(
            [*self._generator.argv, "tree", *words], output=subprocess.PIPE, errors=2
        ) as process:
            assert process.stdout is not None  # noqa: S101 (PIPE)
            for number, _ in enumerate(process.stdout):
                self._display.part(what, (number + 1) * scale.c, scale.files)
            if process.wait():
                raise BenchFailed(f"{tree}: the generator ended with {process.returncode}")
