"""What a soak did and found: as JSON, and to be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tools.soaks.keeper import Sample
from tools.soaks.site import Sizes
from tools.soaks.soak import Soak

_QUARTERS = 4
_PROGRAMS = ("watcher", "sync", "coordinator", "supervisord")
_FILES = (
    "journals", "journal_bytes", "wal_bytes", "longest_wal_bytes", "state_db_bytes", "log_bytes",
)  # fmt: skip


def summary(soak: Soak, *, seed: int, seconds: float) -> dict[str, Any]:
    """Everything, for `--json`."""
    done, found = soak.churn.done, soak.found
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "operations": dict(sorted(done.operations.items())),
        "refused": done.refused.total(),
        "faults": dict(sorted(soak.faults.struck.items())),
        "rounds": dict(found.rounds),
        "looks": soak.keeper.looks,
        "audits": found.audits,
        "repairs": dict(sorted(found.repairs.items())),
        "before": dataclasses.asdict(found.before),
        "after": dataclasses.asdict(found.after),
        "quarters": quarters(soak.keeper.samples),
        "wrong": found.wrong,
    }


def readable(told: Mapping[str, Any]) -> str:
    """The same as lines."""
    operations, faults = told["operations"], told["faults"]
    lines = [
        f"seed {told['seed']}, {told['seconds']:,.0f} s, rounds: {_counts(told['rounds'])}",
        f"{sum(operations.values()):,} operations, {told['refused']:,} more were refused:",
        f"  {_counts(operations)}",
        f"{sum(faults.values()):,} faults: {_counts(faults)}",
        f"{told['looks']:,} looks at files that nobody touched",
        f"{told['audits']:,} rounds of the audit over a whole Node",
        f"comparisons: {_counts(told['repairs'])}",
        *_sizes(Sizes(**told["before"]), Sizes(**told["after"])),
        *_table(told["quarters"]),
        f"{len(told['wrong'])} wrong",
    ]
    return "\n".join(lines)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counted.items()) or "none"


def _sizes(before: Sizes, after: Sizes) -> list[str]:
    rows = [
        (f"memory of {name}", before.rss_bytes.get(name, 0), after.rss_bytes.get(name, 0))
        for name in sorted(before.rss_bytes.keys() | after.rss_bytes.keys())
    ]
    rows += [
        (f"descriptors of {name}", before.descriptors.get(name, 0), after.descriptors.get(name, 0))
        for name in sorted(before.descriptors.keys() | after.descriptors.keys())
    ]
    rows += [(name, getattr(before, name), getattr(after, name)) for name in _FILES]
    heading = f"{'':32} {'at the start':>14} {'at the end':>14}"
    return [heading, *(f"{what:32} {was:>14,} {now:>14,}" for what, was, now in rows)]


def quarters(samples: Sequence[Sample]) -> list[dict[str, int]]:
    """What was done in each quarter of the run, and the most that was taken in it."""
    told: list[dict[str, int]] = []
    before = (0, 0)
    for number in range(1, _QUARTERS + 1):
        end = samples[-1].seconds * number / _QUARTERS if samples else 0.0
        start = samples[-1].seconds * (number - 1) / _QUARTERS if samples else 0.0
        within = [sample for sample in samples if start < sample.seconds <= end]
        if not within:
            continue
        done = within[-1].operations, within[-1].faults
        row = {
            "seconds": round(end),
            "operations": done[0] - before[0],
            "faults": done[1] - before[1],
        }
        for kind in _PROGRAMS:
            row[f"{kind}_rss_bytes"] = max(_most(each.sizes.rss_bytes, kind) for each in within)
            descriptors = (_most(each.sizes.descriptors, kind) for each in within)
            row[f"{kind}_descriptors"] = max(descriptors)
        row |= {name: max(getattr(each.sizes, name) for each in within) for name in _FILES}
        told.append(row)
        before = done
    return told


def _most(taken: Mapping[str, int], kind: str) -> int:
    return max((figure for name, figure in taken.items() if name.startswith(kind)), default=0)


def _table(told: Sequence[Mapping[str, int]]) -> list[str]:
    if not told:
        return []
    rows = [[name, *(f"{quarter[name]:,}" for quarter in told)] for name in told[0]]
    return [
        "the most in each quarter of the run:",
        *(f"{row[0]:32} {' '.join(f'{figure:>14}' for figure in row[1:])}" for row in rows),
    ]
