"""docs/scaling.md: its tables are what was measured, and its words quote nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shardsync.config.patterns import tree_filter
from tests.support.settings_files import load_text
from tests.support.sources import REPOSITORY
from tools.benches.scaling import page
from tools.benches.scaling.__main__ import SERIES
from tools.benches.scaling.model import series_of

TEXT = page.PAGE.read_text(encoding="utf-8")
_FIGURE = r"\d[\d,]*(?:\.\d+)?"
STORE = json.loads(page.STORE.read_text(encoding="utf-8"))


def test_the_tables_are_what_was_measured() -> None:
    """Nobody edited them by hand; `tools/bench scaling --markdown` writes them anew."""
    assert page.with_tables(TEXT, STORE) == TEXT


@pytest.mark.parametrize("name", SERIES)
def test_every_line_goes_through_three_sizes(name: str) -> None:
    """Each figure was measured at three sizes, and where is told."""
    (raw,) = (series for series in STORE["series"] if series["name"] == name)
    assert {"date", "commit", "cores", "kernel", "Python"} <= raw["where"].keys()
    for figure in series_of(raw).figures:
        assert len({size for size, _ in figure.points}) == 3, figure.name
    assert f"<!-- {name}: made by" in TEXT


def test_every_quoted_figure_stands_in_a_table() -> None:
    """Whoever looks up a figure in bold finds the very same number in a table's cell."""
    made = "".join(re.findall(r"<!-- \w+: made by.*?<!-- /", TEXT, re.DOTALL))
    figures = set(re.findall(_FIGURE, made))
    quoted = re.findall(rf"\*\*({_FIGURE})", TEXT)
    assert len(quoted) > 10
    assert [figure for figure in quoted if figure not in figures] == []


def test_alerts_metrics_and_files_are_there() -> None:
    """By name, and by link."""
    rules = (REPOSITORY / "etc/shardsync.rules.yml").read_text()
    names = re.findall(r"`(Shardsync\w+)`", TEXT)
    assert names
    for name in names:
        assert f"alert: {name}\n" in rules
    families = (REPOSITORY / "shardsync/observe/families.py").read_text()
    for name in re.findall(r"`(shardsync_\w+)`", TEXT):
        assert f'"{name.removesuffix("_total")}"' in families, name
    for target in re.findall(r"\]\((?!#)([^)#]+)\)", TEXT):
        assert (REPOSITORY / "docs" / target).exists(), target


def test_the_relay_leaves_out_what_rsync_writes_and_nothing_that_it_names(tmp_path: Path) -> None:
    """The names of rsync's temporary files; not directories of that form, nor a named file."""
    (block,) = re.findall(r"^```toml\n(# relay1.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    block = block.replace("/srv/site/www/html", f"{tmp_path}/tree")
    settings = load_text(tmp_path, f'{block}\n[state]\ndir = "{tmp_path}/state"\n')
    (tree,) = settings.trees
    chosen = tree_filter(tree)
    for name in (b".index.html.a1B2c3", b"d/.htaccess.XYZabc", b".a.000000"):
        assert chosen.excludes(name, False)
        assert not chosen.excludes(name, True)
    for name in (
        b".htaccess.backup",
        b"d/.htaccess",
        b"index.html",
        b".a.b_c-d.html",
        b"a.000000",
    ):
        assert not chosen.excludes(name, False)
