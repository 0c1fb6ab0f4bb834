"""`shardsync plan`: who watches what, and what that takes of the machine; before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples, json_option, tree_option
from shardsync.cli.output import counted, print_json, say
from shardsync.cli.shortage import machine_limits
from shardsync.control.counting import processors
from shardsync.control.journals import JournalFolder
from shardsync.control.limits import (
    INSTANCES,
    MEMORY,
    OPEN_FILES,
    QUEUED_EVENTS,
    WATCHES,
    Limits,
    Need,
    Shortfall,
    shortfalls,
)
from shardsync.control.preview import Preview, ShardPreview, Source, preview
from shardsync.escape import json_path, printable
from shardsync.units import human_bytes

_SHOWN_PREFIXES = 8
_HEADS = {
    Source.PLANNED: "planned by `up`; nothing is started",
    Source.SAVED: "on disk; `up` goes on from it",
    Source.RUNNING: "running",
}


@click.command(
    epilog=examples("shardsync plan", "shardsync plan --json | jq '.shards[] | {id, directories}'")
)
@config_option
@tree_option
@json_option
@click.pass_obj
def plan(call: Invocation, tree: str | None, as_json: bool) -> None:
    """Show who watches what, and what that needs of the machine; changes nothing.

    The plan of a running instance, else the one that `up` would make. Exits 0 also where the
    machine has too little: each such limit is shown with the command that raises it. With --tree
    the shards are that tree's; the limits are those of all together.
    """
    call.require_state()
    trees = call.trees(tree)
    found = preview(
        call.settings,
        journals=JournalFolder(state=call.state, clock=call.clock),
        clock=call.clock,
        is_running=call.liveness.coordinator() is not None,
        processors=processors(),
    )
    found = replace(found, shards=tuple(part for part in found.shards if part.tree in trees))
    limits = machine_limits(call)
    lacking = shortfalls(found.need, limits)
    if as_json:
        print_json(plan_document(found, limits, lacking))
        return
    for line in _lines(found, limits, lacking):
        say(line)


def plan_document(
    found: Preview, limits: Limits, lacking: Iterable[Shortfall]
) -> Mapping[str, object]:
    """What `plan --json` prints; docs/planning.md says what each key means."""
    short = {shortfall.what: shortfall for shortfall in lacking}
    return {
        "source": found.source.value,
        "notes": list(found.notes),
        "shards": [_shard_document(shard) for shard in found.shards],
        "directories": found.need.directories,
        "limits": [
            {
                "what": what,
                "needed": needed,
                "present": present,
                "remedy": short[what].remedy if what in short else None,
            }
            for what, needed, present in _figures(found.need, limits)
        ],
    }


def _shard_document(shard: ShardPreview) -> Mapping[str, object]:
    return {
        **asdict(shard),
        "prefixes": [json_path(prefix) for prefix in shard.prefixes],
    }


def _lines(found: Preview, limits: Limits, lacking: Iterable[Shortfall]) -> Iterable[str]:
    yield f"plan: {_HEADS[found.source]}"
    for note in found.notes:
        yield f"note: {note}"
    for shard in found.shards:
        about = "about " if shard.is_estimate else ""
        yield (
            f"shard {shard.id} {shard.state} {shard.program}: {about}"
            f"{counted(shard.directories, 'directory', 'directories')},"
            f" {counted(shard.watches, 'watch', 'watches')},"
            f" {human_bytes(shard.memory_bytes)} of memory"
        )
        yield f"  {_prefixes(shard)}"
    short = {shortfall.what: shortfall for shortfall in lacking}
    for what, needed, present in _figures(found.need, limits):
        shown = (_shown(what, needed), "unknown" if present is None else _shown(what, present))
        yield f"limit {what}: needs {shown[0]}, has {shown[1]}"
        if what in short:
            yield f"  warning: too low: {short[what].effect}; {short[what].remedy}"


def _prefixes(shard: ShardPreview) -> str:
    names = [
        printable(prefix) if prefix else "all that no other shard lists"
        for prefix in shard.prefixes[:_SHOWN_PREFIXES]
    ]
    more = len(shard.prefixes) - _SHOWN_PREFIXES
    return ", ".join(names) + (f", and {more:,} more (`--json` names them)" if more > 0 else "")


def _figures(need: Need, limits: Limits) -> Iterable[tuple[str, int, int | None]]:
    """(name, needed, present) of each limit; present None where the machine does not tell."""
    for key, wanted in (
        (WATCHES, need.watches),
        (INSTANCES, need.instances),
        (QUEUED_EVENTS, need.queued_events),
    ):
        name, value = limits.least(key) or (key, None)
        yield name, wanted, value
    yield OPEN_FILES, need.open_files, limits.open_files
    yield MEMORY, need.memory_bytes + need.kernel_bytes, limits.memory_bytes


def _shown(what: str, figure: int) -> str:
    return human_bytes(figure) if what == MEMORY else f"{figure:,}"
