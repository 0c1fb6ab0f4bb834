"""Names printed for people are harmless."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from shardsync.escape import json_path, printable, printable_text


def test_plain_names_stay_as_they_are() -> None:
    """A name with nothing dangerous in it is shown untouched."""
    assert printable("a/b c/é.html".encode()) == "a/b c/é.html"


def test_control_bytes_and_undecodable_bytes_are_escaped() -> None:
    """Terminal sequences, newlines and broken UTF-8 become visible escapes."""
    assert printable(b"a\x1b[31m\n\xff\\") == "a\\x1b[31m\\x0a\\xff\\\\"
    assert printable("x\u202ey".encode()) == "x\\u202ey"


def test_foreign_text_keeps_its_backslashes() -> None:
    """Messages of other programs are made harmless but not doubled up."""
    assert printable_text("a\\b\x07") == "a\\b\\x07"


def test_json_path_is_exact_for_any_bytes() -> None:
    """What is not UTF-8 also comes as base64."""
    assert json_path(b"ok") == {"path": "ok"}
    assert json_path(b"\xff") == {"path": "\\xff", "path_b64": "/w=="}


@given(st.binary())
def test_no_byte_string_prints_a_control_character(path: bytes) -> None:
    """Whatever the name, the printed form has no control, format or surrogate character."""
    shown = printable(path)
    assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs"} for char in shown)


@given(st.binary(), st.binary())
def test_two_names_never_print_alike(one: bytes, other: bytes) -> None:
    """Escaping is one to one."""
    assert (printable(one) == printable(other)) == (one == other)
