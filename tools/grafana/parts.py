"""What the panels are put together from: queries, colours, and the four kinds of panel.

Only models for Grafana 11.6 are used. Sizes are in Grafana's grid: 24 wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"
BLUE, PURPLE, GREY = "blue", "purple", "#808080"

# The SDK's builders have no common base.
Panel = timeseries.Panel | stat.Panel | bargauge.Panel | statetimeline.Panel
AnyPanel = TypeVar("AnyPanel", timeseries.Panel, stat.Panel, bargauge.Panel, statetimeline.Panel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL expression and the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a panel shows its values. `red_at`: from which value on they are bad, None: never."""

    unit: str = "short"
    red_at: float | None = None
    minimum: float | None = 0
    maximum: float | None = None
    decimals: int | None = None


def curves(
    title: str,
    what: str,
    queries: Sequence[Query],
    look: Look | None = None,
    *,
    width: int = 12,
    is_logarithmic: bool = False,
) -> timeseries.Panel:
    """Values over time, with the newest and the largest in the legend."""
    look = look or Look()
    legend = (
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.TABLE)
        .placement(common_models.LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
        .calcs(["lastNotNull", "max"])
    )
    tooltip = (
        common.VizTooltipOptions()
        .mode(common_models.TooltipDisplayMode.MULTI)
        .sort(common_models.SortOrder.DESCENDING)
    )
    panel = timeseries.Panel().legend(legend).tooltip(tooltip).line_width(1).fill_opacity(8)
    panel = panel.show_points(common_models.VisibilityMode.NEVER)
    if is_logarithmic:
        scale = common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10)
        panel = panel.scale_distribution(scale)
    return _finished(panel, title, what, queries, look, width, height=8)


def number(
    title: str,
    what: str,
    query: Query,
    look: Look | None = None,
    *,
    width: int = 4,
    shows_legend: bool = False,
) -> stat.Panel:
    """One number, red where it is bad; or the series' legend in its place."""
    modes = common_models.BigValueTextMode
    panel = (
        stat.Panel()
        .reduce_options(_newest())
        .color_mode(common_models.BigValueColorMode.VALUE)
        .text_mode(modes.NAME if shows_legend else modes.VALUE)
    )
    return _finished(panel, title, what, [query], look or Look(), width, height=4)


def bars(title: str, what: str, query: Query, *, width: int = 12) -> bargauge.Panel:
    """Shares from 0 to 1, a bar for each series."""
    panel = (
        bargauge.Panel()
        .reduce_options(_newest())
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
    )
    look = Look(unit="percentunit", maximum=1, decimals=0)
    return _finished(panel, title, what, [query], look, width, height=8)


def states(
    title: str,
    what: str,
    query: Query,
    names: Sequence[tuple[str, str]],
    *,
    first: int = 1,
    width: int = 24,
) -> statetimeline.Panel:
    """A line for each series; the values `first`, `first` + 1... read as (name, colour)."""
    options = {
        str(value): models.ValueMappingResult(text=name, color=color, index=value - first)
        for value, (name, color) in enumerate(names, start=first)
    }
    panel = (
        statetimeline.Panel()
        .mappings([models.ValueMap(options=options)])
        .show_value(common_models.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(70)
        .line_width(0)
    )
    return _finished(panel, title, what, [query], Look(minimum=None), width, height=8)


def _newest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def _finished(
    panel: AnyPanel,
    title: str,
    what: str,
    queries: Sequence[Query],
    look: Look,
    width: int,
    *,
    height: int,
) -> AnyPanel:
    panel.title(title).description(what).datasource(DATASOURCE).unit(look.unit)
    panel.span(width).height(height).thresholds(_thresholds(look.red_at))
    if look.minimum is not None:
        panel.min(look.minimum)
    if look.maximum is not None:
        panel.max(look.maximum)
    if look.decimals is not None:
        panel.decimals(look.decimals)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend)
        panel.with_target(target.range().ref_id(letter).datasource(DATASOURCE))
    return panel


def _thresholds(red_at: float | None) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=GREEN)]
    if red_at is not None:
        steps.append(models.Threshold(value=red_at, color=RED))
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
