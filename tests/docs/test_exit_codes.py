"""The README's table of exit codes is the class tree's."""

from __future__ import annotations

import re

from tests.support.sources import REPOSITORY
from tests.unit.test_errors import CONTRACT

README = (REPOSITORY / "README.md").read_text()


def test_the_readme_lists_every_exit_code() -> None:
    """0 for success, and one row for each code that an error of ours has; no others."""
    section = README.partition("## Exit codes")[2].partition("\n## ")[0]
    listed = [int(code) for code in re.findall(r"^\| (\d+) \| \S", section, flags=re.MULTILINE)]
    assert listed == [0, *sorted(CONTRACT)]
