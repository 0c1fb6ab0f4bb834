"""`tools/mutants`: safety rules taken out one by one, and which tests notice.

All of their tests must pass in a copy as it is, and every test named for a rule
must fail in a copy without that rule.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from tools.benches.say import tell
from tools.mutating.mutant import Mutant
from tools.mutating.rules import MUTANTS
from tools.mutating.table import PAGE, page
from tools.mutating.trial import Trial, try_mutant, try_none


def main() -> int:
    """0: every rule that was taken out was missed by its tests; 1: not so; 2: cannot be told."""
    options = _options()
    if options.table:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    chosen = _chosen(options.names)
    if options.list:
        print("\n".join(f"{mutant.name:40} {mutant.rule}" for mutant in chosen))
        return 0
    if os.geteuid() != 0:
        tell("needs root: many of the tests mount, and an ordinary user skips those")
        return 2
    began = time.monotonic()
    if not options.no_check and not _pass_as_it_is(chosen):
        return 2
    trials = []
    for number, mutant in enumerate(chosen, start=1):
        trials.append(try_mutant(mutant))
        tell(f"[{number} of {len(chosen)}] {_line(trials[-1])}")
    _print(trials, seconds=time.monotonic() - began)
    return 0 if all(trial.is_caught for trial in trials) else 1


def _pass_as_it_is(chosen: Sequence[Mutant]) -> bool:
    tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
    tell(f"{len(tests)} tests with all rules in place")
    run = try_none(tests)
    wrong = sorted({*tests} - run.passed)
    if not wrong and not run.trouble:
        tell(f"all pass, in {run.seconds:.0f} s")
        return True
    for test in wrong:
        tell(f"does not pass with all rules in place: {test}")
    tell(run.trouble)
    return False


def _line(trial: Trial) -> str:
    how = "caught by" if trial.is_caught else "NOT CAUGHT, not by"
    tests = trial.caught if trial.is_caught else trial.missed
    names = ", ".join(test.rpartition("::")[2] for test in tests)
    trouble = f"; {trial.trouble}" if trial.trouble else ""
    return f"{trial.mutant.name}: {how} {names or 'any'} ({trial.seconds:.1f} s){trouble}"


def _print(trials: Sequence[Trial], *, seconds: float) -> None:
    for trial in trials:
        missed = [f"NOT by {test}" for test in trial.missed]
        tests = "\n".join(f"{'':52}{test}" for test in (*trial.caught, *missed)).lstrip()
        print(f"{trial.mutant.name:42}{trial.seconds:6.1f} s  {tests}")
    caught = sum(trial.is_caught for trial in trials)
    print(f"{caught} of {len(trials)} caught, in {seconds:,.0f} s")


def _chosen(names: Sequence[str]) -> list[Mutant]:
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no mutants: {', '.join(unknown)}; tools/mutants --list names them")
    return [known[name] for name in names] or list(MUTANTS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="of mutants; all without any")
    parser.add_argument("--list", action="store_true", help="name them, and run nothing")
    parser.add_argument("--table", action="store_true", help="write docs/guarantees.md anew")
    parser.add_argument(
        "--no-check", action="store_true", help="leave out the run with all rules in place"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
