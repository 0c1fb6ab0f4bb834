"""From distinct paths to what rsync is told: one look at each path through the pinned root.

Pure but for the looking, which is handed in. A Change says where to look; what
is found *now* decides, so a path that is gone is deleted, and one that came
back is sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from shardsync.journal.records import LinkedFile
from shardsync.ship.fold import Pending, Want, ancestors, join
from shardsync.ship.look import GONE, Look, LookKind
from shardsync.ship.moves import Move, find_moves, followed

LookAt = Callable[[bytes], Look]
IsExcluded = Callable[[bytes, bool], bool]
"""(path, is a directory) -> whether the Node must not be touched there."""


@dataclass(slots=True, kw_only=True)
class BatchPlan:
    """What one Batch does. Paths are distinct, and none lies below one in `trees` or `gone`.

    `content`, `attributes`: sent as they are. `trees`: sent whole. `listings`:
    directories whose Node side may hold names that are gone. `gone`: path ->
    how many Changes its absence explains. `uncounted`: those of `gone` that may
    have been directories whose contents were never journaled one by one.
    `replaced`: those of `content` that were a directory before.
    `unreadable`: path -> reason; they are tried again, and never deleted.
    `linked`: those of `content` and `attributes` that have several names;
    `unlinked`: the rest, which may have been such names before. `siblings`: other names of
    files written through one name, which may hold new bytes of the old size and time.
    `moves`: those of `trees` that were only renamed. What lies below one of which a
    Journal tells is listed beside it, and so is a tree below it.
    `has_root_files`: all that lies directly in the root is wanted, too.
    """

    content: dict[bytes, int] = field(default_factory=dict)
    attributes: dict[bytes, int] = field(default_factory=dict)
    trees: dict[bytes, int] = field(default_factory=dict)
    listings: dict[bytes, int] = field(default_factory=dict)
    gone: dict[bytes, int] = field(default_factory=dict)
    uncounted: set[bytes] = field(default_factory=set)
    replaced: set[bytes] = field(default_factory=set)
    unreadable: dict[bytes, str] = field(default_factory=dict)
    sizes: dict[bytes, int] = field(default_factory=dict)
    has_root_files: bool = False
    linked: dict[bytes, LinkedFile] = field(default_factory=dict)
    unlinked: list[bytes] = field(default_factory=list)
    siblings: set[bytes] = field(default_factory=set)
    moves: dict[bytes, Move] = field(default_factory=dict)

    @property
    def vacated(self) -> dict[bytes, bytes]:
        """Old names that are deleted because a Journal tells of a rename -> the new ones."""
        return {
            origin: move.path
            for move in self.moves.values()
            if move.is_told and move.is_gone
            for origin in move.origins
            if origin in self.gone
        }

    def copy(self) -> BatchPlan:
        """One that may be changed apart from this: what one Node is spared, another is not."""
        return replace(
            self,
            content=self.content.copy(),
            attributes=self.attributes.copy(),
            trees=self.trees.copy(),
            listings=self.listings.copy(),
            gone=self.gone.copy(),
            uncounted=self.uncounted.copy(),
            replaced=self.replaced.copy(),
            unreadable=self.unreadable.copy(),
            sizes=self.sizes.copy(),
            linked=self.linked.copy(),
            unlinked=self.unlinked.copy(),
            siblings=self.siblings.copy(),
            moves=self.moves.copy(),
        )

    def deletes(self, path: bytes) -> bool:
        """Whether `path` goes from the Node with this Batch, by itself or with one above it."""
        return path in self.gone or any(above in self.gone for above in ancestors(path))

    def forget(self, path: bytes) -> None:
        """It is on the Node."""
        self.content.pop(path, None)
        self.siblings.discard(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan as the Tree was when it was made, for all Nodes that see the same of it.

    `stand`: what the Batch stood on then, as `ship.footing` tells.
    `unresolved`: files that may have more names than are known yet.
    """

    plan: BatchPlan
    stand: tuple[object, ...]
    unresolved: frozenset[bytes]


Plans = dict[Hashable, Planned]
"""What was made of one slice, by what a Node sees of the Tree."""


