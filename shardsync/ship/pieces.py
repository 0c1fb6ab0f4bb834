"""A comparison of a whole subtree cut into pieces that may be done side by side. Pure.

The pieces' subtrees are disjoint. The directories above them, the frame, are
compared level by level before, and get their attributes last, as every piece
that is written spoils the mtimes above it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from shardsync.journal.plan import covers
from shardsync.model import Scope

_MOST_PIECES = 1024
_MOST_WANTED = 128
_LEAST_WANTED = 4
_MOST_READ = 4096
"""Directories that are read for the cut; it does not go deeper then."""
_LEAST_NAME = b"\x01"
_DIRECTORIES_EACH = 512

FoldersIn = Callable[[bytes], list[bytes]]
"""Names of the directories directly in one that the Node takes, in order; none if unreadable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a comparison.

    TREE: all at and below `path`; with a range, only those directories directly in it whose
    names lie in [first, beyond) (`beyond` b"": no end). LISTING: what lies directly in `path`,
    less its directories. ENTRY: `path` itself.
    """

    path: bytes
    scope: Scope
    first: bytes = b""
    beyond: bytes = b""

    @property
    def is_range(self) -> bool:
        """Whether it is some of the directories in `path`."""
        return bool(self.first or self.beyond)

    def among(self, names: list[bytes]) -> list[bytes]:
        """Those of the names directly in `path`, which are in order, that are in the range."""
        end = bisect_left(names, self.beyond) if self.beyond else len(names)
        return names[bisect_left(names, self.first) : end]


def wanted_pieces(directories: int) -> int:
    """How many pieces a Tree of so many directories is worth: each costs a row, some a run."""
    return max(_LEAST_WANTED, min(_MOST_WANTED, directories // _DIRECTORIES_EACH))


def split(top: bytes, *, folders: FoldersIn, wanted: int) -> list[Piece]:
    """All at and below the directory `top`: the frame's levels, the pieces, the frame itself.

    Goes down level by level until there are `wanted` pieces, and reads no more than that
    takes; where there are far more, neighbours are put together.
    """
    frame = [top]
    alone: list[bytes] = []
    level = [(top, folders(top))]
    read = 1
    while True:
        children = [_join(folder, name) for folder, names in level for name in names]
        if not children or len(alone) + len(children) >= wanted or read > _MOST_READ:
            break
        read += len(children)
        found = [(child, folders(child)) for child in children]
        alone += [child for child, names in found if not names]
        level = [(child, names) for child, names in found if names]
        frame += [child for child, _ in level]
    return [
        *(Piece(path=path, scope=Scope.LISTING) for path in frame),
        *(Piece(path=path, scope=Scope.TREE) for path in alone),
        *_together(level),
        *(Piece(path=path, scope=Scope.ENTRY) for path in frame if path),
    ]


def held(
    pieces: Iterable[Piece], folders: FoldersIn, is_excluded: Callable[[bytes, bool], bool]
) -> list[bytes]:
    """The paths that TREE pieces stand for now. Raises OSError where the root cannot be read.

    A directory is read once for all its ranges among them: one may have a thousand ranges, and
    a hundred thousand names.
    """
    in_order: dict[bytes, list[bytes]] = {}
    found: list[bytes] = []
    for piece in pieces:
        if not piece.is_range:
            found.append(piece.path)
            continue
        if piece.path not in in_order:
            try:
                in_order[piece.path] = folders(piece.path)
            except OSError:
                if not piece.path:
                    raise
                # rsync finds it gone, or says why it cannot be read.
                found.append(piece.path)
                continue
        paths = (_join(piece.path, name) for name in piece.among(in_order[piece.path]))
        found += [path for path in paths if not is_excluded(path, True)]
    return found


def disjoint(pieces: Iterable[Piece]) -> list[Piece]:
    """Those of `pieces` (TREE) that may be written side by side, the first ones first.

    Two cuts made at different times may both be open, and overlap.
    """
    taken: dict[bytes, list[Piece]] = {}
    above: set[bytes] = set()
    found = []
    for piece in pieces:
        ways = list(_upwards(piece.path))
        if any(way in taken for way in ways[1:]) or (piece.path in above):
            continue
        if any(_overlap(piece, other) for other in taken.get(piece.path, ())):
            continue
        taken.setdefault(piece.path, []).append(piece)
        above.update(ways[1:])
        found.append(piece)
    return found


def _together(level: list[tuple[bytes, list[bytes]]]) -> Iterator[Piece]:
    """Each directory of the last level by itself, or neighbours where they are too many."""
    each = -(-sum(len(names) for _, names in level) // _MOST_PIECES)
    for folder, names in level:
        if each <= 1:
            for name in names:
                yield Piece(path=_join(folder, name), scope=Scope.TREE)
            continue
        for start in range(0, len(names), each):
            yield Piece(
                path=folder,
                scope=Scope.TREE,
                # What comes to lie before the first name meanwhile is in the first range.
                first=names[start] if start else _LEAST_NAME,
                beyond=b"".join(names[start + each : start + each + 1]),
            )


def _overlap(one: Piece, other: Piece) -> bool:
    if not (one.is_range and other.is_range):
        return True
    starts_before = not other.beyond or one.first < other.beyond
    return starts_before and (not one.beyond or other.first < one.beyond)


def _upwards(path: bytes) -> Iterator[bytes]:
    """`path`, then each directory above it, the root last."""
    yield path
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def is_inside(path: bytes, tops: Iterable[bytes]) -> bool:
    """Whether `path` is one of `tops` or lies below one."""
    return any(covers(top, path) for top in tops)
