"""grafana/, the Prometheus files in etc/ and docs/monitoring.md agree with the code."""

from __future__ import annotations

import re
import subprocess

import pytest

from shardsync.model import NodeState, TreeState
from tests.integration.test_metrics import CONTRACT
from tests.support.monitoring import (
    DASHBOARD,
    RULES,
    SCRAPE,
    metric_names,
    panels,
    queries,
    rule_expressions,
    tool,
    variable_queries,
)
from tests.support.sources import REPOSITORY
from tools.grafana.dashboard import NODE_STATES, dashboard_json

GUIDE = (REPOSITORY / "docs/monitoring.md").read_text(encoding="utf-8")
RULE_TESTS = REPOSITORY / "tests/docs/shardsync.rules.test.yml"

# Exported, but not among the names that outsiders were promised: nothing else tells of them.
BEYOND = {"shardsync_polled_directories", "shardsync_tree_state"}
# Prometheus's own: whether the target answered.
FOREIGN = {"up"}

EXPRESSIONS = {
    **{f"panel {query}": query.expr for query in queries()},
    **{f"variable {name}": query for name, query in variable_queries().items()},
    **{f"alert {name}": expression for name, expression in rule_expressions().items()},
}


def promtool(*words: str) -> None:
    done = subprocess.run(
        [tool("promtool"), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_what_its_program_makes() -> None:
    """Nobody edited it by hand; `tools/dashboards` writes it anew."""
    assert DASHBOARD.read_text(encoding="utf-8") == dashboard_json()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_that_is_asked_for_is_promised(name: str) -> None:
    """Panels, variables and alerts name nothing that may be renamed or is not there."""
    expression = EXPRESSIONS[name]
    selected = set(re.findall(r"(\w+)\{", expression))
    asked = metric_names(expression) | selected
    assert asked
    assert asked <= CONTRACT.keys() | BEYOND | FOREIGN


def test_every_state_that_is_asked_for_exists() -> None:
    """The state timeline knows all states of a Node; no expression asks for one that is not."""
    known = {state.value for state in NodeState}
    assert {name for name, _ in NODE_STATES} == known
    trees = {state.value for state in TreeState}
    for expression in EXPRESSIONS.values():
        for asked in re.findall(r'\bstate(?:=|=~|!~)"([^"]*)"', expression):
            assert set(asked.split("|")) <= (trees if "tree_state" in expression else known)


def test_no_two_panels_share_a_place_or_a_name() -> None:
    """Rows fill Grafana's 24 columns without overlaps; titles and ids are unique."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for key in ("id", "title"):
        values = [panel[key] for panel in panels()]
        assert len(values) == len(set(values))


def test_every_panel_explains_itself() -> None:
    """A description, and a query that Grafana sends to the chosen Prometheus."""
    for panel in panels():
        assert panel["description"].endswith(".") or "`" in panel["description"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_prometheus_takes_the_rules_and_the_scrape() -> None:
    """`promtool check` finds no fault."""
    promtool("check", "rules", str(RULES))
    promtool("check", "config", str(SCRAPE))


def test_each_alert_fires_when_it_should_and_not_else() -> None:
    """`promtool test rules`, on series made by hand."""
    promtool("test", "rules", str(RULE_TESTS))


def test_each_alert_is_seen_firing() -> None:
    """No alert goes without such a test."""
    cases = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", RULE_TESTS.read_text())
    assert set(cases) == rule_expressions().keys()


def test_each_alert_is_explained() -> None:
    """The guide has a chapter for each, in the order of the rules, with its severity."""
    alerts = GUIDE.partition("\n## Alerts\n")[2]
    chapters = re.findall(r"^### (\w+)\n\n(\w+)\.", alerts, re.MULTILINE)
    severities = re.findall(r"severity: (\w+)", RULES.read_text())
    assert chapters == list(zip(rule_expressions(), severities, strict=True))


def test_what_the_guide_points_to_is_there() -> None:
    """Files named by links, and panels named in quotes, exist."""
    for target in re.findall(r"\]\(\.\./([^)]+)\)", GUIDE):
        assert (REPOSITORY / target).exists(), target
    titles = {panel["title"] for panel in panels()}
    assert set(re.findall(r'"([A-Z][^"]*)"', GUIDE)) <= titles
    assert set(re.findall(r"\*\*([A-Z][^*]*)\*\* (?:is|says)", GUIDE)) <= titles


def test_the_guide_admits_that_no_grafana_saw_the_dashboard() -> None:
    """To be taken out by whoever loads it in one."""
    assert "never loaded in a real Grafana" in GUIDE
