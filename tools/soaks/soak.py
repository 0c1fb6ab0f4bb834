"""One run of one seed: rounds of churn with faults, each ended by a flush and two oracles."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shardsync.clock import SystemClock, rfc3339
from tools.soaks.churn import Churn
from tools.soaks.faults import Faults
from tools.soaks.hard import Scene
from tools.soaks.keeper import Keeper
from tools.soaks.oracle import by_rsync, by_walking, only_bytes_differ
from tools.soaks.site import Site, Sizes

_REPAIRS = (
    "node.reconcile",
    "tree.compared",
    "tree.compared_again",
    "node.changed_while_away",
    "audit.differs",
)
"""What the log says where a comparison finds something, or is begun: an event was lost."""
_UNSEEN = ("node.changed_while_away", "audit.differs")
"""What may come of changes that inotify tells nobody of."""
_KINDS = ("plain", "hard", "blind")
"""Of a round: only what is told and healed; also what calls for a comparison; also what is
never told."""
_FIRST_OPERATIONS = 600
_OPERATION_SECONDS = 0.005
_MANY_BLIND = 8


@dataclass(slots=True)
class Found:
    """What came of a run so far. `audits`: rounds of the audit that went over a whole Node."""

    rounds: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    audits: int = 0
    before: Sizes = field(default_factory=Sizes)
    after: Sizes = field(default_factory=Sizes)
    wrong: list[str] = field(default_factory=list)


class Soak:
    """Writes all operations to `folder`/operations.log, one a line.

    `say`: a line for the user. `part`: (what, done, of how many).
    """

    def __init__(
        self,
        *,
        folder: Path,
        seed: int,
        with_faults: bool,
        kinds: tuple[str, ...] = _KINDS,
        retention: str,
        say: Callable[[str], None],
        part: Callable[[str, int, int], None],
    ) -> None:
        self.site = Site(folder, retention=retention)
        self.site.prepare()
        self.found = Found()
        self.keeper = Keeper(self.site, progress=self._progress)
        self._log = (folder / "operations.log").open("w", encoding="ascii")
        self.churn = Churn(
            root=os.fsencode(self.site.tree),
            outside=os.fsencode(self.site.outside),
            seed=seed,
            say=self._note,
        )
        self._scene = Scene(site=self.site, keeper=self.keeper)
        self.faults = Faults(
            scene=self._scene, seed=seed, say=say, release=self.churn.ground.let_all_go
        )
        self._with_faults = with_faults
        self._kinds = kinds
        self._say = say
        self._part = part
        self._pace = random.Random(f"{seed} pace")  # noqa: S311 (to be repeatable)
        self._since = _now()

    def run(self, *, seconds: float, operations: int, in_a_round: int) -> Found:
        """Until that time is over or, where `operations` is not 0, so many were done."""
        began = _now()
        try:
            self._begin()
            end = time.monotonic() + seconds
            while not self.found.wrong:
                self._round(in_a_round, end, operations)
                if time.monotonic() > end or 0 < operations <= self.churn.ground.count:
                    break
            self.found.after = self.site.sizes()
            self.found.audits = len(self.site.said("audit.done", since=began))
        finally:
            self.churn.ground.let_all_go()
            self.keeper.end()
            self.site.end()
            self._log.close()
        return self.found

    def _note(self, line: str) -> None:
        self._log.write(f"{_now()[11:-1]} {line}\n")

    def _begin(self) -> None:
        self.keeper.make_still()
        for _ in range(_FIRST_OPERATIONS):
            self.churn.step()
        self.site.begin()
        self.site.command("flush", "--timeout", "5m")
        self.found.before = self.site.sizes()
        self.keeper.begin()

    def _progress(self) -> tuple[int, int]:
        return self.churn.ground.count, self.faults.struck.total()

    def _round(self, most: int, end: float, operations: int) -> None:
        number = sum(self.found.rounds.values())
        kind = self._kinds[number % len(self._kinds)]
        self.found.rounds[kind] += 1
        self.churn.with_blind = kind == "blind"
        self.faults.hard = kind == "hard"
        self._scene.keep_state()
        self._since = _now()
        struck = self.faults.struck.copy()
        first = self.churn.ground.count
        while self.churn.ground.count < first + most:
            if time.monotonic() > end or 0 < operations <= self.churn.ground.count:
                break
            self._operate()
            count = self.churn.ground.count
            self._part(f"round {number + 1} ({kind})", count - first, most)
            if self._with_faults:
                self.faults.due(count)
        self.faults.settle()
        self.found.wrong += self._scene.wrong
        self.found.wrong += self._judge(kind)
        self.found.wrong += self.keeper.broken
        done = self.churn.ground.count - first
        faults = sum((self.faults.struck - struck).values())
        self._say(
            f"round {number + 1} ({kind}): {done} operations, {faults} faults,"
            f" {len(self.found.wrong)} wrong"
        )

    def _operate(self) -> None:
        """One operation at its pace: bursts, and moments of rest."""
        luck = self._pace.random()
        burst = 40 if luck < 0.004 else 1
        for _ in range(burst):
            self.churn.step()
        time.sleep(0.5 if luck > 0.998 else _OPERATION_SECONDS)

    def _judge(self, kind: str) -> list[str]:
        """At rest: what was repaired that should not have had to be, and what differs still."""
        self.churn.ground.let_all_go()
        for name in self.site.nodes:
            self.site.command("resume", name, check=False)
        self.site.command("up", check=False)
        flushed = self.site.command("flush", "--timeout", "5m", check=False)
        if flushed.returncode:
            return [f"flush: {flushed.returncode} {flushed.stdout}{flushed.stderr}"]
        found = self._repaired(kind)
        self._reconcile_blind()
        if kind == "hard" and self._was_compared:
            self._touch_what_only_bytes_tell()
        found += self._compared()
        self.keeper.forgive()
        return found

    def _repaired(self, kind: str) -> list[str]:
        wrong = []
        for event in _REPAIRS:
            lines = self.site.said(event, since=self._since)
            self.found.repairs[f"{event} ({kind})"] += len(lines)
            if kind == "plain" or (kind == "blind" and event not in _UNSEEN):
                wrong += lines
        self.found.repairs = +self.found.repairs
        return wrong

    @property
    def _was_compared(self) -> bool:
        return any(name.endswith("(hard)") for name in self.found.repairs)

    def _touch_what_only_bytes_tell(self) -> None:
        """A file rewritten with its old size and time while its Journal was lost is found by no
        comparison of sizes and times. It is counted, and told of now.
        """
        tree = str(self.site.tree)
        equal = {
            path
            for node in self.site.nodes.values()
            for path in only_bytes_differ(tree, str(node))
        }
        for path in equal:
            os.utime(os.fsencode(tree) + b"/" + path)
        if equal:
            self.found.repairs["equal size and time (hard)"] += len(equal)
            self.site.command("flush", "--timeout", "5m", check=False)

    def _reconcile_blind(self) -> None:
        paths = self.churn.blind_paths()
        if len(paths) > _MANY_BLIND:
            self.site.command("reconcile")
        else:
            for path in paths:
                self.site.command("reconcile", "--path", str(self.site.tree / os.fsdecode(path)))

    def _compared(self) -> list[str]:
        tree = str(self.site.tree)
        return [
            f"{name}: {line}"
            for name, folder in self.site.nodes.items()
            for judge in (by_rsync, by_walking)
            for line in judge(tree, str(folder))
        ]


def _now() -> str:
    return str(rfc3339(SystemClock().wall_us()))
