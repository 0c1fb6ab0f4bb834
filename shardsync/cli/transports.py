"""Nodes reached straight from the command line, beside or without the sync process."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass, replace

from shardsync.cli.invocation import Invocation
from shardsync.config.patterns import PathFilter, node_filter
from shardsync.config.settings import NodeSettings, TreeSettings
from shardsync.errors import NodesFailed
from shardsync.journal.state_reader import StateReader
from shardsync.ship.outcome import Trouble
from shardsync.ship.root import RootGuard, RootIdentity, RootTrouble, RootTroubleKind
from shardsync.ship.transport import NodeTransport

OURS = frozenset({Trouble.SOURCE, Trouble.UNATTRIBUTED, Trouble.PATHS, Trouble.DEADLINE})
"""Troubles that do not mean: the Node does not answer, or refuses us."""
_ABSENT = frozenset({RootTroubleKind.MISSING, RootTroubleKind.UNREADABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One Node with its transport. `filter`: for paths relative to the Node's own root."""

    node: NodeSettings
    transport: NodeTransport
    filter: PathFilter

    def tree_path(self, path: bytes) -> bytes:
        """A path of the Node's as the Tree has it."""
        subtree = os.fsencode(self.node.subtree)
        return b"/".join(part for part in (subtree, path) if part)


def reach(call: Invocation, node: NodeSettings, root: RootGuard) -> Reach:
    """A transport of our own to the Node, reading from `root`."""
    path_filter = node_filter(node).rebased(os.fsencode(node.subtree))
    transport = NodeTransport(
        # A run or two: a login of their own would not pay.
        node=replace(node, warm=False),
        source=root,
        clock=call.clock,
        environment=call.env,
        filters=tuple(path_filter.rsync_arguments()),
    )
    return Reach(node=node, transport=transport, filter=path_filter)


def pin_roots(
    call: Invocation, trees: set[str], *, as_known: bool = False
) -> dict[str, RootGuard]:
    """The roots of these Trees, pinned for as long as they are compared. Raises NodesFailed.

    `as_known`: only if they are what the sync process holds to be the Trees' roots.
    """
    roots = {}
    for name in sorted(trees):
        tree = call.settings.tree(name)
        known = _known(call, name) if as_known else None
        root = RootGuard(path=os.fsencode(tree.root), marker=tree.marker, known=known)
        trouble = root.pin()
        if trouble is not None:
            raise NodesFailed(f"tree {name}: {trouble.message}", hint=_remedy(tree, trouble))
        roots[name] = root
    return roots


def _known(call: Invocation, tree: str) -> RootIdentity | None:
    if not call.state.state_db.exists():
        return None
    with contextlib.closing(StateReader(call.state.state_db)) as reader:
        return RootIdentity.parse(reader.root_identity(tree))


def _remedy(tree: TreeSettings, trouble: RootTrouble) -> str:
    if trouble.kind is RootTroubleKind.MARKER_GONE:
        marker = shlex.quote(str(tree.root / tree.marker))
        return f"mount what belongs there; if this is the right tree: touch {marker}"
    if trouble.kind in _ABSENT:
        return "mount or create the root"
    return "mount what belongs there; if that is right: `shardsync resume --accept-root`"
