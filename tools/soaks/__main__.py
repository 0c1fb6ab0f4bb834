"""`tools/soak`: churn and faults for as long as is asked, then flush, then two oracles.

Nothing may be repaired by a comparison: a Node that had to be reconciled, other
than after what the kernel cannot tell, missed an event, and the soak fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from tools.benches.say import tell
from tools.soaks.churn import Churn
from tools.soaks.faults import Faults
from tools.soaks.oracle import by_rsync, by_walking
from tools.soaks.site import Site

_ROUND_SECONDS = 120.0
_SHOWN = 20
_REPAIRS = ("node.reconcile", "tree.compared", "node.changed_while_away")
_OPERATION_SECONDS = 0.006


class Soak:
    """One run of one seed. `log`: where every operation is written, one a line."""

    def __init__(self, *, folder: Path, seed: int, blind: bool, with_faults: bool) -> None:
        self.site = Site(folder)
        self._log = (folder / "operations.log").open("w", encoding="ascii")
        self.churn = Churn(
            root=os.fsencode(self.site.tree),
            outside=os.fsencode(self.site.outside),
            seed=seed,
            say=self._note,
            blind=blind,
        )
        self.faults = Faults(site=self.site, seed=seed, say=tell)
        self._with_faults = with_faults
        self._dice = random.Random(seed)  # noqa: S311 (to be repeatable)
        self._stopping = threading.Event()
        self._trouble: list[BaseException] = []

    def run(self, seconds: float) -> list[str]:
        """Rounds of churn, each ended by a flush and both oracles; what was found wrong."""
        found: list[str] = []
        try:
            self.site.begin()
            before = self.site.sizes()
            end = time.monotonic() + seconds
            number = 0
            while not found and (left := end - time.monotonic()) > 0:
                number += 1
                self._round(min(left, _ROUND_SECONDS))
                found = self._judge()
                done = sum(self.churn.done.operations.values())
                struck = sum(self.faults.struck.values())
                tell(f"round {number}: {done} operations, {struck} faults, {len(found)} wrong")
            tell(f"sizes before {before}")
            tell(f"sizes after  {self.site.sizes()}")
        finally:
            self.churn.end()
            self.site.end()
            self._log.close()
        return found

    def _note(self, line: str) -> None:
        self._log.write(line + "\n")

    def _round(self, seconds: float) -> None:
        self._stopping.clear()
        worker = threading.Thread(target=self._churn)
        worker.start()
        end = time.monotonic() + seconds
        try:
            while (left := end - time.monotonic()) > 0 and not self._trouble:
                time.sleep(min(left, self._dice.uniform(2.0, 8.0)))
                if self._with_faults and time.monotonic() < end - 1:
                    self.faults.strike()
        finally:
            self._stopping.set()
            worker.join()
        if self._trouble:
            raise self._trouble[0]

    def _churn(self) -> None:
        try:
            while not self._stopping.is_set():
                self.churn.step()
                time.sleep(_OPERATION_SECONDS)
        except BaseException as error:  # noqa: BLE001 (raised by `_round`)
            self._trouble.append(error)

    def _judge(self) -> list[str]:
        for name in ("web1", "web2"):
            self.site.command("resume", name, check=False)
        self.site.command("up", check=False)
        flushed = self.site.command("flush", "--timeout", "5m", check=False)
        if flushed.returncode:
            return [f"flush: {flushed.returncode} {flushed.stdout}{flushed.stderr}"]
        found = [line for event in _REPAIRS for line in self.site.said(event)]
        for path in sorted(self.churn.done.blind):
            shown = self.site.tree / os.fsdecode(path)
            if shown.exists():
                self.site.command("reconcile", "--path", str(shown))
        self.churn.done.blind.clear()
        for node in self.site.nodes:
            found += [f"{node.name}: {line}" for line in by_rsync(str(self.site.tree), str(node))]
            found += [
                f"{node.name}: {line}" for line in by_walking(str(self.site.tree), str(node))
            ]
        return found


def main() -> int:
    """0: all Nodes held the tree after every round."""
    options = _options()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="shardsync-soak-", dir=options.folder))
    tell(f"seed {seed}, in {folder}; again: tools/soak --seed {seed} --minutes {options.minutes}")
    soak = Soak(folder=folder, seed=seed, blind=options.blind, with_faults=not options.calm)
    found = soak.run(60.0 * (options.minutes + 60.0 * options.hours))
    done = soak.churn.done
    summary = {
        "seed": seed,
        "operations": dict(done.operations),
        "refused": sum(done.refused.values()),
        "faults": dict(soak.faults.struck),
        "wrong": found,
    }
    print(json.dumps(summary, indent=1))
    for line in found[:_SHOWN]:
        tell(line)
    if not found:
        shutil.rmtree(folder)
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=2.0, help="added to --hours")
    parser.add_argument("--seed", type=int, help="a random one, and told, where not given")
    parser.add_argument("--calm", action="store_true", help="churn alone, no faults")
    parser.add_argument("--blind", action="store_true", help="also what inotify cannot see")
    parser.add_argument("--folder", help="where to work; the system's temporary folder else")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
