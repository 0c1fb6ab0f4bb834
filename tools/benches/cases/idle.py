"""What everything costs while nothing changes."""

from __future__ import annotations

import time

from tools.benches.bench import Bench, settle
from tools.benches.model import US, Part
from tools.benches.processes import usage

_REST_SECONDS = 10.0


def idle(bench: Bench, part: Part) -> None:
    """CPU and disk writes of supervisord and all below it, a Node followed and in step."""
    bench.need_watches(part)
    seconds = bench.options.idle_seconds
    with bench.serving() as (instance, _):
        instance.command("flush", "--timeout", "1h")
        settle(_REST_SECONDS)
        bench.display.step(f"idle: {seconds:.0f} s without a change")
        before, began = usage(instance.everything()), time.monotonic()
        settle(seconds)
        after, elapsed = usage(instance.everything()), time.monotonic() - began
    percent = 100 * (after.cpu - before.cpu) / elapsed
    part.add(US, "CPU of all processes", percent, "% of a core")
    part.add(
        US, "written to disk", (after.written - before.written) * 60 / elapsed / 1024, "KiB/min"
    )
    part.check("under 1 % of a core", percent < 1, f"{percent:.2f} %")
