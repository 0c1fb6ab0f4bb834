"""What rsync prints, cut anywhere: whole lines come out, all at once or one by one."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from shardsync.ship.rsync import LineSplitter

lines = st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"-")), max_size=9)


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(at)]


@given(
    said=lines,
    cuts=st.lists(st.integers(min_value=0, max_value=90), max_size=6),
    takes=st.booleans(),
)
def test_however_it_is_cut_the_lines_are_the_same(
    *, said: list[bytes], cuts: list[int], takes: bool
) -> None:
    """Those that are taken all at once, with their ends, and the others, are what was said."""
    found: list[bytes] = []

    def take_all(block: bytes) -> bool:
        assert block.endswith(b"\n")
        if takes:
            found.extend(block[:-1].split(b"\n"))
        return takes

    splitter = LineSplitter(
        take=found.append, max_bytes=1_000, overflow=lambda: None, take_all=take_all
    )
    for piece in pieces(b"".join(line + b"\n" for line in said) + b"rest", cuts):
        splitter.feed(piece)
    splitter.end()
    assert found == [*said, b"rest"]


def test_a_line_without_end_is_dropped_and_told() -> None:
    """Memory is bounded whatever the other side says; what comes after its end is read again."""
    found: list[bytes] = []
    told: list[bool] = []
    splitter = LineSplitter(take=found.append, max_bytes=10, overflow=lambda: told.append(True))
    for piece in (b"a\n", b"x" * 8, b"y" * 8, b"z\n", b"b\n"):
        splitter.feed(piece)
    splitter.end()
    assert told == [True]
    assert found == [b"a", b"z", b"b"]
