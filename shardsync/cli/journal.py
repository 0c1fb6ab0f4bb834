"""`shardsync journal`: the Changes as the Journals hold them, oldest first."""

from __future__ import annotations

import contextlib
import heapq
import json
import time
from collections.abc import Iterator

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples, json_option, tree_option
from shardsync.cli.output import print_json, say
from shardsync.cli.since import parse_since, positions_since
from shardsync.clock import rfc3339
from shardsync.escape import json_path, printable
from shardsync.journal.plan import PlannedShard
from shardsync.journal.reader import JournalReader
from shardsync.layout import StateDirectory
from shardsync.model import Change

_PAGE = 5_000
_LOOK_SECONDS = 0.2

Entry = tuple[int, str, Change]
"""(observed_at, Shard, Change): sorts as it happened."""


@click.command(
    epilog=examples("shardsync journal --since 10m", "shardsync journal --follow --json")
)
@config_option
@tree_option
@click.option(
    "--since", "since_text", metavar="T", help="2h, 2026-11-23T08:00 (local time) or SHARD:N."
)
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@json_option
@click.pass_obj
def journal(
    call: Invocation, tree: str | None, since_text: str | None, follow: bool, as_json: bool
) -> None:
    """Print the changes that the journals hold, oldest first.

    With --follow and without --since it begins now.
    """
    trees = call.trees(tree)
    shards = tuple(shard for shard in call.plan().shards if shard.tree in trees)
    after = _starts(call, shards, since_text, follow=follow)
    reader = _Journals(state=call.state, after=after)
    with contextlib.closing(reader):
        if as_json and not follow:
            _print_document(reader.entries())
            return
        for entry in reader.entries():
            _print_entry(entry, as_json=as_json)
        while follow:
            time.sleep(_LOOK_SECONDS)
            # A re-plan brings Shards that were not there at the start.
            reader.add(shard for shard in call.plan().shards if shard.tree in trees)
            for entry in reader.entries():
                _print_entry(entry, as_json=as_json)


class _Journals:
    """Reads on where it stopped, in pages, so that memory does not grow with the Journals."""

    def __init__(self, *, state: StateDirectory, after: dict[str, int]) -> None:
        self._state = state
        self._after = after
        self._readers = {shard: JournalReader(state.journal(shard)) for shard in after}

    def add(self, shards: Iterator[PlannedShard]) -> None:
        """Read these Shards too, from their first Change on."""
        for shard in shards:
            if shard.id not in self._after and self._state.journal(shard.id).exists():
                self._after[shard.id] = 0
                self._readers[shard.id] = JournalReader(self._state.journal(shard.id))

    def entries(self) -> Iterator[Entry]:
        """What was not read yet."""
        return heapq.merge(*(self._of_shard(shard) for shard in self._readers), key=_when)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def _of_shard(self, shard: str) -> Iterator[Entry]:
        while changes := self._readers[shard].read(after=self._after[shard], limit=_PAGE):
            for change in changes:
                self._after[shard] = change.position
                yield change.observed_at, shard, change


def _starts(
    call: Invocation, shards: tuple[PlannedShard, ...], since_text: str | None, *, follow: bool
) -> dict[str, int]:
    shards = tuple(shard for shard in shards if call.state.journal(shard.id).exists())
    if since_text is not None:
        since = parse_since(since_text, clock=call.clock, state=call.state)
        return positions_since(since, shards, call.state)
    after = {}
    for shard in shards:
        with contextlib.closing(JournalReader(call.state.journal(shard.id))) as reader:
            after[str(shard.id)] = reader.progress().last_position if follow else 0
    return after


def _print_document(entries: Iterator[Entry]) -> None:
    """One document, written as it is read: the Journals may hold millions."""
    say('{"changes": [')
    separator = ""
    for entry in entries:
        say(separator + json.dumps(_document(entry)))
        separator = ", "
    say("]}")


def _print_entry(entry: Entry, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(entry))
        return
    _, shard, change = entry
    scope = change.scope.name.lower()
    moved = f"  (moved from {printable(change.moved_from)})" if change.moved_from else ""
    say(
        f"{rfc3339(change.observed_at)} {shard}:{change.position} {scope:7}"
        f" {change.kind.name.lower():10} {printable(change.path)}{moved}"
    )


def _document(entry: Entry) -> dict[str, object]:
    _, shard, change = entry
    return {
        "shard": shard,
        "position": change.position,
        **json_path(change.path),
        "scope": change.scope.name.lower(),
        "kind": change.kind.name.lower(),
        "observed_at": rfc3339(change.observed_at),
    }


def _when(entry: Entry) -> int:
    return entry[0]
