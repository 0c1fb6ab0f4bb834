"""One small file, from close to visible: `tools.benches.one_file` as cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.benches.bench import Bench
from tools.benches.model import US, Part
from tools.benches.one_file import KINDS, measure, stream

_PAUSE_SECONDS = 0.15
_RATE = 200.0
_STREAM_FILES = 1_000


def one_file(bench: Bench, part: Part) -> None:
    """A local Node, one behind an rsync daemon, one behind an sshd; 50 files a round."""
    files = 50 * bench.options.rounds
    _each_kind(
        bench, part, KINDS, lambda folder, kind: measure(folder, kind, files, _PAUSE_SECONDS)
    )


def steady(bench: Bench, part: Part) -> None:
    """200 files a second to a local Node, and to one behind an rsync daemon; 5 s a round."""
    files = _STREAM_FILES * bench.options.rounds
    _each_kind(bench, part, KINDS[:2], lambda folder, kind: stream(folder, kind, files, _RATE))


def _each_kind(
    bench: Bench, part: Part, kinds: tuple[str, ...], run: Callable[[Path, str], dict[str, Any]]
) -> None:
    if "lsyncd" not in bench.options.peers:
        part.note("not measured: it needs lsyncd beside it")
        return
    for kind in kinds:
        bench.display.step(f"{part.case}: {kind} Node")
        with bench.folder() as folder:
            figures = run(folder, kind)
        for program in (US, "lsyncd"):
            for name in ("p50", "p99"):
                part.add(program, f"{kind} Node, {name}", figures[program][name], "ms")
