"""Many Changes become few distinct paths, and each one ends where it belongs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardsync.journal.reader import ChangeRow
from shardsync.model import Kind, Scope
from shardsync.ship.fold import Pending, Want, fold, rebase

NAMES = st.sampled_from([b"a", b"a/b", b"a/b/c", b"d"])
ROWS = st.tuples(
    st.just(1),
    NAMES,
    st.sampled_from([int(scope) for scope in Scope]),
    st.sampled_from([int(kind) for kind in Kind]),
    st.integers(1, 50),
    st.sampled_from([None, b"old"]),
)


def _row(path: bytes, scope: Scope, kind: Kind, at: int) -> ChangeRow:
    return (at, path, int(scope), int(kind), at, None)


def test_content_outweighs_attributes_and_the_oldest_time_is_kept() -> None:
    """A chmod after a write must not turn the write into a mere chmod."""
    into: dict[bytes, Pending] = {}
    fold(
        [
            _row(b"f", Scope.ENTRY, Kind.CONTENT, 5),
            _row(b"f", Scope.ENTRY, Kind.ATTRIBUTES, 9),
            _row(b"g", Scope.ENTRY, Kind.ATTRIBUTES, 7),
            _row(b"d", Scope.LISTING, Kind.CONTENT, 8),
            _row(b"d", Scope.TREE, Kind.CONTENT, 3),
        ],
        into,
    )
    assert into[b"f"].want & Want.CONTENT
    assert into[b"f"].since == 5
    assert into[b"g"].want == Want.ATTRIBUTES
    assert into[b"d"].want & Want.TREE
    assert into[b"d"].since == 3
    assert list(into) == [b"f", b"g", b"d"]


@given(st.lists(ROWS), st.integers(0, 20))
def test_folding_in_pieces_is_folding_at_once(rows: list[ChangeRow], cut: int) -> None:
    """Where a Batch is cut makes no difference to what is wanted of a path."""
    whole: dict[bytes, Pending] = {}
    parts: dict[bytes, Pending] = {}
    fold(rows, whole)
    fold(rows[:cut], parts)
    fold(rows[cut:], parts)
    assert whole == parts


def test_a_node_with_a_subtree_sees_its_own_paths_only() -> None:
    """`news/x` lands at the Node's top; neighbours are none of its business."""
    assert rebase(b"news/x", Want.CONTENT, b"news") == (b"x", Want.CONTENT)
    assert rebase(b"newsletter", Want.CONTENT, b"news") is None
    assert rebase(b"img/x", Want.CONTENT, b"news") is None
    assert rebase(b"img/x", Want.CONTENT, b"") == (b"img/x", Want.CONTENT)


def test_what_happens_above_a_subtree_concerns_all_of_it() -> None:
    """The subtree's folder was moved in with its parent: look at everything."""
    assert rebase(b"a", Want.TREE, b"a/b") == (b"", Want.TREE)
    assert rebase(b"a/b", Want.LISTING, b"a/b") == (b"", Want.LISTING)
    assert rebase(b"a", Want.ATTRIBUTES, b"a/b") is None
