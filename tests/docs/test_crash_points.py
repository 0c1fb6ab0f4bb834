"""docs/guarantees.md tells what a crash costs at every step that has a name."""

from __future__ import annotations

import re

from shardsync.failpoints import Point
from tests.support.sources import REPOSITORY

SECTION = (
    (REPOSITORY / "docs/guarantees.md").read_text(encoding="utf-8").partition("## Crash points")[2]
)
ROWS = re.findall(r"^\| `(.+)` \| .+ \| .+ \|$", SECTION, re.MULTILINE)


def test_each_point_is_told_once_in_the_order_of_the_code() -> None:
    """One that is added, renamed or gone is added, renamed or gone here."""
    assert [point.value for point in Point] == ROWS