def plan_batch(pending: Iterable[Pending], *, look: LookAt, is_excluded: IsExcluded) -> BatchPlan:
    """Look at every path once and sort it to where it belongs. Linear in the paths."""
    plan = BatchPlan()
    planner = _Planner(plan=plan, look=look, is_excluded=is_excluded)
    distinct, moves = _renamed(pending, look)
    rest = []
    for item in distinct.values():
        if item.wants_tree:
            planner.place(item)
        else:
            rest.append(item)
    plan.moves = {path: move for path, move in moves.items() if path in plan.trees}
    whole = plan.trees.keys() - {path for path, move in plan.moves.items() if move.is_told}
    for item in rest:
        is_covered = whole and any(above in whole for above in _covering(item.path))
        # A tree deletes nothing by itself, and a Node that is not owned is not searched.
        planner.place(item, only_if_gone=bool(is_covered))
    _drop_covered(plan, whole)
    return plan


def _renamed(
    pending: Iterable[Pending], look: LookAt
) -> tuple[dict[bytes, Pending], dict[bytes, Move]]:
    """The distinct paths, those below old names also below the new ones; and the renames."""
    distinct: dict[bytes, Pending] = {}
    for item in pending:
        # Several work rows may want different things of one path, and so may what comes from
        # above a subtree.
        join(distinct, item)
    moves = find_moves(distinct, look=look)
    if moves:
        distinct = followed(distinct.values(), moves)
        # One renamed inside one that was renamed afterwards is seen only now.
        moves = find_moves(distinct, look=look)
    return distinct, moves


def take_big(
    plan: BatchPlan, more_than: float, keep: Callable[[bytes], bool] = lambda _: False
) -> dict[bytes, int]:
    """Take the files of more than so many bytes out of the plan; returns them with their sizes.

    Not those that stand where the Node may have a directory: what that held is counted first.
    Nor those that are to be kept: they come first, however long it takes.
    """
    big = {
        path: plan.sizes[path]
        for path in plan.content
        if plan.sizes.get(path, 0) > more_than and path not in plan.replaced and not keep(path)
    }
    for path in big:
        del plan.content[path]
    return big


def small_first(
    paths: Iterable[bytes], sizes: Mapping[bytes, int], *, max_bytes: int
) -> list[bytes]:
    """The list as it is where one run takes it; else the smallest first, so that a thousand small
    files do not wait for what takes minutes.
    """
    listed = list(paths)
    if sum(sizes.get(path, 0) for path in listed) > max_bytes:
        listed.sort(key=lambda path: sizes.get(path, 0))
    return listed


def chunks(
    paths: Iterable[bytes], sizes: Mapping[bytes, int], *, max_paths: int, max_bytes: int
) -> Iterator[list[bytes]]:
    """Cut a flat list by number of paths and by bytes; a path larger than the limit goes alone."""
    chunk: list[bytes] = []
    total = 0
    for path in paths:
        size = sizes.get(path, 0)
        if chunk and (len(chunk) >= max_paths or total + size > max_bytes):
            yield chunk
            chunk, total = [], 0
        chunk.append(path)
        total += size
    if chunk:
        yield chunk


