"""Which differences of a Node are to be expected while Changes are on their way to it."""

from __future__ import annotations

import pytest

from shardsync.ship.explained import Explained
from shardsync.ship.fold import Want


@pytest.mark.parametrize(
    ("pending", "want", "path", "is_explained"),
    [
        (b"d/f", Want.CONTENT, b"d/f", True),
        (b"d/f", Want.CONTENT, b"d/g", False),
        (b"d/e/f", Want.CONTENT, b"d", True),
        (b"d", Want.CONTENT, b"d/f", False),
        (b"d", Want.TREE, b"d/e/f", True),
        (b"d", Want.TREE, b"da", False),
        (b"d", Want.LISTING, b"d/f", False),
        (b"", Want.TREE, b"d/f", True),
        (b"d", Want.ATTRIBUTES, b"d/f", False),
    ],
)
def test_what_is_pending_explains_no_more_than_it_must(
    pending: bytes, want: Want, path: bytes, *, is_explained: bool
) -> None:
    """Too much, and a Node that lost its files passes for one that is merely behind."""
    for explained in (Explained(), Explained(about=[path]), Explained(about=[b"x", path, b"d/x"])):
        explained.add(pending, want)
        assert explained.explains(path) is is_explained


@pytest.mark.parametrize(
    ("pending", "path", "is_explained"),
    [
        (b"d", b"d/f", True),
        (b"d", b"d/e/f", False),
        (b"", b"f", True),
        (b"", b"d/f", False),
    ],
)
def test_a_listing_explains_what_the_node_has_beside_the_tree(
    pending: bytes, path: bytes, *, is_explained: bool
) -> None:
    """It deletes and sends nothing; a reconcile of one level sends what that lacks, too."""
    for explained in (Explained(), Explained(about=[path]), Explained(about=[b"x", path, b"d/x"])):
        explained.add(pending, Want.LISTING)
        assert not explained.explains(path)
        assert explained.explains_extraneous(path) is is_explained
        explained.add(pending, Want.LISTING, is_compared=True)
        assert explained.explains(path) is is_explained


def test_what_is_not_asked_about_is_not_kept() -> None:
    """A long backlog is read in the memory of what differs; without that, up to a limit."""
    some, all_of_it = Explained(about=[b"d/f"]), Explained()
    for number in range(110_000):
        some.add(b"d/%d" % number)
        all_of_it.add(b"d/%d" % number)
    assert not some.is_cut
    assert not some.explains(b"d/f")
    assert all_of_it.is_cut


def test_more_than_can_be_read_explains_everything() -> None:
    """Rather no word than a false one."""
    explained = Explained()
    explained.is_cut = True
    assert explained.explains(b"any")
