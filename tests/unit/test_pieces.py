"""How a comparison is cut: disjoint, complete, of a useful number, without walking it all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shardsync.model import Scope
from shardsync.ship.pieces import Piece, disjoint, held, split, wanted_pieces

Tree = dict[str, "Tree"]


def _folders(tree: Tree, read: list[bytes]) -> Callable[[bytes], list[bytes]]:
    def of(path: bytes) -> list[bytes]:
        read.append(path)
        found = tree
        for name in path.decode().split("/") if path else []:
            found = found[name]
        return sorted(name.encode() for name in found)

    return of


def _wide(*numbers: int) -> Tree:
    """So many directories on each level."""
    if not numbers:
        return {}
    return {f"d{number:06}": _wide(*numbers[1:]) for number in range(numbers[0])}


def _all(tree: Tree, above: str = "") -> list[bytes]:
    found = [above.encode()]
    for name, below in tree.items():
        found += _all(below, f"{above}/{name}" if above else name)
    return found


def _none(_path: bytes, _is_directory: bool) -> bool:  # noqa: FBT001 (as rsync's patterns ask)
    return False


def _owners(pieces: list[Piece], path: bytes) -> int:
    """How many pieces compare a directory: as part of the frame, or as one of theirs."""
    count = 0
    for piece in pieces:
        if piece.scope is Scope.LISTING:
            count += piece.path == path
        elif piece.scope is Scope.TREE and not piece.is_range:
            count += path == piece.path or path.startswith(piece.path + b"/")
        elif piece.scope is Scope.TREE:
            below = path.removeprefix(piece.path + b"/" if piece.path else b"")
            inside = path != piece.path and (below != path or not piece.path)
            count += inside and len(piece.among([below.split(b"/")[0]]))
    return count


@pytest.mark.parametrize(
    "shape", [(3,), (1, 1, 1, 50), (1500,), (5, 150, 2), (10, 10), (1, 1300), ()]
)
@pytest.mark.parametrize("wanted", [4, 100])
def test_every_directory_is_in_exactly_one_piece(shape: tuple[int, ...], wanted: int) -> None:
    """Nothing is left out, and nothing is done twice."""
    tree = _wide(*shape)
    pieces = split(b"", folders=_folders(tree, []), wanted=wanted)
    assert all(_owners(pieces, path) == 1 for path in _all(tree))
    assert len(pieces) <= 1024 + 2 * 2 * wanted


def test_a_tree_with_one_top_directory_is_split_below_it() -> None:
    """A release folder is no single piece."""
    pieces = split(b"", folders=_folders(_wide(1, 1, 40, 3), []), wanted=30)
    trees = [piece.path for piece in pieces if piece.scope is Scope.TREE]
    assert len(trees) == 40
    assert trees[0] == b"d000000/d000000/d000000"


def test_very_many_top_directories_are_grouped() -> None:
    """A hundred thousand rows would be no help: neighbours share one."""
    pieces = split(b"", folders=_folders(_wide(100_000), []), wanted=1024)
    assert 500 <= len(pieces) <= 1100
    groups = [piece for piece in pieces if piece.is_range]
    assert groups[0].among([b"d000000"]) == [b"d000000"]
    assert groups[-1].among([b"zzz, made since"]) == [b"zzz, made since"]


def test_a_directory_is_read_once_for_all_its_ranges() -> None:
    """A hundred thousand names a thousand times over would be all that the sync process does."""
    read: list[bytes] = []
    folders = _folders(_wide(5000), read)
    ranges = [piece for piece in split(b"", folders=folders, wanted=1024) if piece.is_range]
    read.clear()
    found = held(ranges, folders, lambda path, _: path == b"d000007")
    assert found == [b"d%06d" % number for number in range(5000) if number != 7]
    assert read == [b""]


def test_a_directory_that_cannot_be_read_stands_for_itself() -> None:
    """Then rsync says why; only where the root cannot be read nothing is said of any path."""

    def unreadable(_: bytes) -> list[bytes]:
        raise PermissionError

    below = Piece(path=b"a", scope=Scope.TREE, first=b"b", beyond=b"k")
    assert held([below, Piece(path=b"c", scope=Scope.TREE)], unreadable, _none) == [b"a", b"c"]
    with pytest.raises(PermissionError):
        held([Piece(path=b"", scope=Scope.TREE, first=b"b")], unreadable, _none)


def test_the_tree_is_not_walked() -> None:
    """What is read is bounded by the pieces that are wanted."""
    read: list[bytes] = []
    split(b"", folders=_folders(_wide(20, 20, 20, 2), read), wanted=300)
    assert len(read) == 21


def test_the_frame_comes_first_as_levels_and_last_as_attributes() -> None:
    """Levels make the directories that pieces are put in; the attributes are spoiled by them."""
    scopes = [piece.scope for piece in split(b"t", folders=lambda _: [b"a", b"b"], wanted=4)]
    order = [Scope.LISTING, Scope.TREE, Scope.ENTRY]
    assert scopes == sorted(scopes, key=order.index)
    assert scopes.count(Scope.LISTING) == scopes.count(Scope.ENTRY) == 3


def test_the_root_itself_is_never_sent() -> None:
    """Its attributes are the Node's own."""
    pieces = split(b"", folders=lambda _: [], wanted=4)
    assert pieces == [Piece(path=b"", scope=Scope.LISTING)]


def test_pieces_of_two_cuts_do_not_run_side_by_side() -> None:
    """Of a directory and what lies below it the first alone is taken; ranges may be neighbours."""
    whole = Piece(path=b"a", scope=Scope.TREE)
    below = Piece(path=b"a/b/c", scope=Scope.TREE)
    other = Piece(path=b"ab", scope=Scope.TREE)
    assert disjoint([whole, below, other]) == [whole, other]
    assert disjoint([below, whole, other]) == [below, other]
    low = Piece(path=b"", scope=Scope.TREE, first=b"a", beyond=b"k")
    high = Piece(path=b"", scope=Scope.TREE, first=b"k")
    middle = Piece(path=b"", scope=Scope.TREE, first=b"j", beyond=b"l")
    assert disjoint([low, high, middle]) == [low, high]
    assert disjoint([low, whole]) == [low]


def test_the_number_of_pieces_follows_the_directories() -> None:
    """A small site is not cut into dust, a large one not left in lumps."""
    assert [wanted_pieces(count) for count in (0, 5000, 10**6)] == [4, 9, 128]
