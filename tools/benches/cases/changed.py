"""Changed while down: what is journaled at the next start, and how soon the Node has it."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tools.benches.bench import Bench
from tools.benches.cases.restart import restart_ours, restart_peer
from tools.benches.cases.scattered import pick, rewrite
from tools.benches.model import US, Part
from tools.benches.trees import MTIME, Trees

_REWRITES, _DELETIONS = 1_000, 100
_MOVED, _MOVED_FILES = 10, 10
_RENAMED, _RENAMED_FILES = 10, 1_000
_BEYOND_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was changed, as paths; `renamed`: old name -> new name."""

    rewritten: tuple[str, ...]
    deleted: tuple[str, ...]
    moved_in: tuple[str, ...]
    renamed: dict[str, str]

    def expected(self) -> set[bytes]:
        """Paths that must be journaled, a deletion by itself or by its directory's listing."""
        paths = (*self.rewritten, *self.moved_in, *self.renamed.values())
        return {os.fsencode(path) for path in paths}

    def allowed(self) -> set[bytes]:
        """And those that tell the same story: what is gone, and the directories it was in."""
        gone = (*self.deleted, *self.renamed)
        parents = {os.path.dirname(path) for path in (*gone, *self.moved_in)}
        parents |= {os.path.dirname(path) for path in self.renamed.values()}
        return self.expected() | {os.fsencode(path) for path in (*gone, *parents)}


def verdict(made: Made, journaled: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """(paths that are missing, paths beyond what was changed). Pure.

    A deletion is told by its own path or by its directory's.
    """
    found = set(journaled)
    absent = [path for path in sorted(made.expected()) if path not in found]
    for path in made.deleted:
        own, parent = os.fsencode(path), os.fsencode(os.path.dirname(path))
        if own not in found and parent not in found:
            absent.append(own)
    allowed = made.allowed()
    return absent, [path for path in journaled if path not in allowed]


def changed(bench: Bench, part: Part) -> None:
    """See the case's words; lsyncd and rsync get changes of the same kinds."""
    bench.need_watches(part)
    instance = bench.served()
    _add_big_directories(bench)

    def measure(program: str, folder: Path) -> None:
        with bench.serving() as (ours, _):
            # What the peer before it, or the last clean-up, left to be journaled.
            ours.command("flush", "--timeout", "1h")
        bench.trees.begin_change()
        made = make_changes(bench, folder.name)
        bench.warm_up(part, bench.trees.tree, bench.trees.node)
        if program == US:
            paths, _ = restart_ours(bench, part, instance)
            _judge(part, made, paths)
            _compare(bench, part)
        else:
            restart_peer(bench, part, program, folder)
        _undo(bench, made)

    bench.rounds(part, bench.with_peers("lsyncd", "rsync"), measure)
    _remove_big_directories(bench)
    with bench.serving() as (ours, _):
        ours.command("flush", "--timeout", "1h")
    bench.trees.end_change()


def _compare(bench: Bench, part: Part) -> None:
    bench.display.step(f"{part.case}: comparing tree and Node (not measured)")
    different = bench.differences(bench.trees.tree, bench.trees.node)
    part.check(
        "the Node is the same afterwards (rsync -naic --delete)",
        not different,
        f"{len(different)} lines {different[:3]}",
    )


def make_changes(bench: Bench, token: str) -> Made:
    """All of them, `token` making the names new."""
    tree, trees = bench.trees.tree, bench.trees
    paths = pick(bench, _REWRITES + _DELETIONS)
    rewritten, deleted = paths[:_REWRITES], paths[_REWRITES:]
    rewrite(tree, rewritten)
    for path in deleted:
        (tree / path).unlink()
    moved_in = [f"{trees.scale.leaf(n * trees.scale.c)}/in-{token}" for n in range(_MOVED)]
    for number, path in enumerate(moved_in):
        _old_directory(trees, number)
        (trees.outside / str(number)).rename(tree / path)
    renamed = {}
    for big in sorted(tree.glob("big-*")):
        new = f"big-{token}-{big.name.rpartition('-')[2]}"
        big.rename(tree / new)
        renamed[big.name] = new
    return Made(
        rewritten=tuple(rewritten), deleted=tuple(deleted), moved_in=tuple(moved_in),
        renamed=renamed,
    )  # fmt: skip


def _judge(part: Part, made: Made, journaled: list[bytes]) -> None:
    absent, beyond = verdict(made, journaled)
    wanted = len(made.expected()) + len(made.deleted)
    part.add(US, "Changes beyond what was changed", len(beyond), "")
    part.check("all that was changed is journaled", not absent, f"{len(absent)} {absent[:5]}")
    part.check(
        "no more than 5 % beyond that",
        len(beyond) <= _BEYOND_SHARE * wanted,
        f"{len(beyond)} beyond {wanted}: {beyond[:5]}",
    )


def _old_directory(trees: Trees, number: int) -> None:
    folder = trees.outside / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in range(_MOVED_FILES):
        (folder / f"f{file}").write_text(f"{time.time_ns()}\n")
        os.utime(folder / f"f{file}", (MTIME, MTIME))
    os.utime(folder, (MTIME, MTIME))


def _add_big_directories(bench: Bench) -> None:
    bench.trees.begin_change()
    for number in range(_RENAMED):
        folder = bench.trees.tree / f"big-0-{number}"
        kept = bench.trees.outside / f"big-{number}"
        if kept.is_dir():
            kept.rename(folder)
            continue
        folder.mkdir()
        for file in range(_RENAMED_FILES):
            (folder / f"f{file}").write_text(f"{number} {file}\n")


def _remove_big_directories(bench: Bench) -> None:
    bench.trees.begin_change()
    bench.trees.outside.mkdir(exist_ok=True)
    for folder in bench.trees.tree.glob("big-*"):
        # Kept for the next run: making and removing them takes longer than what is measured.
        folder.rename(bench.trees.outside / f"big-{folder.name.rpartition('-')[2]}")


def _undo(bench: Bench, made: Made) -> None:
    """The tree's shape is what it was; the Node learns of it at the next start."""
    bench.trees.begin_change()
    for path in made.deleted:
        (bench.trees.tree / path).write_text("back again\n")
    for path in made.moved_in:
        shutil.rmtree(bench.trees.tree / path)
