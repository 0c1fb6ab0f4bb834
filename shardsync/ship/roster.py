"""Which Nodes the record holds against which the settings name: who was renamed, who is gone.

Pure: rows and settings in, a decision out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shardsync.config.settings import NodeSettings
from shardsync.journal.records import NodeKey, NodeRow
from shardsync.ship.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """`renamed`: old key -> new key. `gone`: Nodes that the settings no longer name."""

    renamed: Mapping[NodeKey, NodeKey] = field(default_factory=dict)
    gone: tuple[NodeKey, ...] = ()


def compare_roster(rows: Mapping[NodeKey, NodeRow], nodes: Iterable[NodeSettings]) -> Roster:
    """A new name for the same target and subtree of the same Tree is the same Node, renamed."""
    wanted = {node.key: node for node in nodes}
    new = {key: node for key, node in wanted.items() if key not in rows}
    renamed: dict[NodeKey, NodeKey] = {}
    gone: list[NodeKey] = []
    for key in sorted(rows.keys() - wanted.keys()):
        successor = _successor(rows[key], new)
        if successor is None:
            gone.append(key)
        else:
            renamed[key] = successor
            del new[successor]
    return Roster(renamed=renamed, gone=tuple(gone))


def _successor(row: NodeRow, new: Mapping[NodeKey, NodeSettings]) -> NodeKey | None:
    held = Fingerprint.parse(row.fingerprint)
    if held is None:
        return None
    for key, node in new.items():
        if key[0] == row.tree and (str(node.target), node.subtree) == (held.target, held.subtree):
            return key
    return None
