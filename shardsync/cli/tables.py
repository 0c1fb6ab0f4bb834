"""A Status for people: tables on a terminal, one line a thing elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from shardsync.cli.output import counted
from shardsync.cli.scanning import scan_figures, scan_words
from shardsync.clock import rfc3339
from shardsync.escape import printable, printable_text
from shardsync.model import NodeState, ShardState, TreeState
from shardsync.observe.status import NodeStatus, ShardStatus, Status, TreeStatus
from shardsync.units import human_bytes, human_duration

_GOOD = frozenset({TreeState.OK.value, ShardState.FOLLOWING.value, NodeState.FOLLOWING.value})
NO_PACES: Mapping[str, float] = MappingProxyType({})
_BAR_WIDTH = 40
_BUSY = frozenset(
    {
        ShardState.STARTING.value,
        ShardState.SCANNING.value,
        NodeState.BOOTSTRAPPING.value,
        NodeState.PAUSED.value,
    }
)


def tables(status: Status, now_us: int, paces: Mapping[str, float] = NO_PACES) -> RenderableType:
    """The whole status as rich tables. `paces`: Shard -> directories a second, where known."""
    shards = _table("shard", "state", "pid", "directories", "journal", "watermark", "note")
    for shard in status.shards:
        shards.add_row(
            Text(shard.id),
            _state(_shard_state(shard)),
            Text(str(shard.pid or "-")),
            Text(_directories(shard)),
            Text("-" if shard.journal_bytes is None else human_bytes(shard.journal_bytes)),
            Text(_ago(shard.watermark_us, now_us)),
            Text(_note(shard)),
        )
    nodes = _table("node", "state", "lag", "changes", "retry", "last success", "verified", "note")
    several = len(status.trees) > 1
    for node in status.nodes:
        nodes.add_row(
            Text(f"{node.tree}/{node.name}" if several else node.name),
            _state(_node_state(node)),
            Text("-" if node.lag_seconds is None else human_duration(node.lag_seconds)),
            Text(_number(node.lag_changes)),
            Text(_number(node.retry_paths)),
            Text(_ago(node.last_success_us, now_us)),
            Text(_ago(node.verified_us, now_us)),
            Text(_node_note(node)),
        )
    heads = [
        Text.assemble("tree ", (tree.name, "bold"), f" {tree.root or ''} ", _state(tree.state))
        + Text(f"  {_tree_note(tree)}" if tree.halted else "")
        for tree in status.trees
    ]
    return Group(*heads, shards, nodes, *_bars(status, paces))


def _bars(status: Status, paces: Mapping[str, float]) -> Iterable[RenderableType]:
    """A bar for each scan and each bootstrap that is open."""
    what = Column(no_wrap=True)
    bars = Column(min_width=10)
    figures = Column(no_wrap=True, overflow="ellipsis")
    grid = Table.grid(what, bars, figures, padding=(0, 1))
    for shard in status.shards:
        if shard.state is ShardState.SCANNING and shard.scan_total:
            bar = ProgressBar(total=1.0, completed=shard.scan_ratio, width=_BAR_WIDTH)
            words = scan_words(scan_figures([shard]), paces.get(shard.id, 0.0))
            grid.add_row(Text(f"scan {shard.id}"), bar, Text(f"{shard.scan_ratio:.0%}  {words}"))
    for node in status.nodes:
        if node.compared is not None or node.state is NodeState.BOOTSTRAPPING:
            bar = ProgressBar(total=1.0, completed=node.progress, width=_BAR_WIDTH)
            word = "bootstrap" if node.state is NodeState.BOOTSTRAPPING else "reconcile"
            words = "" if node.compared is None else node.compared.words
            grid.add_row(Text(f"{word} {node.name}"), bar, Text(f"{node.progress:.0%}  {words}"))
    return [Text(), grid] if grid.rows else []


def lines(status: Status) -> Iterable[str]:
    """The whole status as plain lines, a word first that tells what each is of."""
    for tree in status.trees:
        words = [f"tree {tree.name} {tree.state}", tree.root or "", _tree_note(tree)]
        yield printable_text(" ".join(word for word in words if word))
    for shard in status.shards:
        yield printable_text(
            f"shard {shard.id} {_shard_state(shard)} program={shard.program}"
            f" pid={shard.pid or '-'} directories={_directories(shard)}"
            f" position={_number(shard.position)} watermark={rfc3339(shard.watermark_us) or '-'}"
            f" {_note(shard)}".rstrip()
        )
    for node in status.nodes:
        lag = "-" if node.lag_seconds is None else human_duration(node.lag_seconds)
        yield printable_text(
            f"node {node.tree}/{node.name} {_node_state(node)} lag={lag}"
            f" changes={_number(node.lag_changes)} retry={_number(node.retry_paths)}"
            f" last_success={rfc3339(node.last_success_us) or '-'}"
            f" verified={rfc3339(node.verified_us) or '-'} {_node_note(node)}".rstrip()
        )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        numeric = name in {"pid", "directories", "journal", "lag", "changes", "retry"}
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    return table


def _state(state: str) -> Text:
    word = state.partition(" ")[0]
    style = "green" if word in _GOOD else "yellow" if word in _BUSY else "red"
    return Text(state, style=style)


def _shard_state(shard: ShardStatus) -> str:
    if shard.state is ShardState.SCANNING and shard.scan_total:
        return f"{shard.state} {shard.scan_ratio:.0%}"
    return shard.state.value


def _node_state(node: NodeStatus) -> str:
    if node.state is NodeState.BOOTSTRAPPING and node.progress:
        return f"{node.state} {node.progress:.0%}"
    return node.state.value


def _directories(shard: ShardStatus) -> str:
    return _number(shard.directories)


def _note(shard: ShardStatus) -> str:
    notes = []
    if shard.state is ShardState.SCANNING:
        notes.append(scan_words(scan_figures([shard]), 0))
    if shard.polled_directories:
        polled = counted(shard.polled_directories, "directory", "directories")
        notes.append(f"{polled} polled, watches ran out: see `shardsync check`")
    if shard.overflows:
        notes.append(counted(shard.overflows, "overflow"))
    if shard.last_error:
        notes.append(printable_text(shard.last_error))
    return "; ".join(notes)


def _tree_note(tree: TreeStatus) -> str:
    """Why it is halted, and the way out: the root comes back, or is another one on purpose."""
    if not tree.halted:
        return ""
    return f"{printable_text(tree.halted)} (if that is right: `shardsync resume --accept-root`)"


def _node_note(node: NodeStatus) -> str:
    notes = []
    if node.compared is not None:
        notes.append(f"compared {node.compared.ratio:.0%}: {node.compared.words}")
    if node.paused_until_us is not None and node.state is NodeState.PAUSED:
        notes.append(f"paused until {rfc3339(node.paused_until_us)}")
    if node.window:
        notes.append(f"window {node.window}")
    if node.foreign_paths:
        notes.append(
            f"{counted(node.foreign_paths, 'foreign path')} kept:"
            f" `shardsync resume {node.name} --adopt` has them deleted"
        )
    if node.last_error and node.state is not NodeState.FOLLOWING:
        notes.append(printable_text(node.last_error))
        if "max_delete" in node.last_error:
            notes.append(f"if that is right: `shardsync resume {node.name} --allow-delete`")
    elif node.retry_paths:
        failing = counted(node.retry_paths, "path")
        notes.append(f"{failing} being tried again: {_retries(node)}")
    return "; ".join(notes)


def _retries(node: NodeStatus) -> str:
    told = [
        f"{printable(retry.path)}: {printable_text(retry.reason)}"
        f" (tried {retry.attempts} times, next {rfc3339(retry.next_us)})"
        for retry in node.retries
    ]
    more = (node.retry_paths or 0) - len(told)
    return ", ".join([*told, *([f"and {more} more"] if more > 0 else [])])


def _number(number: int | None) -> str:
    return "-" if number is None else f"{number}"


def _ago(moment_us: int | None, now_us: int) -> str:
    if moment_us is None:
        return "-"
    return f"{human_duration(max(0.0, (now_us - moment_us) / 1_000_000))} ago"
