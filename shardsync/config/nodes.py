"""From `[[node]]` and `[node_defaults]` tables to Nodes: outer lists added in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shardsync.config.options import check_ssh_options
from shardsync.config.problems import Place
from shardsync.config.reader import Reader
from shardsync.config.schema import NodeTable
from shardsync.config.settings import (
    DEFAULT_ORDER_FIRST,
    NodeSettings,
    Target,
    TargetKind,
    TreeSettings,
)
from shardsync.config.source import Decoded, Tables
from shardsync.config.target import hide_password, parse_target
from shardsync.config.values import bandwidth, duration, folder_below, name, order
from shardsync.config.window_tables import parse_hours, parse_windows

NOWHERE = Target(kind=TargetKind.LOCAL, path="")
"""Stands in for a target that was refused, so that the rest of the Node is looked at too."""


class NodeResolver:
    """Reads one Node after the other."""

    def __init__(self, *, tables: Tables, reader: Reader, trees: list[TreeSettings]) -> None:
        self._tables = tables
        self._reader = reader
        self._trees = trees

    def resolve(self) -> list[tuple[NodeSettings, Place]]:
        """Every Node as far as it can be told, and where its file has it."""
        self._check_options(self._tables.node_defaults, None)
        return [(self._node(decoded), decoded.place) for decoded in self._tables.nodes]

    def defaults(self) -> NodeSettings:
        """What holds for a Node that says nothing itself, less what its Tree and `[sync]` add."""
        decoded = self._tables.node_defaults
        text = decoded.table.password_file
        return replace(
            self._apart(decoded),
            tree=decoded.table.tree or "",
            exclude=tuple(decoded.table.exclude),
            rsync_options=tuple(decoded.table.rsync_options),
            password_file=None if text is None else Path(text),
        )

    def _node(self, decoded: Decoded[NodeTable]) -> NodeSettings:
        defaults, own = self._tables.node_defaults, decoded.table
        wanted = _merged(defaults, decoded).tree
        tree_name = self._reader.tree_of(decoded, wanted, self._trees)
        tree = next((tree for tree in self._trees if tree.name == tree_name), None)
        target = self._target(decoded)
        # What rsync would refuse for this target alone may stand in an outer table.
        for table in (self._tables.sync, defaults):
            self._reader.check_rsync_options(table, target.kind)
        self._check_options(decoded, target.kind)
        return replace(
            self._apart(decoded),
            name=self._name(decoded),
            tree=tree_name,
            target=target,
            exclude=(*(tree.exclude if tree else ()), *defaults.table.exclude, *own.exclude),
            include=tree.include if tree else (),
            rsync_options=(
                *self._tables.sync.table.rsync_options,
                *defaults.table.rsync_options,
                *own.rsync_options,
            ),
            password_file=self._password_file(decoded, target),
        )

    def _apart(self, decoded: Decoded[NodeTable]) -> NodeSettings:
        """What needs no other table than its own and `[node_defaults]`."""
        values = _merged(self._tables.node_defaults, decoded)
        return NodeSettings(
            name="",
            tree="",
            target=NOWHERE,
            subtree=self._merged_value(decoded, "subtree", folder_below),
            only=tuple(values.only),
            delete=values.delete,
            bandwidth=self._merged_value(decoded, "bandwidth", bandwidth),
            order=self._merged_value(decoded, "order", order),
            order_first=tuple(values.order_first) or DEFAULT_ORDER_FIRST,
            ssh_options=tuple(values.ssh_options),
            run_as=values.run_as,
            paused=values.paused,
            warm=values.warm,
            windows=self._reader.read(
                self._owner_of(decoded, "windows"), "windows", parse_windows, ()
            ),
            audit_every_seconds=self._reader.read(
                self._owner_of(decoded, "audit_every"), "audit_every", _audit_every, 0.0
            ),
            audit_hours=self._reader.read(
                self._owner_of(decoded, "audit_hours"), "audit_hours", parse_hours, None
            ),
            audit_checksum=values.audit_checksum,
        )

    def _check_options(self, decoded: Decoded[NodeTable], kind: TargetKind | None) -> None:
        self._reader.check_patterns(decoded, "exclude", "only", "order_first")
        self._reader.check_rsync_options(decoded, kind)
        for refusal in check_ssh_options(decoded.table.ssh_options):
            self._reader.findings.refuse(decoded.place, "ssh_options", refusal)

    def _name(self, decoded: Decoded[NodeTable]) -> str:
        if decoded.table.name is None:
            self._reader.findings.add(decoded.place, "name", "is missing", 'write name = "web1"')
            return decoded.place.node or ""
        return self._reader.read(decoded, "name", name, decoded.table.name)

    def _target(self, decoded: Decoded[NodeTable]) -> Target:
        if decoded.table.target is None:
            self._reader.findings.add(
                decoded.place, "target", "is missing", 'write target = "/path" or "web1:/path"'
            )
            return NOWHERE
        return self._reader.read(decoded, "target", parse_target, NOWHERE, show=hide_password)

    def _owner_of(self, decoded: Decoded[NodeTable], key: str) -> Decoded[NodeTable]:
        """The table that a value comes from: the Node's own, or node_defaults."""
        return decoded if key in decoded.given else self._tables.node_defaults

    def _merged_value(
        self, decoded: Decoded[NodeTable], key: str, parse: Callable[[Any], str]
    ) -> str:
        return self._reader.read(self._owner_of(decoded, key), key, parse, "")

    def _password_file(self, decoded: Decoded[NodeTable], target: Target) -> Path | None:
        owner = self._owner_of(decoded, "password_file")
        text = owner.table.password_file
        if text is None or target == NOWHERE:
            return None
        if target.kind is not TargetKind.DAEMON:
            if owner is decoded:
                self._reader.findings.add(
                    decoded.place,
                    "password_file",
                    "only rsync daemons ask for a password",
                    "leave it out; ssh takes keys: see ssh_options",
                )
            return None
        if not os.path.isabs(text):
            # Not shown: it may well be the password itself.
            self._reader.findings.add(
                owner.place,
                "password_file",
                "is not a full path",
                'write the password into a file of mode 0600 and its full path here: "/etc/..."',
            )
            return None
        return Path(os.path.normpath(text))


def _audit_every(text: str) -> float:
    return duration(text, low=0.0, high=366 * 86400.0)


def _merged(defaults: Decoded[NodeTable], decoded: Decoded[NodeTable]) -> NodeTable:
    values = {key: getattr(defaults.table, key) for key in defaults.given}
    values.update({key: getattr(decoded.table, key) for key in decoded.given})
    return NodeTable(**values)
