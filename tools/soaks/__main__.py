"""`tools/soak`: churn and faults for as long as is asked, then flush, then two oracles.

Nothing may be repaired by a comparison: a Node that had to be reconciled, other
than after what the kernel cannot tell or after a fault that calls for it, missed an event,
and the soak fails. Nor may a file that nobody touches ever be missing on a Node.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tools.benches.say import Display, tell
from tools.soaks.report import readable, summary
from tools.soaks.soak import Soak

_SHOWN = 20
_MINUTES = 2.0
_IN_A_ROUND = 6_000


def main() -> int:
    """0: all Nodes held the tree after every round, and nothing was lost on the way."""
    options = _options()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    minutes = 60.0 * options.hours + options.minutes
    if not minutes:
        minutes = 600.0 if options.operations else _MINUTES
    folder = Path(tempfile.mkdtemp(prefix="shardsync-soak-", dir=options.folder))
    again = f"tools/soak --seed {seed} --minutes {minutes:g} --round {options.round}"
    again += f" --retention {options.retention}"
    tell(f"seed {seed}, in {folder}; the same operations again: {again}")
    began = time.monotonic()
    with Display() as display:
        soak = Soak(
            folder=folder,
            seed=seed,
            with_faults=not options.calm,
            kinds=tuple(options.kinds.split(",")),
            retention=options.retention,
            say=tell,
            part=display.part,
        )
        soak.run(seconds=60.0 * minutes, operations=options.operations, in_a_round=options.round)
    told = summary(soak, seed=seed, seconds=time.monotonic() - began)
    if options.json:
        print(json.dumps(told, indent=1))
    else:
        print(readable(told))
    for line in told["wrong"][:_SHOWN]:
        tell(line)
    if not told["wrong"]:
        shutil.rmtree(folder)
    return 1 if told["wrong"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument(
        "--minutes", type=float, default=0.0, help=f"added to --hours; {_MINUTES:g} without either"
    )
    parser.add_argument("--operations", type=int, default=0, help="end after so many")
    parser.add_argument("--round", type=int, default=_IN_A_ROUND, help="operations in a round")
    parser.add_argument("--seed", type=int, help="a random one, and told, where not given")
    parser.add_argument("--calm", action="store_true", help="churn alone, no faults")
    parser.add_argument(
        "--kinds",
        default="plain,hard,blind",
        help="of rounds, taking turns: plain; hard: with faults that a comparison answers;"
        " blind: with changes that inotify cannot see",
    )
    parser.add_argument("--retention", default="10m", help="of the Journals: 10m")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--folder", help="where to work; the system's temporary folder else")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
