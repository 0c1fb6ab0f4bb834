"""What grafana/ and etc/ ask of Prometheus, as text: queries, expressions, names."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.sources import REPOSITORY

DASHBOARD = REPOSITORY / "grafana/dashboards/shardsync.json"
RULES = REPOSITORY / "etc/shardsync.rules.yml"
SCRAPE = REPOSITORY / "etc/prometheus.yml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelQuery:
    """One target of one panel."""

    panel: str
    ref: str
    expr: str

    def __str__(self) -> str:
        return f"{self.panel} {self.ref}"


def dashboard() -> dict[str, Any]:
    """The checked-in dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """All panels but the rows' headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[PanelQuery]:
    """Each target of each panel."""
    return [
        PanelQuery(panel=panel["title"], ref=target["refId"], expr=target["expr"])
        for panel in panels()
        for target in panel["targets"]
    ]


def variable_queries() -> dict[str, str]:
    """Variable -> what fills its list, of those that ask Prometheus."""
    variables = dashboard()["templating"]["list"]
    return {found["name"]: found["query"] for found in variables if found["type"] == "query"}


def rule_expressions() -> dict[str, str]:
    """Alert -> its expression, as far as text tells: from `expr:` to the next key."""
    found = {}
    for rule in RULES.read_text(encoding="utf-8").split("- alert: ")[1:]:
        name, _, rest = rule.partition("\n")
        expression = re.search(r"expr: (.*?)\n        (?:for|labels):", rest, re.DOTALL)
        assert expression is not None, name
        found[name] = expression[1]
    return found


def metric_names(expression: str) -> set[str]:
    """Our metrics that an expression names."""
    return set(re.findall(r"\bshardsync_\w+", expression))


def tool(name: str) -> str:
    """Path of prometheus or promtool; skips the test where Debian's package is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install --no-install-recommends prometheus")
    return found


def here(text: str, **variables: str) -> str:
    """The text with Grafana's `$name` and `${name}` replaced."""
    for name, value in variables.items():
        text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return text


def beside(folder: Path, *, port: int) -> Path:
    """etc/prometheus.yml and the rules in `folder`, for another port and an impatient reader."""
    (folder / RULES.name).write_text(RULES.read_text(encoding="utf-8"))
    text = SCRAPE.read_text(encoding="utf-8")
    assert text.count("127.0.0.1:9750") == 1
    assert text.count("interval: 15s") == 2
    config = folder / SCRAPE.name
    hasty = text.replace("127.0.0.1:9750", f"127.0.0.1:{port}").replace(
        "interval: 15s", "interval: 500ms"
    )
    config.write_text(hasty)
    return config
