"""Which rows say something of a path: its own, those below it, and those of what it lies in."""

from __future__ import annotations


def related(path: bytes) -> tuple[str, tuple[bytes, ...]]:
    """(SQL condition on a column `path`, its values). b"" is the whole Tree.

    Whatever scope a row above has: a directory that went takes all below along.
    """
    if not path:
        return "1", ()
    parts = path.split(b"/")
    above = [b"/".join(parts[:number]) for number in range(1, len(parts))]
    marks = ", ".join("?" * (len(above) + 2))
    # In BLOB order `x0` is the first that does not lie below `x`: "0" follows "/".
    below = (path + b"/", path + b"0")
    return f"(path IN ({marks}) OR (path > ? AND path < ?))", (b"", *above, path, *below)
