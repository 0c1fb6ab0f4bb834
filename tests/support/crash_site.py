"""A whole instance that is killed again and again, and what must hold each time."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shardsync.cli.main import run
from shardsync.control.supervisord import ProgramState
from shardsync.journal.locks import is_held
from shardsync.journal.plan import PlanState, read_plan
from shardsync.journal.reader import JournalReader
from shardsync.journal.recent import TICK_US
from shardsync.journal.state_reader import StateReader
from tests.support.arrivals import Arrivals
from tests.support.failpoints import Failpoints
from tests.support.instances import Instance, eventually, instance
from tools.soaks.oracle import by_rsync, by_walking

_BATCH = 12
"""Paths of each Shard in a Batch."""
BATCH_OF_ALL = 3 * _BATCH
_FOLDERS = tuple(f"d{number}" for number in range(6))
_FILES = 18
"""Of each folder that are written in a round: those of three folders are more than a Batch."""
_FILES_AT_ONCE = 6
"""And those that are written at once in four folders, fewer."""
_PAUSE_SECONDS = 2 * TICK_US / 1e6
"""A Watcher that is killed may journal again what changed within TICK_US of its Watermark."""
_TURNS = ("file-a", "file-b", "file-c")
_MARGIN_SECONDS = 5.5
"""A catch-up looks so far back, and the first one has journaled no file."""
_BIG_BYTES = 1_200_000


class CrashSite:
    """Three Shards or two, one Node or two, small Batches, failpoints; all programs real."""

    def __init__(self, made: Instance) -> None:
        self.made = made
        self.failpoints = Failpoints(made.folder / "failpoints")
        self.nodes = {"web1": made.node}
        self._round = 0
        self._shards = 3
        self._said = 0
        self._make_tree()
        self._made_at = time.monotonic()
        self._is_of_age = False
        self.write_settings()
        with self.failpoints.told():
            made.lifecycle().up(made.settings())
        self.flush()
        self.arrivals = Arrivals(made.node, _FOLDERS)

    def _make_tree(self) -> None:
        for folder in _FOLDERS:
            (self.made.root / folder / "deep").mkdir(parents=True)
            (self.made.root / folder / "mode").write_text("changes its mode")
            for number in range(_FILES):
                for turn in _TURNS:
                    (self.made.root / folder / f"{turn}{number:02d}").write_text("first")
                (self.made.root / folder / f"keep{number:02d}").write_text("for good")
        (self.made.root / "d0/roams/below").mkdir(parents=True)
        (self.made.root / "d0/roams/below/file").write_text("roams")
        (self.made.root / "full0").mkdir()
        for number in range(220):
            (self.made.root / "full0" / f"page{number}").write_text(f"page {number}")

    def write_settings(self, *, retention: str = "1h") -> None:
        """As many Shards and Nodes as there are to be."""
        text = (
            f'[tree]\nname = "main"\nroot = "{self.made.root}"\n'
            f'[state]\ndir = "{self.made.state.path}"\nretention = "{retention}"\n'
            f"[shards]\ncount = {self._shards}\n"
            f'[sync]\nbatch_paths = {_BATCH}\nbig_file_bytes = "1M"\nmax_delete = 100000\n'
            f'[metrics]\nlisten = ""\n'
        )
        for name, target in self.nodes.items():
            text += f'[[node]]\nname = "{name}"\ntarget = "{target}"\n'
        self.made.config.write_text(text)

    # What an operator does.

    def shardsync(self, *words: str) -> int:
        """The exit code of the command."""
        return run(["--config", str(self.made.config), *words])

    def flush(self) -> None:
        """One that must succeed, whatever is being restarted."""
        assert self.shardsync("flush", "--timeout", "40s") == 0

    def reload(self) -> None:
        """Have the settings taken up."""
        assert self.shardsync("reload", "--timeout", "40s") == 0

    def plan_anew(self) -> None:
        """Another number of Shards; and back, if what is armed has not struck by then."""
        self._bring_to(5 - self._shards)
        if self.failpoints.left():
            self._bring_to(5 - self._shards)

    def _bring_to(self, shards: int) -> None:
        self._shards = shards
        self.write_settings()
        self.reload()
        eventually(lambda: self._active() == shards)

    def _active(self) -> int:
        """How many Shards there are, 0 while some come or go."""
        plan = read_plan(self.made.state.plan)
        states = [shard.state for shard in plan.observing()] if plan else []
        return len(states) if set(states) == {PlanState.ACTIVE} else 0

    def restart(self, program: str) -> None:
        """SIGTERM; supervisord starts it again."""
        found = next(p for p in self.made.client.programs() if p.name == f"shardsync:{program}")
        assert found.pid is not None, found
        os.kill(found.pid, signal.SIGTERM)

    def watcher(self) -> str:
        """One that observes something."""
        plan = read_plan(self.made.state.plan)
        assert plan is not None
        return f"watcher-{plan.observing()[0].slot:02d}"

    def prune(self, program: str) -> None:
        """Have it start with a retention so short that all it may prune is due."""
        time.sleep(1.1)
        self.write_settings(retention="1s")
        self.restart(program)
        self.struck()
        self.write_settings()
        self.steady()
        self.reload()

    def add_node(self) -> None:
        """One that is empty, to be filled."""
        self.nodes["web2"] = self.made.folder / "node2"
        self.nodes["web2"].mkdir()
        self.write_settings()
        self.reload()

    def _drop_node(self) -> None:
        target = self.nodes.pop("web2", None)
        if target is not None:
            self.write_settings()
            self.reload()
            shutil.rmtree(target)

    def begin(self, *, with_retired: bool) -> None:
        """Whatever went before, all runs and nothing is armed; some Shards may be retired."""
        self.failpoints.disarm()
        self.steady()
        self._drop_node()
        plan = read_plan(self.made.state.plan)
        if with_retired and plan is not None and plan.shards == plan.observing():
            self.plan_anew()
            self.flush()
        # What is not at its end when the Coordinator looks waits for ten minutes.
        eventually(self._have_retired_ended)
        self.arrivals.take()
        self.ended()

    def _have_retired_ended(self) -> bool:
        plan = read_plan(self.made.state.plan)
        assert plan is not None
        return not any(
            is_held(self.made.state.lock(f"journal-{shard.id}"))
            for shard in plan.shards
            if shard.state is PlanState.RETIRED
        )

    # What happens in the Tree.

    def change(self) -> None:
        """Something of each kind, in every folder. No file is written twice in three rounds, and
        no more at once than may be sent twice.
        """
        self._round += 1
        before, now = self._round - 1, self._round
        root = self.made.root
        self._write_files(root, now)
        for number, folder in enumerate(_FOLDERS):
            here, there = root / folder, root / _FOLDERS[(number + 1) % len(_FOLDERS)]
            (here / f"new{now}").write_text(f"new {now}")
            (here / f"new{before}").unlink(missing_ok=True)
            (here / f"way{now}").mkdir()
            (here / f"way{now}" / "moved").write_text(f"moved {now}")
            (here / f"way{now}" / "moved").rename(there / f"came{now}")
            (there / f"came{before}").unlink(missing_ok=True)
            shutil.rmtree(here / f"way{before}", ignore_errors=True)
            (here / "deep" / f"{now}" / "er").mkdir(parents=True)
            (here / "deep" / f"{now}" / "er" / "file").write_text(f"deep {now}")
            shutil.rmtree(here / "deep" / f"{before}", ignore_errors=True)
            (here / "mode").chmod(0o600 + now % 8)
        self._turn_about(root / "changes-its-type", now)
        (root / _FOLDERS[before % 6] / "roams").rename(root / _FOLDERS[now % 6] / "roams")

    def _write_files(self, root: Path, now: int) -> None:
        for first in range(0, _FILES, _FILES_AT_ONCE):
            for folder in _FOLDERS:
                for file in range(first, first + _FILES_AT_ONCE):
                    path = root / folder / f"{_TURNS[now % 3]}{file:02d}"
                    path.write_text(f"{now} {file}")
            time.sleep(_PAUSE_SECONDS)

    def _turn_about(self, path: Path, now: int) -> None:
        if path.is_dir():
            shutil.rmtree(path)
            path.symlink_to(f"nowhere{now}")
        else:
            path.unlink(missing_ok=True)
            path.mkdir()
            (path / "file").write_text(f"{now}")

    def move_much(self) -> None:
        """Rename a directory that is worth not being sent."""
        full = next(self.made.root.glob("full*"))
        full.rename(full.with_name(f"full{self._round}-{time.monotonic_ns()}"))

    def write_much(self) -> None:
        """A file that goes by the lane for big ones."""
        (self.made.root / "big").write_bytes(os.urandom(_BIG_BYTES))

    # What must hold.

    def struck(self) -> None:
        """Wait until all that was armed has struck."""
        eventually(lambda: not self.failpoints.left())

    def ended(self) -> list[str]:
        """How programs ended since the last call, as supervisord says."""
        text = (self.made.state.logs / "supervisord.log").read_text()
        lines = [line for line in text[self._said :].splitlines() if " exited: " in line]
        self._said = len(text)
        return [line.partition("(")[2].partition(";")[0] for line in lines]

    def steady(self) -> None:
        """Wait until every program runs that should, and no catch-up looks back so far as to when
        the tree was made: Watermarks move on by a flush, or with the next heartbeat.
        """
        expected = self.made.lifecycle()._expected
        eventually(lambda: all(p.state is ProgramState.RUNNING for p in expected()))
        if not self._is_of_age:
            time.sleep(max(0.0, self._made_at + _MARGIN_SECONDS - time.monotonic()))
            self.flush()
            self._is_of_age = True

    def handed_over(self) -> None:
        """Wait until a re-plan is through: what the Shards that retired told last, no flush waits
        for, and the Nodes are sent it once more.
        """
        eventually(lambda: self._have_retired_ended() and self._is_all_shipped())

    def _is_all_shipped(self) -> bool:
        plan = read_plan(self.made.state.plan)
        assert plan is not None
        ends = {}
        for shard in plan.shards:
            with closing(JournalReader(self.made.state.journal(shard.id))) as journal:
                ends[shard.id] = journal.progress().last_position
        with closing(StateReader(self.made.state.state_db)) as state:
            all_cursors = [state.cursors(("main", node)) for node in self.nodes]
        return all(
            cursors[shard].position >= end
            for cursors in all_cursors
            for shard, end in ends.items()
        )

    def differences(self) -> list[str]:
        """Between the Tree and each Node, by two oracles that share no code with us."""
        tree = str(self.made.root)
        return [
            line
            for node in self.nodes.values()
            for line in (*by_rsync(tree, str(node)), *by_walking(tree, str(node)))
        ]

    def orphans(self) -> list[int]:
        """Each rsync to a Node that the sync process which runs now did not start."""
        sync = self.made.program("sync").pid
        return [
            pid
            for pid, argv, parents in _processes()
            if argv[:1] == ["rsync"]
            and any(f"{node}/" in argv for node in self.nodes.values())
            and sync not in parents(pid)
        ]


def _processes() -> list[tuple[int, list[str], Callable[[int], set[int]]]]:
    """(pid, argv, all those above a pid) of whatever lives."""
    found, above = [], {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            argv = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace").split("\0")
            stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
        except OSError:
            continue
        above[int(name)] = int(stat.rpartition(")")[2].split()[1])
        found.append((int(name), argv))

    def parents(pid: int) -> set[int]:
        seen = set()
        while pid in above and pid not in seen:
            seen.add(pid)
            pid = above[pid]
        return seen

    return [(pid, argv, parents) for pid, argv in found]


@contextmanager
def crash_site(folder: Path) -> Iterator[CrashSite]:
    """One that is ended at the end, whatever happened."""
    with instance(folder) as made:
        site = CrashSite(made)
        try:
            yield site
        finally:
            site.arrivals.close()
