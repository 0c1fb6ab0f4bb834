"""`shardsync verify`: compare Nodes with the Tree, change nothing."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import click

from shardsync.cli.invocation import Invocation
from shardsync.cli.options import config_option, examples, json_option, node_option, tree_option
from shardsync.cli.output import Meter, counted, print_json, say, tell
from shardsync.cli.transports import OURS, Reach, pin_roots, reach
from shardsync.config.settings import NodeSettings
from shardsync.errors import DifferencesFound, NodesFailed, NodeUnreachable
from shardsync.escape import json_path, printable, printable_text
from shardsync.model import NodeState
from shardsync.observe.pending import PendingPaths
from shardsync.ship.comparison import Difference, What
from shardsync.ship.look import LookKind
from shardsync.ship.outcome import RunResult
from shardsync.ship.root import RootGuard
from shardsync.ship.verify import Verifier

_REPAIR = "shardsync reconcile --node NODE"
_DEADLINE_SECONDS = 7 * 86400.0
"""Millions of files over a slow line, with checksums, take days; silence is noticed by itself."""
_SHOWN = 20


@dataclass(slots=True, kw_only=True)
class Verdict:
    """How one Node compares. `failed`: the run that could not compare all, or None."""

    node: NodeSettings
    different: list[tuple[bytes, str]]
    pending: int = 0
    failed: RunResult | None = None

    @property
    def is_identical(self) -> bool:
        """Whether all was compared and nothing differs."""
        return not self.different and self.failed is None


@click.command(
    epilog=examples("shardsync flush && shardsync verify", "shardsync verify --checksum --json")
)
@config_option
@tree_option
@node_option
@click.option("--checksum", is_flag=True, help="Compare contents, not only size and time.")
@json_option
@click.pass_obj
def verify(
    call: Invocation, tree: str | None, nodes: tuple[str, ...], checksum: bool, as_json: bool
) -> None:
    """Compare nodes with the tree, changing nothing.

    Exits 0 when all are identical, 3 when some differ, 13 when one cannot be
    reached, 14 when the tree's root is not what it was. What is on its way to
    a following node is no difference.
    """
    keys = call.nodes(tree, nodes)
    chosen = [node for node in call.settings.nodes if node.key in keys]
    verdicts = asyncio.run(_verify_all(call, chosen, checksum=checksum))
    if as_json:
        print_json({"nodes": [_document(verdict) for verdict in verdicts]})
    for verdict in verdicts:
        _show(call.called((verdict.node.key,)), verdict, quiet=as_json)
    _judge(call, verdicts, checksum=checksum)


async def _verify_all(
    call: Invocation, nodes: list[NodeSettings], *, checksum: bool
) -> list[Verdict]:
    """All Nodes side by side, as many as may have an rsync at a time."""
    roots = pin_roots(call, {node.tree for node in nodes}, as_known=True)
    excused = _excused(call)
    slots = asyncio.Semaphore(call.settings.sync.max_rsyncs)
    with Meter(title="verify", clock=call.clock) as meter:

        async def one(node: NodeSettings) -> Verdict:
            async with slots:
                is_excused = node.key in excused
                return await _verify(
                    call, node, roots[node.tree], meter, checksum=checksum, is_excused=is_excused
                )

        try:
            return await asyncio.gather(*(one(node) for node in nodes))
        finally:
            for root in roots.values():
                root.release()


async def _verify(
    call: Invocation,
    node: NodeSettings,
    root: RootGuard,
    meter: Meter,
    *,
    checksum: bool,
    is_excused: bool,
) -> Verdict:
    reached = reach(call, node, root)
    verdict = Verdict(node=node, different=[])
    pending = PendingPaths(state=call.state, plan=call.plan(), node=node.key)
    verifier = Verifier(
        transport=reached.transport,
        clock=call.clock,
        on_the_way=_OnTheWay(reached, root, pending) if is_excused else None,
    )
    with contextlib.closing(pending):
        try:
            async for difference in verifier.differences(
                checksum=checksum, deadline_seconds=_DEADLINE_SECONDS
            ):
                if _counts(reached, difference):
                    path = reached.tree_path(difference.path)
                    verdict.different.append((path, difference.why))
                    meter.show(f"{node.name}: {len(verdict.different):,} differences")
        finally:
            await reached.transport.close()
    verdict.pending = verifier.verification.pending
    verdict.failed = verifier.verification.failed
    return verdict


class _OnTheWay:
    """What a Node that follows is still to be sent, for the Verifier."""

    def __init__(self, reached: Reach, root: RootGuard, pending: PendingPaths) -> None:
        self._reached = reached
        self._root = root
        self._pending = pending

    def renew(self) -> None:
        self._pending.renew()

    def is_pending(self, path: bytes) -> bool:
        return self._pending.holds(self._reached.tree_path(path))

    def changed_at(self, path: bytes) -> int:
        below = self._reached.tree_path(path)
        found = self._root.look(below)
        match found.kind:
            case LookKind.MISSING:
                found = self._root.look(below.rpartition(b"/")[0])
            case LookKind.MISSING_ANCESTOR:
                found = self._root.look(found.ancestor.rpartition(b"/")[0])
            case LookKind.NOT_DIRECTORY_ANCESTOR:
                found = self._root.look(found.ancestor)
        return found.ctime_ns


def _counts(reached: Reach, difference: Difference) -> bool:
    """What rsync names although it is excluded, or stays because nothing is deleted, is none."""
    if difference.what is What.EXTRANEOUS and not reached.node.delete:
        return False
    return not reached.filter.excludes(difference.path, difference.is_directory)


def _excused(call: Invocation) -> set[tuple[str, str]]:
    """Nodes that are being shipped to: only there is "on its way" an excuse for a difference."""
    with contextlib.closing(call.status_reader()) as reader:
        return {
            (node.tree, node.name)
            for node in reader.read().nodes
            if node.state is NodeState.FOLLOWING
        }


def _document(verdict: Verdict) -> dict[str, object]:
    different: list[dict[str, str]] = [
        {**json_path(path), "why": why} for path, why in sorted(verdict.different)
    ]
    if verdict.failed is not None:
        message = printable_text(verdict.failed.message)
        different.append({"path": "", "why": f"not compared: {message}"})
    return {
        "tree": verdict.node.tree,
        "name": verdict.node.name,
        "identical": verdict.is_identical,
        "different": different,
    }


def _show(name: str, verdict: Verdict, *, quiet: bool) -> None:
    """`quiet`: the JSON holds it; only what went wrong is told beside."""
    if verdict.failed is not None:
        tell(f"{name}: not compared: {printable_text(verdict.failed.message)}")
    if quiet:
        return
    if verdict.is_identical:
        on_its_way = f", {counted(verdict.pending, 'path')} on its way" if verdict.pending else ""
        say(f"{name}: identical{on_its_way}")
        return
    if verdict.different:
        say(f"{name}: {counted(len(verdict.different), 'difference')}")
    for path, why in sorted(verdict.different)[:_SHOWN]:
        say(f"  {printable(path) or './'}: {why}")
    if len(verdict.different) > _SHOWN:
        say(f"  ... and {len(verdict.different) - _SHOWN:,} more (--json prints all)")


def _judge(call: Invocation, verdicts: list[Verdict], *, checksum: bool) -> None:
    """Raise what the exit code must say: a Node that was not compared weighs more."""
    failed = [verdict for verdict in verdicts if verdict.failed is not None]
    unreachable = [v for v in failed if v.failed is not None and v.failed.trouble not in OURS]
    if unreachable:
        raise NodeUnreachable(f"verify: not compared: {_names(call, unreachable)}")
    if failed:
        raise NodesFailed(f"verify: not compared: {_names(call, failed)}")
    different = [verdict for verdict in verdicts if not verdict.is_identical]
    if different:
        raise DifferencesFound(
            f"verify: different: {_names(call, different)}",
            hint=_remedy(call, different, checksum=checksum),
        )


def _remedy(call: Invocation, different: list[Verdict], *, checksum: bool) -> str:
    """What repairs them: a reconcile only what it would find, and on Nodes that are not owned
    nothing that is there beside the tree.
    """
    exactly = " --checksum" if checksum else ""
    remedy = f"`shardsync flush` first if changes are pending, else `{_REPAIR}{exactly}`"
    with contextlib.closing(call.status_reader()) as reader:
        kept = {(node.tree, node.name) for node in reader.read().nodes if node.owned is False}
    if any(
        why == What.EXTRANEOUS.value and verdict.node.key in kept
        for verdict in different
        for _, why in verdict.different
    ):
        remedy += "; what the tree lacks goes only after `shardsync resume NODE --adopt`"
    return remedy


def _names(call: Invocation, verdicts: list[Verdict]) -> str:
    return call.called(verdict.node.key for verdict in verdicts)
