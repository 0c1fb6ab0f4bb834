"""Rules of the house that a machine can hold: clocks, shells, blind excepts."""

from __future__ import annotations

import ast

import pytest

from tests.support.sources import Source, package_sources, source

# Where everything may be caught: what is not understood is logged, and the service lives on.
SERVICE_LOOPS = {
    "watch/slot.py",
    "ship/service.py",
    "control/coordinator.py",
    "control/service.py",
    "observe/exporter.py",
}
CLOCK_READS = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.clock_gettime",
    "time.clock_gettime_ns", "time.perf_counter", "time.perf_counter_ns", "datetime.now",
    "datetime.utcnow", "datetime.today", "date.today",
}  # fmt: skip


def dotted(node: ast.expr) -> str:
    """`dt.datetime.now` for that expression, "" for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def clock_reads(module: Source) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and ".".join(dotted(node.func).split(".")[-2:]) in CLOCK_READS
    ]


def imported_clock_reads(module: Source) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        and any(f"{node.module}.{alias.name}" in CLOCK_READS for alias in node.names)
    ]


def shells(module: Source) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and (
            dotted(node.func) in {"os.system", "os.popen"}
            or any(keyword.arg == "shell" for keyword in node.keywords)
        )
    ]


def blind_excepts(module: Source) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and _is_blind(node.type) and not _goes_on(node)
    ]


def _goes_on(handler: ast.ExceptHandler) -> bool:
    """Whether it cleans up and raises what it caught again."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _is_blind(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(dotted(name) in {"Exception", "BaseException"} for name in names)


@pytest.mark.parametrize("module", package_sources(), ids=lambda module: module.name)
def test_only_the_clock_module_reads_the_clock(module: Source) -> None:
    """Time comes through a Clock, so that tests can hold it still."""
    if module.name != "clock.py":
        assert clock_reads(module) + imported_clock_reads(module) == []


@pytest.mark.parametrize("module", package_sources(), ids=lambda module: module.name)
def test_nothing_runs_a_shell(module: Source) -> None:
    """Programs are run from argv lists, never through a shell."""
    assert shells(module) == []


@pytest.mark.parametrize("module", package_sources(), ids=lambda module: module.name)
def test_only_cli_and_service_loops_catch_everything(module: Source) -> None:
    """`except Exception` stands only where a person or the log is told, and life goes on."""
    if module.part != "cli" and module.name not in SERVICE_LOOPS:
        assert blind_excepts(module) == []


def test_the_rules_see_what_they_forbid() -> None:
    """Each check finds a plain breach of its rule."""
    text = (
        "import time, os, subprocess\n"
        "time.time()\n"
        "os.system('x')\n"
        "subprocess.run('x', shell=True)\n"
        "try:\n    pass\nexcept (OSError, Exception):\n    pass\n"
        "try:\n    pass\nexcept BaseException:\n    raise\n"
    )
    breach = source("journal/x.py", text)
    assert (clock_reads(breach), shells(breach), blind_excepts(breach)) == ([2], [3, 4], [7])
    assert imported_clock_reads(source("x.py", "from time import monotonic")) == [1]
