"""plan_batch with a hand-written look: where each path goes, and that only ENOENT deletes."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Mapping

from shardsync.ship.batch import BatchPlan, chunks, plan_batch, small_first
from shardsync.ship.fold import Pending, Want
from shardsync.ship.look import Look, LookKind

FILE = Look(kind=LookKind.FILE, size=7)
FOLDER = Look(kind=LookKind.DIRECTORY)
LINK = Look(kind=LookKind.SYMLINK)
MISSING = Look(kind=LookKind.MISSING)


def _below(ancestor: bytes) -> Look:
    return Look(kind=LookKind.MISSING_ANCESTOR, ancestor=ancestor)


def _planned(
    wanted: Mapping[bytes, Want],
    looks: Mapping[bytes, Look],
    *,
    excluded: frozenset[tuple[bytes, bool]] = frozenset(),
) -> BatchPlan:
    return plan_batch(
        [Pending(path=path, want=want, since=1) for path, want in wanted.items()],
        look=looks.__getitem__,
        is_excluded=lambda path, is_dir: (path, is_dir) in excluded,
    )


def test_what_is_there_is_sent_and_what_is_missing_is_gone() -> None:
    """The look decides, not the Change."""
    plan = _planned(
        {b"a": Want.CONTENT, b"b": Want.CONTENT, b"c": Want.ATTRIBUTES, b"d": Want.ATTRIBUTES},
        {b"a": FILE, b"b": MISSING, b"c": FILE, b"d": MISSING},
    )
    assert list(plan.content) == [b"a"]
    assert list(plan.attributes) == [b"c"]
    assert plan.gone == {b"b": 1, b"d": 1}
    assert [*plan.content, *plan.gone] == [b"a", b"b", b"d"]


def test_nothing_but_enoent_deletes() -> None:
    """EACCES, EIO, ESTALE and a name too long are kept for later, with the reason."""
    codes = (errno.EACCES, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG)
    looks = {b"p%d" % code: Look(kind=LookKind.UNREADABLE, error=code) for code in codes}
    plan = _planned(dict.fromkeys(looks, Want.TREE | Want.CONTENT), looks)
    assert plan.gone == {}
    assert plan.listings == {}
    assert plan.unreadable == {
        b"p13": "cannot be read: Permission denied",
        b"p5": "cannot be read: Input/output error",
        b"p116": "cannot be read: Stale file handle",
        b"p36": "cannot be read: File name too long",
    }


def test_missing_paths_collapse_to_the_shallowest_ancestor() -> None:
    """One deletion for a directory that is gone, counting what was journaled below it."""
    plan = _planned(
        {b"d/a": Want.CONTENT, b"d/e/b": Want.CONTENT, b"d": Want.CONTENT},
        {b"d/a": _below(b"d"), b"d/e/b": _below(b"d"), b"d": MISSING},
    )
    assert plan.gone == {b"d": 3}
    assert plan.uncounted == set()


def test_what_several_rows_want_of_one_path_is_all_wanted() -> None:
    """A tree, its names, its attributes: in any order it is sent whole, as old as the oldest."""
    wanted = (Want.TREE, Want.LISTING | Want.ATTRIBUTES, Want.ATTRIBUTES)
    items = [Pending(path=b"d", want=want, since=5 - n) for n, want in enumerate(wanted)]
    for order in itertools.permutations(items):
        plan = plan_batch(order, look={b"d": FOLDER}.__getitem__, is_excluded=lambda *_: False)
        assert plan.trees == {b"d": 3}
    assert [item.want for item in items] == list(wanted)


def test_what_goes_while_it_is_looked_at_goes_with_the_directory_above() -> None:
    """`rm -r` between two looks: listed one by one, filters for one would protect the other."""
    plan = _planned(
        {b"d/e/f": Want.CONTENT, b"d/e": Want.CONTENT, b"d": Want.CONTENT},
        {b"d/e/f": MISSING, b"d/e": _below(b"d"), b"d": MISSING},
    )
    assert plan.gone == {b"d": 3}
    assert plan.uncounted == {b"d"}


def test_a_directory_that_went_as_a_whole_is_uncounted() -> None:
    """Its contents were never journaled one by one: a dry run must count them."""
    plan = _planned({b"d": Want.TREE}, {b"d": MISSING})
    assert plan.gone == {b"d": 1}
    assert plan.uncounted == {b"d"}


def test_below_what_became_a_file_or_symlink_only_that_is_listed() -> None:
    """`l/s` after `l` became a symlink: `l` is sent, `l/s` neither sent nor deleted; what the
    Node had as a directory is counted.
    """
    became = Look(kind=LookKind.NOT_DIRECTORY_ANCESTOR, ancestor=b"l")
    plan = _planned({b"l/s": Want.CONTENT, b"l": Want.CONTENT}, {b"l/s": became, b"l": LINK})
    assert list(plan.content) == [b"l"]
    assert plan.gone == {}
    assert plan.replaced == {b"l"}


def test_a_moved_directory_that_is_a_file_now_is_counted() -> None:
    """A `tree` Change comes of a directory: the file there replaces one."""
    plan = _planned({b"d": Want.TREE | Want.CONTENT}, {b"d": FILE})
    assert list(plan.content) == [b"d"]
    assert plan.replaced == {b"d"}


def test_a_tree_covers_what_is_in_it_but_not_what_is_gone_from_it() -> None:
    """On a Node that is not owned nobody else would delete `t/gone`."""
    plan = _planned(
        {b"t": Want.TREE, b"t/u": Want.TREE, b"t/a": Want.CONTENT, b"t/gone": Want.CONTENT},
        {b"t": FOLDER, b"t/u": FOLDER, b"t/a": FILE, b"t/gone": MISSING},
    )
    assert list(plan.trees) == [b"t"]
    assert plan.content == {}
    assert plan.gone == {b"t/gone": 1}


def test_excluded_paths_are_in_no_list() -> None:
    """Neither sent nor deleted; `x/` alone excluded is left to rsync's own comparison."""
    plan = _planned(
        {b"a": Want.CONTENT, b"b": Want.CONTENT, b"d": Want.TREE, b"p/x": Want.CONTENT},
        {b"a": FILE, b"b": MISSING, b"d": FOLDER, b"p/x": MISSING, b"p": FOLDER},
        excluded=frozenset({(b"a", False), (b"b", False), (b"d", True), (b"p/x", True)}),
    )
    assert list(plan.content) == [b"p"]
    assert plan.gone == {}
    assert plan.trees == {}
    assert list(plan.listings) == [b"p"]


