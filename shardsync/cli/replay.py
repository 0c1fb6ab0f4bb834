"""`shardsync replay`: send again what changed since a moment, from the Journals alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import click

from shardsync.cli.asking import Asker
from shardsync.cli.invocation import Invocation
from shardsync.cli.options import (
    config_option,
    deadline_us,
    examples,
    no_wait_option,
    node_option,
    path_option,
    patience_option,
    tree_option,
)
from shardsync.cli.output import counted, say, tell
from shardsync.cli.since import Since, parse_since, positions_since, reach_back, refuse_too_old
from shardsync.clock import rfc3339
from shardsync.config.patterns import node_filter
from shardsync.errors import NotRunning, UsageError
from shardsync.escape import printable
from shardsync.journal.plan import PlannedShard, covers
from shardsync.journal.reader import JournalReader
from shardsync.journal.records import Cursor, NodeKey
from shardsync.journal.requests import Request, RequestKind, new_request_id
from shardsync.journal.state_reader import StateReader
from shardsync.ship.concerning import concerning

_PAGE = 10_000
_RETENTION_SECONDS = 7 * 86400.0
"""The default, where the settings cannot be read."""


@click.command(
    epilog=examples(
        "shardsync replay --since 2h --node web2",
        "shardsync replay --since 2026-11-23T08:00 --path news --dry-run",
    )
)
@config_option
@click.option(
    "--since",
    "since_text",
    metavar="T",
    required=True,
    help="2h, 2026-11-23T08:00 (local time) or SHARD:N.",
)
@tree_option
@node_option
@path_option
@click.option("--dry-run", is_flag=True, help="Only list the paths that would be sent.")
@patience_option
@no_wait_option
@click.pass_obj
def replay(
    call: Invocation,
    since_text: str,
    tree: str | None,
    nodes: tuple[str, ...],
    path: str | None,
    dry_run: bool,
    timeout: float | None,
    no_wait: bool,
) -> None:
    """Send again what changed since T, as it is now.

    By time each node starts where it was at T. Exits 15 when the journals do
    not reach back that far: `shardsync reconcile` compares everything instead.
    """
    since = parse_since(since_text, clock=call.clock, state=call.state)
    chosen_tree, below = _chosen(call, since, tree, path)
    keys = call.nodes(chosen_tree, nodes)
    trees = {key[0] for key in keys}
    shards = tuple(shard for shard in call.plan().shards if shard.tree in trees)
    shards = tuple(shard for shard in shards if call.state.journal(shard.id).exists())
    _refuse_too_old(call, since, shards, keys)
    positions = positions_since(since, shards, call.state)
    if dry_run:
        _list(call, since, shards, positions, keys, below)
        return
    request = Request(
        id=new_request_id(),
        kind=RequestKind.REPLAY,
        tree=chosen_tree or "",
        nodes=nodes,
        positions=positions,
        history_us=None if since.position else since.at_us,
        path=below,
        deadline_us=deadline_us(call, timeout),
    )
    asker = Asker(call=call)
    if no_wait:
        asker.send(request)
        say("replay begun: `shardsync status` shows how far it is")
        return
    answer = asker.ask(request, title="replay")
    say(f"replayed {counted(answer.total, 'change')} to {call.called(keys)}")


def _refuse_too_old(
    call: Invocation, since: Since, shards: tuple[PlannedShard, ...], keys: tuple[NodeKey, ...]
) -> None:
    reach = reach_back(shards, call.state)
    if reach is None:
        raise NotRunning("replay: there is no journal yet")
    settings = call.lenient_settings
    retention_seconds = _RETENTION_SECONDS if settings is None else settings.retention_seconds
    is_before_all = refuse_too_old(
        since,
        reach,
        oldest_kept_us=call.clock.wall_us() - int(retention_seconds * 1_000_000),
        was_followed=any(_cursors_at(call, since.at_us, keys).values()),
    )
    if is_before_all:
        tell(
            f"the journal begins at {rfc3339(reach.begins)}, and is replayed from there;"
            " `shardsync reconcile` compares what is older"
        )


def _cursors_at(
    call: Invocation, at_us: int, keys: tuple[NodeKey, ...]
) -> dict[NodeKey, dict[str, Cursor]]:
    """Where each Node was at that time, as far as it was followed by then."""
    if not call.state.state_db.exists():
        return {}
    with contextlib.closing(StateReader(call.state.state_db)) as reader:
        return {key: reader.cursors_at(key, at_us) for key in keys}


def _chosen(
    call: Invocation, since: Since, tree: str | None, path: str | None
) -> tuple[str | None, bytes]:
    """(Tree or None for all, path): both a path and a Position tell their Tree."""
    if since.position is not None:
        shard = call.plan().shard(since.position.shard)
        if shard is not None:
            if tree not in {None, shard.tree}:
                raise UsageError(f"--since {since.position}: not a shard of tree {tree}")
            tree = shard.tree
    if path is None:
        call.trees(tree)
        return tree, b""
    return call.tree_path(path, tree)


def _list(
    call: Invocation,
    since: Since,
    shards: tuple[PlannedShard, ...],
    positions: dict[str, int],
    keys: tuple[NodeKey, ...],
    below: bytes,
) -> None:
    """Print the paths that at least one of the Nodes would be sent."""
    moment = since.at_us if since.position is None else None
    history = {} if moment is None else _cursors_at(call, moment, keys)
    paths: set[bytes] = set()
    takers: dict[NodeKey, None] = {}
    for key in keys:
        takes = _taken_by(call, key)
        for shard in shards:
            if shard.tree != key[0]:
                continue
            cursor = history.get(key, {}).get(shard.id)
            for path in filter(takes, _paths(call, shard, positions[shard.id], cursor, below)):
                paths.add(path)
                takers[key] = None
    for path in sorted(paths):
        say(printable(path) or "./")
    tell(f"{counted(len(paths), 'path')} would be sent to {call.called(takers or keys)}")


def _taken_by(call: Invocation, key: NodeKey) -> Callable[[bytes], bool]:
    """Whether a Node takes a path at all: its subtree, its excludes. All, for unknown settings."""
    settings = call.lenient_settings
    node = next((n for n in settings.nodes if n.key == key), None) if settings else None
    if settings is None or node is None:
        return lambda _: True
    root = os.fsencode(settings.tree(node.tree).root)
    subtree = os.fsencode(node.subtree)
    excluded = node_filter(node)

    def takes(path: bytes) -> bool:
        place = os.path.join(root, path)
        is_dir = os.path.isdir(place) and not os.path.islink(place)
        inside = covers(subtree, path) or covers(path, subtree)
        return inside and not excluded.excludes(path, is_dir)

    return takes


def _paths(
    call: Invocation, shard: PlannedShard, after: int, was: Cursor | None, below: bytes
) -> Iterator[bytes]:
    """What was journaled after the Cursor that was, or after a Position where it tells nothing."""
    with contextlib.closing(JournalReader(call.state.journal(shard.id))) as reader:
        if was is not None and was.journal_id == reader.journal_id():
            after = was.position
        while rows := reader.read_rows(after=after, limit=_PAGE):
            after = rows[-1][0]
            for row in concerning(below, rows):
                yield row[1]
