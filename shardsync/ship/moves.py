"""Which directories of a Batch were only renamed: pure, from hints that are never trusted.

A Change carries `moved_from`; where the two halves of a rename were seen by two
Shards there is no hint, and what went and what came are offered to each other.
What comes of it is at most a cheaper transfer (`ship.moving`), never other bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from shardsync.ship.fold import Pending, Want, ancestors, join
from shardsync.ship.look import GONE, Look, LookKind

MOST_ORIGINS = 20
"""What rsync takes of --link-dest (MAX_BASIS_DIRS)."""
_GUESSES = 4
_MOST_FOLDERS = 256
"""Looked at before a Batch that has more is sent: some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A directory that is at `path` now and was at one of `origins`, the latest first.

    `is_gone`: the Tree has none of the origins any more. `is_told`: a Journal says so, and
    all pending Changes below the origins are pending below `path` too (`followed`); else it
    is a guess. `guesses`: where it may have been before it was at the last of the origins.
    """

    path: bytes
    origins: tuple[bytes, ...]
    is_gone: bool
    is_told: bool
    guesses: tuple[bytes, ...] = ()

    @property
    def bases(self) -> tuple[bytes, ...]:
        """Where the Node may have it, the likeliest first."""
        return (*self.origins, *self.guesses)[:MOST_ORIGINS]


def find_moves(
    pending: Mapping[bytes, Pending], *, look: Callable[[bytes], Look]
) -> dict[bytes, Move]:
    """The renamed directories among `pending`, by their present path. Linear in `pending`."""
    trees = [item for item in pending.values() if item.path and item.wants_tree]
    kinds = {item.path: look(item.path).kind for item in trees}
    moves: dict[bytes, Move] = {}
    for item in trees:
        if item.moved_from and kinds[item.path] is LookKind.DIRECTORY:
            move = _told(item.path, item.moved_from, pending, look)
            if move is not None:
                moves[item.path] = move
    used = {origin for move in moves.values() for origin in move.origins}
    left = [item.path for item in trees if kinds[item.path] in GONE and item.path not in used]
    for item in trees:
        if left and not item.moved_from and kinds[item.path] is LookKind.DIRECTORY:
            origins = _guessed(item.path, left)
            if origins:
                moves[item.path] = Move(
                    path=item.path, origins=origins, is_gone=True, is_told=False
                )
    return _led_back(moves, left) if left else moves


def in_order(moves: Iterable[Move]) -> list[Move]:
    """As they are best made on a Node, one after the other.

    What is made of a place comes before what changes that place: after `mv live prev; mv next
    live` the Node has what `prev` is to be under `live`, until the new one is there. Else the
    deepest come first: a directory renamed inside a renamed one finds its own old name.
    """
    wanted = sorted(moves, key=lambda move: (-move.path.count(b"/"), move.path))
    users: dict[bytes, list[Move]] = {}
    above: dict[bytes, list[Move]] = {}
    for move in wanted:
        for base in move.bases:
            users.setdefault(base, []).append(move)
            for folder in ancestors(base):
                above.setdefault(folder, []).append(move)
    ordered: dict[bytes, Move] = {}
    begun: set[bytes] = set()
    open_ = wanted[::-1]
    while open_:
        path = open_[-1].path
        waiting: list[Move] = []
        if path not in begun:
            begun.add(path)
            waiting += above.get(path, ())
            for place in (path, *ancestors(path)):
                waiting += users.get(place, ())
        # In a ring, as of two that took each other's places, somebody is first.
        waiting = [move for move in waiting if move.path not in begun]
        if waiting:
            open_ += waiting[::-1]
        else:
            move = open_.pop()
            ordered.setdefault(move.path, move)
    return list(ordered.values())


def has_halves(pending: Iterable[Pending], *, look: Callable[[bytes], Look]) -> bool:
    """Whether one half of a rename is there, and the other perhaps not yet.

    Another Shard may journal it a moment later, or it is outside the Tree.
    """
    trees = {item.path: item.moved_from for item in pending if item.wants_tree}
    origins = set(trees.values())
    halves = [path for path, origin in trees.items() if origin is None and path not in origins]
    # Two of them may be the two of one; or both went, and the one that came is not told yet.
    return len(halves) == 1 or (
        1 < len(halves) <= _GUESSES and all(look(path).kind in GONE for path in halves)
    )


def is_moved_on(pending: Mapping[bytes, Pending], *, look: Callable[[bytes], Look]) -> bool:
    """Whether a directory is gone again that came by a rename, and nothing pending tells where to.

    Its next rename is about to be journaled; to delete its old name now would cost its data.
    """
    came = [
        item.path
        for item in pending.values()
        # One that was removed has a Change of its own for that, which wants more.
        if item.moved_from is not None and item.wants_tree and item.want == Want.TREE
    ]
    gone = {path for path in came if look(path).kind in GONE}
    return bool(gone) and not gone <= {item.moved_from for item in pending.values()}


def is_taken_again(pending: Mapping[bytes, Pending], *, look: Callable[[bytes], Look]) -> bool:
    """Whether a directory is where another was renamed from, and nothing pending tells of it.

    After `mv live prev; mv next live`: to send `live` before the second is told costs its data.
    """
    origins = {item.moved_from for item in pending.values() if item.wants_tree}
    return any(
        item.want == Want.TREE and look(item.path).kind is LookKind.DIRECTORY
        for item in map(pending.get, filter(None, origins))
        if item is not None and item.moved_from is None
    )


def is_half_told(pending: Mapping[bytes, Pending], *, look: Callable[[bytes], Look]) -> bool:
    """Whether a directory is gone of which nothing that is pending tells.

    Another Shard owns its name, is a moment behind, and may tell that it was renamed.
    """
    folders = {path.rpartition(b"/")[0] for path in pending}
    if len(folders) > _MOST_FOLDERS:
        return False
    for folder in folders:
        found = look(folder)
        gone = folder if found.kind is LookKind.MISSING else found.ancestor
        if found.kind in GONE and gone not in pending:
            return True
    return False


def followed(pending: Iterable[Pending], moves: Mapping[bytes, Move]) -> dict[bytes, Pending]:
    """`pending`, and what of it lies below an old name also below the new one."""
    found = {item.path: item for item in pending}
    renamed = {
        origin: move.path for move in moves.values() if move.is_told for origin in move.origins
    }
    if not renamed:
        return found
    for item in list(found.values()):
        for above in ancestors(item.path):
            new = renamed.get(above)
            if new is not None:
                path = new + item.path[len(above) :]
                join(found, replace(item, path=path))
    return found


def _told(
    path: bytes,
    moved_from: bytes,
    pending: Mapping[bytes, Pending],
    look: Callable[[bytes], Look],
) -> Move | None:
    """Back along the hints as far as names are gone: the Node may know any of them."""
    origins: list[bytes] = []
    origin: bytes | None = moved_from
    while origin and origin != path and origin not in origins and len(origins) < MOST_ORIGINS:
        kind = look(origin).kind
        if kind not in GONE:
            if origins or kind is not LookKind.DIRECTORY:
                break
            return Move(path=path, origins=(origin,), is_gone=False, is_told=True)
        origins.append(origin)
        before = pending.get(origin)
        origin = before.moved_from if before is not None else None
    if not origins:
        return None
    return Move(path=path, origins=tuple(origins), is_gone=True, is_told=True)


def _led_back(moves: dict[bytes, Move], left: list[bytes]) -> dict[bytes, Move]:
    """With guesses where a chain began in another Shard, perhaps: `mv a/x b; mv b/x b/y`."""
    used = {origin for move in moves.values() for origin in move.origins}
    free = [path for path in left if path not in used]
    return {
        path: replace(move, guesses=_namesakes(move.origins[-1], free))
        if move.is_gone and move.is_told
        else move
        for path, move in moves.items()
    }


def _guessed(path: bytes, left: list[bytes]) -> tuple[bytes, ...]:
    """What went in the same Batch: by the same last name, then all of it if it is little."""
    same = _namesakes(path, left)
    # `mv a b/x; mv b/x c/x` by three Shards: the Node has it under the name that is another.
    return same + tuple(origin for origin in left if origin not in same and len(left) <= _GUESSES)


def _namesakes(path: bytes, left: list[bytes]) -> tuple[bytes, ...]:
    name = path.rpartition(b"/")[2]
    return tuple(origin for origin in left if origin.rpartition(b"/")[2] == name)[:MOST_ORIGINS]