def test_the_directory_of_what_is_excluded_is_sent() -> None:
    """Its time changed with the entry, as anybody sees who compares; not where it is excluded,
    gone or the root, nor where the entry was only touched.
    """
    wanted = (b"a", b"c/x", b"d/x", b"e/x", b"f/x", b"g/x")
    plan = _planned(
        {**dict.fromkeys(wanted, Want.CONTENT), b"h/x": Want.ATTRIBUTES},
        {
            b"a": FILE,
            b"c/x": FILE,
            b"d/x": MISSING,
            b"e/x": FOLDER,
            b"f/x": FILE,
            b"g/x": _below(b"g"),
            b"h/x": FILE,
            **dict.fromkeys((b"c", b"d", b"e", b"f", b"h"), FOLDER),
        },
        excluded=frozenset(
            (path, is_dir) for path in (*wanted, b"h/x", b"f", b"g") for is_dir in (False, True)
        ),
    )
    assert sorted(plan.content) == [b"c", b"d", b"e"]
    assert plan.gone == {}
    assert plan.attributes == {}


def test_the_root_itself_is_never_listed() -> None:
    """Its own attributes are not shipped; what lies in it is."""
    plan = _planned({b"": Want.ATTRIBUTES}, {})
    assert (plan.content, plan.listings, plan.trees) == ({}, {}, {})
    plan = _planned({b"": Want.LISTING | Want.ATTRIBUTES}, {})
    assert (list(plan.listings), plan.has_root_files) == ([b""], False)
    plan = _planned({b"": Want.TREE}, {})
    assert (list(plan.trees), plan.has_root_files) == ([b""], True)


def test_a_listing_sends_the_directory_and_compares_its_names() -> None:
    """And becomes a deletion where the directory is gone."""
    plan = _planned(
        {b"d": Want.LISTING | Want.ATTRIBUTES, b"e": Want.LISTING | Want.ATTRIBUTES},
        {b"d": FOLDER, b"e": MISSING},
    )
    assert list(plan.listings) == [b"d"]
    assert list(plan.content) == [b"d"]
    assert plan.gone == {b"e": 1}
    assert plan.uncounted == {b"e"}


def test_small_files_do_not_wait_for_large_ones_of_their_batch() -> None:
    """Beyond one run's bytes the smallest go first, each size in the order it had."""
    sizes = {b"a": 5, b"b": 1, b"c": 4, b"d": 1}
    paths = [b"a", b"b", b"dir", b"c", b"d"]
    assert small_first(paths, sizes, max_bytes=11) == paths
    assert small_first(paths, sizes, max_bytes=10) == [b"dir", b"b", b"d", b"c", b"a"]


def test_chunks_are_cut_by_paths_and_by_bytes() -> None:
    """In order, nothing lost, and what is larger than the limit goes alone."""
    sizes = {b"big": 100, b"a": 4, b"b": 4, b"c": 4}
    found = list(chunks([b"a", b"big", b"b", b"c", b"d", b"e"], sizes, max_paths=3, max_bytes=8))
    assert found == [[b"a"], [b"big"], [b"b", b"c", b"d"], [b"e"]]
