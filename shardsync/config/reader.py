"""Reads single values out of decoded tables; what cannot stand is noted, and a default taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from shardsync.config.options import check_rsync_options
from shardsync.config.patterns import check_pattern
from shardsync.config.problems import Findings, Refusal
from shardsync.config.settings import TargetKind, TreeSettings
from shardsync.config.source import Decoded

V = TypeVar("V")


class Reader:
    """Every method notes its Problems in `findings` and gives back something to go on with."""

    def __init__(self, *, findings: Findings) -> None:
        self.findings = findings

    def read(
        self,
        decoded: Decoded[Any],
        key: str,
        parse: Callable[[Any], V],
        default: V,
        *,
        show: Callable[[Any], object] = lambda value: value,
    ) -> V:
        """The entry `key` as `parse` has it. `show` hides what must not be printed."""
        value = getattr(decoded.table, key)
        try:
            return parse(value)
        except Refusal as refusal:
            self.findings.refuse(decoded.place, key, refusal, value=show(value))
            return default

    def check_patterns(self, decoded: Decoded[Any], *keys: str) -> None:
        """Note the patterns of these entries that cannot stand."""
        for key in keys:
            for pattern in getattr(decoded.table, key):
                refusal = check_pattern(pattern)
                if refusal:
                    self.findings.refuse(decoded.place, key, refusal, value=pattern)

    def check_rsync_options(self, decoded: Decoded[Any], kind: TargetKind | None) -> None:
        """Note the `rsync_options` that cannot stand for a Node of this kind (None: any)."""
        for refusal in check_rsync_options(decoded.table.rsync_options, kind):
            self.findings.refuse(decoded.place, "rsync_options", refusal)

    def tree_of(self, decoded: Decoded[Any], wanted: str | None, trees: list[TreeSettings]) -> str:
        """The name of the Tree that a Node or Callback belongs to; "" if there is none such."""
        if not trees:
            return ""
        if wanted is None and len(trees) == 1:
            return trees[0].name
        names = ", ".join(tree.name for tree in trees)
        if wanted is None:
            self.findings.add(
                decoded.place,
                "tree",
                "is missing, and there are several Trees",
                f'write tree = "NAME"; there are: {names}',
            )
            return ""
        if wanted not in [tree.name for tree in trees]:
            self.findings.add(
                decoded.place,
                "tree",
                "there is no Tree of that name",
                f"there are: {names}",
                value=wanted,
            )
            return ""
        return wanted
