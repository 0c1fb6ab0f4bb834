"""What a soak did and found: as JSON, and to be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tools.soaks.site import Sizes
from tools.soaks.soak import Soak


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
        "repairs": dict(sorted(found.repairs.items())),
        "before": dataclasses.asdict(found.before),
        "after": dataclasses.asdict(found.after),
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
        f"comparisons: {_counts(told['repairs'])}",
        *_sizes(Sizes(**told["before"]), Sizes(**told["after"])),
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
    for name in ("journal_bytes", "wal_bytes", "state_db_bytes", "log_bytes"):
        rows.append((name, getattr(before, name), getattr(after, name)))
    return [f"{what:32} {was:>14,} {now:>14,}" for what, was, now in rows]
