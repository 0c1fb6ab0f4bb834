"""Finds what killed rsyncs of ours left on a Node: `.NAME.XXXXXX`. Decides, never deletes.

An rsync that dies of SIGKILL, or whose connection is cut, leaves its temporary
file in a folder that a web server serves. Such a name is swept only if the tree
has, or a listed path is, the NAME that it was made for, and the tree does not have
the leftover itself: `.htaccess.backup` and `.eslintrc.config` have the same
form. On a Node that is not owned only a NAME that was just sent again counts, and never
what was there before we came. What is found is deleted by name, through the normal path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from dataclasses import dataclass

from shardsync.ship.comparison import Difference, What
from shardsync.ship.look import Look, LookKind
from shardsync.ship.messages import temporary_stem

PARTIAL_DIRECTORY = b".shardsync-partial"
"""Never made by us (see ship.command); swept because a Node's `rsync_options` may name it."""

_MADE = frozenset({LookKind.FILE})
_ABSENT = frozenset({LookKind.MISSING})
_RANDOM = re.compile(rb"(?=.*[A-Z])[A-Za-z0-9]{6}|(?=.*[0-9])[A-Za-z0-9]{6}")
_LONG_STEM = 240
"""From that length on rsync cuts NAME, and what is left proves nothing."""


@dataclass(slots=True, kw_only=True)
class InFlight:
    """What a second rsync is sending to the Node right now, beside the Batches; None: nothing."""

    path: bytes | None = None

    def owns(self, path: bytes) -> bool:
        """Whether that rsync may be writing to this very name: no leftover, nor foreign."""
        if self.path is None:
            return False
        folder, _, name = self.path.rpartition(b"/")
        beside, _, temporary = path.rpartition(b"/")
        stem = temporary_stem(temporary)
        if beside != folder or not stem:
            return False
        return name.lstrip(b".").startswith(stem.lstrip(b"."))


def may_be_leftover(difference: Difference) -> bool:
    """Whether its name alone speaks for that: cheap, to keep the others out of memory."""
    name = difference.path.rpartition(b"/")[2]
    return name == PARTIAL_DIRECTORY if difference.is_directory else bool(temporary_stem(name))


class Janitor:
    """Judges what a comparison of one Node calls extraneous.

    `look`: what a path holds in the tree, through the pinned root. `listed`: paths
    that were sent, of which the tree may have none any more. `foreign`: never ours.
    `only_listed`: what the tree merely has proves nothing, as on a Node that is not owned.
    `is_owned`: what is beside the tree goes anyway, so any six letters do behind a listed NAME.
    """

    def __init__(
        self,
        *,
        look: Callable[[bytes], Look],
        listed: Container[bytes] = frozenset(),
        foreign: Container[bytes] = frozenset(),
        only_listed: bool = False,
        is_owned: bool = False,
    ) -> None:
        self._look = look
        self._listed = listed
        self._foreign = foreign
        self._only_listed = only_listed
        self._is_owned = is_owned

    def is_leftover(self, difference: Difference) -> bool:
        """Whether this extraneous path may be deleted as a leftover of ours."""
        if difference.what is not What.EXTRANEOUS or not difference.path:
            return False
        if difference.path in self._foreign:
            return False
        folder, _, name = difference.path.rpartition(b"/")
        if difference.is_directory:
            return name == PARTIAL_DIRECTORY and self._is_absent(difference.path)
        prefix = folder + b"/" if folder else b""
        return self._was_made_for(prefix, name) and self._is_absent(difference.path)

    def _was_made_for(self, prefix: bytes, name: bytes) -> bool:
        stem = temporary_stem(name)
        if not stem or len(stem) >= _LONG_STEM:
            return False
        names = (prefix + stem, prefix + b"." + stem)
        is_listed = any(path in self._listed for path in names)
        # A word like `backup` is a suffix that people write; mkstemp's letters are mixed.
        if _RANDOM.fullmatch(name[-6:]) is None:
            return is_listed and self._is_owned
        if is_listed:
            return True
        return not self._only_listed and any(self._look(path).kind in _MADE for path in names)

    def _is_absent(self, path: bytes) -> bool:
        return self._look(path).kind in _ABSENT