class _Planner:
    def __init__(self, *, plan: BatchPlan, look: LookAt, is_excluded: IsExcluded) -> None:
        self._plan = plan
        self._look = look
        self._is_excluded = is_excluded

    def place(self, item: Pending, *, only_if_gone: bool = False) -> None:
        if not item.path:
            if not only_if_gone:
                self._place_root(item)
            return
        found = self._look(item.path)
        if only_if_gone and found.kind not in GONE:
            # Sent with the tree; its other names may lie outside.
            self._note_links(item, found)
            return
        match found.kind:
            case LookKind.MISSING:
                self._place_gone(item, item.path)
            case LookKind.MISSING_ANCESTOR:
                self._place_gone(item, found.ancestor)
            case LookKind.UNREADABLE:
                self._plan.unreadable[item.path] = f"cannot be read: {os.strerror(found.error)}"
            case LookKind.NOT_DIRECTORY_ANCESTOR:
                # A directory became a file or a symlink: listed with what was below it, rsync
                # would make a directory of it again, filled from wherever the symlink leads.
                self._plan.unlinked.append(item.path)
                self._place_file(found.ancestor, item.since, 0)
                self._note_replaced(found.ancestor)
            case _:
                self._place_present(item, found)

    def _place_root(self, item: Pending) -> None:
        """The root's own attributes are never shipped; what lies directly in it may be."""
        if item.want & Want.TREE:
            self._plan.trees[b""] = item.since
        elif item.want & (Want.LISTING | Want.CONTENT):
            self._plan.listings[b""] = item.since
        if item.want & (Want.TREE | Want.CONTENT):
            self._plan.has_root_files = True

    def _place_directory(self, item: Pending) -> None:
        if item.want & Want.TREE:
            self._plan.trees[item.path] = item.since
            return
        if item.want & Want.LISTING:
            self._plan.listings[item.path] = item.since
        # A directory has no data to resend: it goes with the content, by the warm rsync.
        self._plan.content[item.path] = item.since

    def _place_present(self, item: Pending, found: Look) -> None:
        self._note_links(item, found)
        if found.kind is LookKind.DIRECTORY:
            if not self._is_excluded(item.path, True):
                self._place_directory(item)
            else:
                self._place_folder_of(item.path, item.since)
        elif item.want != Want.ATTRIBUTES:
            self._place_file(item.path, item.since, found.size)
            # `is` for nearly all of them: an operation on flags costs 3 us.
            if item.want is not Want.CONTENT and item.want & _BELOW:
                self._note_replaced(item.path)
        elif not self._is_excluded(item.path, False):
            self._plan.attributes[item.path] = item.since

    def _note_links(self, item: Pending, found: Look) -> None:
        if found.kind is LookKind.FILE and found.links > 1:
            self._plan.linked[item.path] = LinkedFile(
                device=found.device, inode=found.inode, links=found.links
            )
        else:
            self._plan.unlinked.append(item.path)

    def _place_file(self, path: bytes, since: int, size: int) -> None:
        if self._is_excluded(path, False):
            self._place_folder_of(path, since)
        else:
            self._plan.content[path] = since
            self._plan.sizes[path] = size

    def _place_folder_of(self, path: bytes, since: int) -> None:
        """What came or went at `path` is excluded; that its directory's time changed is not."""
        folder = path.rpartition(b"/")[0]
        if (
            folder
            and folder not in self._plan.content
            and not self._is_excluded(folder, True)
            and self._look(folder).kind is LookKind.DIRECTORY
        ):
            self._plan.content[folder] = since

    def _note_replaced(self, path: bytes) -> None:
        if path in self._plan.content:
            self._plan.replaced.add(path)

    def _place_gone(self, item: Pending, path: bytes) -> None:
        self._plan.unlinked.append(item.path)
        if self._is_excluded(path, False):
            self._place_folder_of(path, item.since)
            return
        if self._is_excluded(path, True):
            # `x/` is excluded, `x` is not, and nobody can say which it was: rsync, which sees
            # what the Node has, names it in a dry run of the directory above, or keeps it.
            self._plan.listings[path.rpartition(b"/")[0]] = item.since
            self._place_folder_of(path, item.since)
            return
        self._plan.gone[path] = self._plan.gone.get(path, 0) + 1
        if path == item.path and item.want == Want.CONTENT:
            self._plan.uncounted.discard(path)
            self._plan.sizes[path] = 0
        elif path not in self._plan.sizes:
            self._plan.uncounted.add(path)


_BELOW = Want.TREE | Want.LISTING


def _covering(path: bytes) -> Iterator[bytes]:
    yield b""
    yield from ancestors(path)
    yield path


def _drop_covered(plan: BatchPlan, whole: AbstractSet[bytes]) -> None:
    """A tree inside another tree, or a path below one that is gone, needs no entry of its own."""
    for path in list(plan.trees):
        if path and (b"" in whole or any(above in whole for above in ancestors(path))):
            del plan.trees[path]
            plan.moves.pop(path, None)
    for paths in (plan.content, plan.attributes):
        for path in list(paths):
            if any(above in plan.gone for above in ancestors(path)):
                del paths[path]
    for path in list(plan.attributes):
        if path in plan.content:
            del plan.attributes[path]
    _gather_gone(plan)


def _gather_gone(plan: BatchPlan) -> None:
    """A directory that went while it was looked at was seen gone only after what is in it."""
    for path in list(plan.gone):
        above = next((above for above in ancestors(path) if above in plan.gone), None)
        if above is not None:
            plan.gone[above] += plan.gone.pop(path)
            plan.uncounted.add(above)
