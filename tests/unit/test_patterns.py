"""PathFilter, where no rsync is needed to know what is right."""

from __future__ import annotations

import pytest

from shardsync.config.patterns import PathFilter, check_pattern


def test_nothing_is_excluded_without_patterns() -> None:
    """Neither by no patterns at all nor by `include` alone."""
    filter_ = PathFilter.compile(include=["a"])
    assert not filter_.excludes(b"b", is_dir=False)
    assert filter_.rsync_arguments() == []


def test_the_root_is_never_excluded() -> None:
    """Whatever the patterns say, there is a Tree."""
    filter_ = PathFilter.compile(exclude=["*", "/***"], only=["x"])
    assert not filter_.excludes(b"", is_dir=True)


def test_an_excluded_directory_excludes_all_below_it() -> None:
    """Also what an include names: rsync never goes there."""
    filter_ = PathFilter.compile(exclude=["cache/"], include=["keep"])
    assert filter_.excludes(b"a/cache/x/keep", is_dir=False)
    assert filter_.excludes(b"a/cache", is_dir=True)
    assert not filter_.excludes(b"a/cache", is_dir=False)


def test_the_default_excludes_leave_names_like_theirs_alone() -> None:
    """Editors' files go; .htaccess.backup and the like stay."""
    filter_ = PathFilter.compile(exclude=[".*.sw[a-p]", "*~", ".#*", "#*#"])
    for name in (b".index.html.swp", b"a/b~", b".#lock", b"#auto#"):
        assert filter_.excludes(name, is_dir=False), name
    for name in (b".htaccess.backup", b"a.swp", b".a.swq", b"#a", b"~a", b"a/b#"):
        assert not filter_.excludes(name, is_dir=False), name


def test_only_lets_through_what_it_names_and_the_way_there() -> None:
    """The folder, all in it, and the directories that lead to it."""
    filter_ = PathFilter.compile(exclude=["*.tmp"], only=["/a/b/"])
    assert not filter_.excludes(b"a", is_dir=True)
    assert not filter_.excludes(b"a/b/c/d", is_dir=False)
    assert filter_.excludes(b"a/b/c/d.tmp", is_dir=False)
    assert filter_.excludes(b"a/c", is_dir=True)
    assert filter_.excludes(b"b", is_dir=True)
    assert filter_.rsync_arguments() == [
        "--filter=- *.tmp",
        "--filter=+ /a/b/",
        "--filter=+ /a/b/**",
        "--filter=+ /a/",
        "--filter=- *",
    ]


def test_rebasing_translates_anchored_patterns() -> None:
    """`/news/x` is `/x` below news; what names other folders is dropped."""
    filter_ = PathFilter.compile(exclude=["/news/x", "/other", "*.tmp", "news/y", "/*/z/"])
    assert filter_.rebased(b"news").rsync_arguments() == [
        "--filter=- /x",
        "--filter=- *.tmp",
        "--filter=- news/y",
        "--filter=- /y",
        "--filter=- /z/",
    ]


def test_rebasing_to_an_excluded_folder_leaves_nothing() -> None:
    """A subtree that the Tree excludes has nothing to mirror."""
    filter_ = PathFilter.compile(exclude=["news/"]).rebased(b"news/sport")
    assert filter_.excludes(b"x", is_dir=False)
    assert filter_.rsync_arguments() == ["--filter=- *"]


def test_rebasing_to_the_root_changes_nothing() -> None:
    """A Node without a subtree has the Tree's filter."""
    filter_ = PathFilter.compile(exclude=["/x"])
    assert filter_.rebased(b"") is filter_


def test_more_directories_than_are_remembered_are_judged_the_same() -> None:
    """The memory of directories is bounded; forgetting costs time, not truth."""
    filter_ = PathFilter.compile(exclude=["/skip/"])
    paths = [b"keep/d%d/x" % number for number in range(9000)]
    assert not any(filter_.excludes(path, is_dir=False) for path in paths)
    assert filter_.excludes(b"skip/d1/x", is_dir=False)
    assert len(filter_._directories) <= 8192


def test_a_path_of_the_greatest_length_is_judged() -> None:
    """Two thousand directories deep is no recursion for us."""
    path = b"/".join([b"d"] * 2000)
    assert PathFilter.compile(exclude=["*.x"]).excludes(path + b"/a.x", is_dir=False)
    assert not PathFilter.compile(exclude=["*.x"]).excludes(path, is_dir=True)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "is empty, it would match nothing"),
        ("//", "is empty, it would match nothing"),
        ("a//b", 'holds an empty name, "." or "..", which no path of the Tree does'),
        ("../a", 'holds an empty name, "." or "..", which no path of the Tree does'),
        ("[a", "can never match: its [ has no ]"),
        ("[a\\]", "can never match: its [ has no ]"),
        ("[[:alpha:]", "can never match: its [ has no ]"),
        ("[[:alfa:]]", "can never match: there is no class [:alfa:]"),
        ("*\\", "can never match: it ends with a backslash that escapes nothing"),
        ("a[b/c]", "can never match: a / stands between [ and ], which never match one"),
        ("x" * 4096, "is longer than any path"),
        ("a\0", "holds a NUL, which no name does"),
    ],
)
def test_patterns_that_can_never_match_are_refused(pattern: str, message: str) -> None:
    """A pattern that silently does nothing is a mistake."""
    refusal = check_pattern(pattern)
    assert refusal
    assert refusal.message == message
