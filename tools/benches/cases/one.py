"""One small file, from close to visible: `tools.benches.one_file` as a case."""

from __future__ import annotations

from tools.benches.bench import Bench
from tools.benches.model import US, Part
from tools.benches.one_file import measure

_PAUSE_SECONDS = 0.15


def one_file(bench: Bench, part: Part) -> None:
    """A local Node, and one behind an rsync daemon on loopback; 50 files a round."""
    if "lsyncd" not in bench.options.peers:
        part.note("not measured: it needs lsyncd beside it")
        return
    for kind in ("local", "daemon"):
        bench.display.step(f"one-file: {kind} Node")
        with bench.folder() as folder:
            figures = measure(folder, kind, 50 * bench.options.rounds, _PAUSE_SECONDS)
        for program in (US, "lsyncd"):
            for name in ("p50", "p99"):
                part.add(program, f"{kind} Node, {name}", figures[program][name], "ms")
