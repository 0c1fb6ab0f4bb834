"""Which differences of an audited piece nothing explains. Reads alone; the Auditor acts on it.

What is on its way to a Node differs there, and nothing is wrong: a Change tells of it, or
will once its Watcher has read it, perhaps under another name of the same file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from shardsync.config.settings import NodeSettings
from shardsync.journal.records import AuditPiece, Cursor, LinkedFile, Work
from shardsync.journal.state_reader import StateReader
from shardsync.ship.explained import Explained, explained_after
from shardsync.ship.findings import Findings
from shardsync.ship.journals import TreeJournals
from shardsync.ship.look import NOWHERE, Look, LookKind
from shardsync.ship.messages import temporary_stem
from shardsync.ship.view import NodeView


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A piece as it was found. `cursors`, `work`: of before; `seen_us`: when it was over;
    `seconds`: what it took.
    """

    piece: AuditPiece
    found: Findings
    cursors: Mapping[str, Cursor]
    work: tuple[Work, ...]
    seen_us: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unexplained:
    """Paths that differ for no reason. `changed`: the Node lacks them or has them otherwise;
    `others`: it has them beside the Tree, or they cannot be compared.
    """

    changed: list[bytes]
    others: list[bytes]


class Judge:
    """For one Node. Paths are relative to its subtree."""

    def __init__(
        self, *, node: NodeSettings, state: StateReader, journals: TreeJournals, view: NodeView
    ) -> None:
        self._node = node
        self._state = state
        self._journals = journals
        self._view = view

    def may_judge(self, compared: Compared) -> bool:
        """Whether all that had changed by then is journaled; asks for it, where it is not.

        A file that is being written, or what a Watcher has not read yet, differs without a
        Change.
        """
        if self._journals.watermark_us() >= compared.seen_us:
            return True
        self._journals.ask_watermark()
        return False

    async def judge(self, compared: Compared) -> Unexplained:
        """What is left of the findings; nothing where too much is pending to tell.

        Raises StateUnusable, and OSError where the Tree cannot be looked at.
        """
        explained = await explained_after(
            self._journals,
            compared.cursors,
            subtree=self._node.subtree,
            # What was open before may have been sent meanwhile.
            work=[*compared.work, *self._state.work(self._node.key)],
        )
        if explained.is_cut:
            return Unexplained(changed=[], others=[])
        found = compared.found
        return Unexplained(
            changed=self._changed(found, explained),
            others=[
                *(path for path in found.beside.paths if not _is_expected(path, explained)),
                *(path for path in found.unreadable if not explained.explains(path)),
            ],
        )

    def _changed(self, found: Findings, explained: Explained) -> list[bytes]:
        differing = [path for path in found.changed if not explained.explains(path)]
        if not differing:
            return []
        with self._view.looking() as looker:
            return [path for path in differing if not self._may_come(looker.look(path), explained)]

    def _may_come(self, seen: Look, explained: Explained) -> bool:
        """Whether it is gone by now, or pending under another name that it has, or had: inotify
        tells of one.
        """
        if seen.kind in NOWHERE:
            return True
        if seen.kind is not LookKind.FILE:
            return False
        file = LinkedFile(device=seen.device, inode=seen.inode, links=seen.links)
        prefix = os.fsencode(self._node.subtree) + b"/" if self._node.subtree else b""
        return any(
            name.startswith(prefix) and explained.explains(name[len(prefix) :])
            for name in self._state.link_names(self._node.tree, file, with_gone=True)
        )


def _is_expected(path: bytes, explained: Explained) -> bool:
    """Whether what is beside the Tree is pending, or a file that is being received just now."""
    if explained.explains_extraneous(path):
        return True
    folder, _, name = path.rpartition(b"/")
    stem = temporary_stem(name)
    if not stem:
        return False
    prefix = folder + b"/" if folder else b""
    return explained.explains(prefix + stem) or explained.explains(prefix + b"." + stem)
