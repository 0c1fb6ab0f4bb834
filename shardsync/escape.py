"""The one place where path bytes become text for people: terminals, logs, status, JSON.

Nothing printed by `printable` can move a cursor, change a colour, reverse a
line's direction or forge a log line.
"""

from __future__ import annotations

import base64
import unicodedata

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(path: bytes) -> str:
    r"""`path` as one line of harmless text.

    Undecodable bytes and every control, format or separator character become
    `\xNN` / `\uNNNN`, a backslash becomes `\\`; all else stays as it is.
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(_escape(char) for char in text)


def json_path(path: bytes) -> dict[str, str]:
    """`{"path": ...}` for a UTF-8 path, else `path` escaped and `path_b64` exact."""
    try:
        return {"path": path.decode("utf-8")}
    except UnicodeDecodeError:
        return {"path": printable(path), "path_b64": base64.b64encode(path).decode("ascii")}


def printable_text(text: str) -> str:
    """Foreign text (an error message of rsync's, a name from the settings) as harmless text.

    Backslashes stay single here: the text is not a path to be read back.
    """
    return "".join(char if char == "\\" else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if char == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(char) in _UNSAFE_CATEGORIES:
        if code < 0x100:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char
