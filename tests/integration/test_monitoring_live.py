"""A real Prometheus scrapes a real instance: the dashboard has data, the alerts tell the truth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.instances import Instance, eventually, instance
from tests.support.monitoring import (
    beside,
    here,
    queries,
    rule_expressions,
    tool,
    variable_queries,
)
from tests.support.nodes import free_port
from tests.support.prometheus import Prometheus

# As Grafana writes chosen values into a query; the interval is that of a scrape each 0.5 s.
CHOSEN = {"tree": "(main)", "node": "(web1|web2)", "__rate_interval": "10s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """An instance that runs, and the Prometheus that scrapes it."""

    instance: Instance
    prometheus: Prometheus

    def churn(self) -> None:
        """Change, make and delete, so that rates and latencies have something to tell."""
        for name in ("page", "gone"):
            (self.instance.root / "d0" / name).write_text(name)
            (self.instance.root / "d1" / name).write_text(name)
        (self.instance.root / "d0" / "gone").unlink()

    def values(self, expression: str) -> list[float]:
        """An instant query, Grafana's variables in it replaced."""
        return self.prometheus.values(here(expression, **CHOSEN))


def configure(made: Instance, port: int) -> None:
    """Two Nodes and /metrics on a port of its own."""
    second = made.folder / "node2"
    second.mkdir()
    text = made.config.read_text()
    assert 'listen = ""' in text
    text = text.replace('listen = ""', f'listen = "127.0.0.1:{port}"')
    made.config.write_text(f'{text}[[node]]\nname = "web2"\ntarget = "{second}"\n')


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    binary = tool("prometheus")
    folder: Path = tmp_path_factory.mktemp("live")
    port = free_port()
    for name in ("d0", "d1"):
        (folder / "tree" / name).mkdir(parents=True)
    config = beside(folder, port=port)
    with (
        instance(folder) as made,
        Prometheus(binary=binary, config=config, folder=folder) as prometheus,
    ):
        configure(made, port)
        made.lifecycle().up(made.settings())
        yield Scraped(instance=made, prometheus=prometheus)


def test_every_panel_has_data(scraped: Scraped) -> None:
    """Each query of each panel gives at least one number that is one; none may be empty."""
    empty = set(queries())

    def all_have_data() -> bool:
        scraped.churn()
        for query in tuple(empty):
            if scraped.values(query.expr):
                empty.discard(query)
        assert not empty, sorted(map(str, empty))
        return True

    eventually(all_have_data)


def test_the_lists_of_the_variables_are_filled(scraped: Scraped) -> None:
    """The operator can choose each Tree and each Node."""
    offered = {}
    for name, query in variable_queries().items():
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert asked is not None, query
        offered[name] = scraped.prometheus.label_values(asked[2], here(asked[1], **CHOSEN))
    assert offered == {"tree": ["main"], "node": ["web1", "web2"]}


def test_a_healthy_instance_raises_no_alert(scraped: Scraped) -> None:
    """Prometheus can evaluate every rule, and none holds; the dashboard shows no trouble."""
    eventually(lambda: set(scraped.prometheus.rule_health().values()) == {"ok"})
    assert scraped.prometheus.rule_health().keys() == rule_expressions().keys()
    eventually(lambda: scraped.prometheus.alerts() == set())
    expressions = {query.panel: query.expr for query in queries()}
    for panel in ("Nodes in trouble", "Processes down", "Retry paths", "Directories polled"):
        assert scraped.values(expressions[panel]) == [0.0], panel
    # Two Nodes, both `following`.
    eventually(lambda: scraped.values(expressions["Node states"]) == [1.0, 1.0])


def test_a_root_that_is_gone_shows_as_a_halted_tree(scraped: Scraped) -> None:
    """The alert holds while the root is away, and ends when it is back; as do the panels."""
    expressions = {query.panel: query.expr for query in queries()}
    root = scraped.instance.root
    away = root.with_name("away")
    root.rename(away)
    eventually(lambda: scraped.values(expressions["Node states"]) == [6.0, 6.0])
    halted = {"ShardsyncTreeHalted", "ShardsyncNodeHalted"}
    eventually(lambda: scraped.prometheus.alerts() == halted)
    assert scraped.values(expressions["Nodes in trouble"]) == [2.0]
    away.rename(root)
    eventually(lambda: scraped.prometheus.alerts() == set())


def test_a_stopped_watcher_shows_as_a_stopped_shard(scraped: Scraped) -> None:
    """Whoever stops a Watcher reads it from the alert and the panel."""
    scraped.instance.supervisorctl("stop", "shardsync:watcher-00")
    eventually(lambda: scraped.prometheus.alerts() == {"ShardsyncShardStopped"})
    expressions = {query.panel: query.expr for query in queries()}
    assert scraped.values(expressions["Processes down"]) == [1.0]
    scraped.instance.supervisorctl("start", "shardsync:watcher-00")
    eventually(lambda: scraped.prometheus.alerts() == set())
