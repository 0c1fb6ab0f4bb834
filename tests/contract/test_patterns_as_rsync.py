"""PathFilter says what rsync says: the same patterns, the same paths, the real program."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from shardsync.config.patterns import PathFilter, check_pattern
from tests.support.rsync_filters import make_tree, sent_by_rsync, walk

PATHS = [
    b"a", b"ab", b"b", b"abc", b"foo/", b"foo/bar", b"foo/a/b/c", b"foo/a/b.html", b"foo/foo/foo",
    b"news/a/x", b"news/b", b"news/foo/bar", b"news/news/x", b"news/x.tmp", b"news/sub/x.tmp",
    b"cache/keep/a.tmp", b"cache/x", b"x/cache/y", b"x/foo/bar/baz", b"img/1.png", b"img/t/2.png",
    b".a.swp", b".a.txt", b"a~", b"#a#", b".#a", b"dir/***", b"dir/sub/x",
    b"a*b", b"a\\b", b"a[b]c", b"a]b", b"[", b"a-b", b"a?b", b"!a", b"- x", b"+ x", b"!",
    b" a", b"a ", b"#x", b";x", b"-n", b"a\nb", b"\xff", b"\xffa", b"caf\xc3\xa9", b"a\x01b",
    b"A", b"Z9", b"1", b"deep/a/b/c/d/e/f", b"deep/a/b/c/d/e/g.tmp", b"*", b"**", b"x\\", b"*.x",
]  # fmt: skip

TABLE = [
    "a", "/a", "foo", "/foo", "foo/", "/foo/", "bar", "foo/bar", "/foo/bar", "foo/bar/", "a/b",
    "*", "/*", "**", "/**", "***", "/***", "foo/*", "foo/**", "foo/***", "/foo/***", "f*/", "*/",
    "/*/", "a*", "*a", "a*c", "a**c", "foo**r", "foo/**/c", "/foo/**c", "**/foo", "**foo",
    "**/foo/", "/**/foo", "foo/**/", "x/**/baz", "*/bar", "*/*", "/*/*", "?", "??", "a?b", "/?",
    "[ab]", "[!a]", "[^a]", "[a-c]", "[]]", "[!]]", "a[]]b", "a[b-]b", "a[--0]b", "[[:alpha:]]",
    "[[:digit:]]", "[![:alpha:]]*", "[[:punct:]]*", "[[:cntrl:]]", "a[[:cntrl:]]b", "[[:]",
    "[\\]]", "a\\*b", "a\\b", "a\\\\b", "a[\\\\]b", "\\[", "\\a", "*.t?p", "\\**", "*\\*",
    "- x", "+ x", "!", "!a", " a", "a ", "#x", ";x", "-n", ".*.sw[a-p]", "*~", ".#*", "#*#",
    "caf\u00e9", "caf??", "caf?", "\udcff", "\udcff*", "[\udc80-\udcff]*", "a\nb", "dir/\\*\\*\\*",
    "deep/a/**/f", "/deep/*/b", "deep/*/b/c/d/e/f", "a/b/c/d", "news/x", "news/", "x\\", "b/c",
    "*.x", "\\*.x", "a/**", "**/b/**", "a/*/c", "foo/a**", "dir/***/", "*b", "**.tmp", "keep/",
]  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patterns") / "tree"
    make_tree(root, PATHS)
    return root


def kept(filter_: PathFilter, root: Path) -> set[bytes]:
    return {path for path, is_dir in walk(root) if not filter_.excludes(path, is_dir)}


def compare(tree: Path, filter_: PathFilter) -> None:
    sent = sent_by_rsync(tree, tree.parent / "none", filter_.rsync_arguments())
    assert kept(filter_, tree) == sent, filter_.rsync_arguments()


@pytest.mark.parametrize("pattern", TABLE)
def test_one_pattern_excludes_what_rsync_excludes(tree: Path, pattern: str) -> None:
    """Each spelling that rsync knows, or that looks as if it did, means the same here."""
    if check_pattern(pattern):
        pytest.fail("the table holds accepted patterns")
    plain = sent_by_rsync(tree, tree.parent / "none", [f"--filter=- {pattern}"])
    filter_ = PathFilter.compile(exclude=[pattern])
    assert kept(filter_, tree) == plain
    assert sent_by_rsync(tree, tree.parent / "none", filter_.rsync_arguments()) == plain


def some(random_: random.Random, count: int) -> list[str]:
    pieces = ["a", "b", "foo", "bar", "news", "*", "**", "?", "[ab]", "x", ".tmp", "/", "/", "\\"]
    found: list[str] = []
    while len(found) < count:
        text = random_.choice(["", "", "/"]) + "".join(
            random_.choice(pieces) for _ in range(random_.randint(1, 6))
        )
        text += random_.choice(["", "", "", "/", "/***"])
        pattern = random_.choice([text, random_.choice(TABLE)])
        if check_pattern(pattern) is None:
            found.append(pattern)
    return found


@pytest.mark.parametrize("seed", range(80))
def test_random_lists_exclude_what_rsync_excludes(tree: Path, seed: int) -> None:
    """Include wins over exclude, only lets nothing else through, in any mix."""
    random_ = random.Random(seed)
    filter_ = PathFilter.compile(
        exclude=some(random_, random_.randint(0, 3)),
        include=some(random_, random_.randint(0, 2)) if seed % 2 else (),
        only=() if seed % 2 else some(random_, random_.randint(0, 2)),
    )
    assert filter_.is_exact
    compare(tree, filter_)


@pytest.mark.parametrize("seed", range(80))
def test_a_rebased_filter_keeps_what_the_whole_filter_keeps(tree: Path, seed: int) -> None:
    """Below a subtree the same paths stay, for us and for an rsync that starts there."""
    random_ = random.Random(1000 + seed)
    subtree = random_.choice([b"news", b"foo", b"foo/a", b"deep/a/b", b"x/foo", b"dir"])
    exclude = [*some(random_, random_.randint(0, 3)), "/news/b", "news/*/x"]
    whole = PathFilter.compile(
        exclude=exclude,
        include=some(random_, 1) if seed % 2 else (),
        only=() if seed % 2 else [*some(random_, 1), os.fsdecode(b"/" + subtree + b"/a")],
    )
    below = whole.rebased(subtree)
    prefix = subtree + b"/"
    expected = {path[len(prefix) :] for path in kept(whole, tree) if path.startswith(prefix)}
    root = tree / os.fsdecode(subtree)
    assert kept(below, root) == expected
    assert sent_by_rsync(root, tree.parent / "none", below.rsync_arguments()) == expected


def test_only_with_include_is_wider_in_rsync_and_says_so(tree: Path) -> None:
    """Rsync cannot join both conditions: its run names at least what the filter keeps."""
    filter_ = PathFilter.compile(
        exclude=["*.tmp"], include=["/news/x.tmp", "/cache/***"], only=["/news/"]
    )
    sent = sent_by_rsync(tree, tree.parent / "none", filter_.rsync_arguments())
    assert not filter_.is_exact
    assert b"cache/x" in sent
    assert not kept(filter_, tree) - sent
    assert {path for path in kept(filter_, tree) if not path.startswith(b"news")} == set()


def test_a_list_given_to_rsync_is_filtered_by_entry_alone(tree: Path, tmp_path: Path) -> None:
    """Why lists are filtered here: rsync sends a listed file from an excluded directory."""
    listed = tmp_path / "list"
    listed.write_bytes(b"/foo/a/b/c\0/foo/bar\0/a\0")
    sent = sent_by_rsync(
        tree, tmp_path / "none",
        ["--no-r", "--from0", f"--files-from={listed}", "--filter=- /foo/a/", "--filter=- /a"],
    )  # fmt: skip
    assert sent == {b"foo", b"foo/a", b"foo/a/b", b"foo/a/b/c", b"foo/bar"}
    filter_ = PathFilter.compile(exclude=["/foo/a/", "/a"])
    assert filter_.excludes(b"foo/a/b/c", is_dir=False)
