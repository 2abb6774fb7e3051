"""Panels as Grafana 12.4 itself saves them: grafanalib's own panel classes are those of older versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafanalib.core import DashboardLink, GridPos, Target, Template

from dashboards.canonical import PLUGIN_VERSION

Panel = dict[str, Any]
Steps = Sequence[tuple[float, str]]

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SLOW_SECONDS = 1.0
SLOW: Steps = ((0, "green"), (SLOW_SECONDS, "red"))

_NEUTRAL = "#7b8087"
_TARGET_KEYS = ("datasource", "expr", "format", "instant", "legendFormat", "refId")
_HIDE_FROM = {"legend": False, "tooltip": False, "viz": False}


@dataclass(frozen=True)
class Query:
    """One PromQL query of a panel; `instant` asks for now only, `step` is the shortest time between two points."""

    expr: str
    legend: str = ""
    instant: bool = False
    format: str = "time_series"
    step: str = ""


@dataclass(frozen=True)
class Place:
    """What every panel has: its fixed id, title, what it tells, and its place on the 24 columns."""

    id: int
    title: str
    description: str
    x: int
    y: int
    w: int
    h: int


def stat(
    place: Place,
    query: Query,
    *,
    unit: str,
    steps: Steps,
    no_value: str,
    mappings: Sequence[dict[str, Any]] = (),
    decimals: int | None = None,
) -> Panel:
    """Return a tile, coloured by thresholds: a number beside its series' name, or one large text without a name."""
    options = {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "text": {"titleSize": 14, "valueSize": 28} if query.legend else {},
        "textMode": "value_and_name" if query.legend else "value",
        "wideLayout": True,
    }
    # Without data, a tile would have the colour of the lowest threshold: that of all is well.
    result = {"color": _NEUTRAL, "index": sum(len(mapping["options"]) for mapping in mappings), "text": no_value}
    nothing = {"options": {"match": "null+nan", "result": result}, "type": "special"}
    mappings = [*mappings, nothing]
    defaults = _defaults(unit=unit, steps=steps, no_value=no_value, mappings=mappings, decimals=decimals)
    return _panel("stat", place, [query], options=options, defaults=defaults)


def heatmap(place: Place, query: Query, *, unit: str, cell_unit: str, no_value: str) -> Panel:
    """Return a heatmap of a histogram's buckets over time; the query's legend must be the bucket's `le`."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"decimals": 0, "unit": cell_unit},
        "color": {
            "exponent": 0.5,
            "fill": "dark-orange",
            "mode": "scheme",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Oranges",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "auto",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    custom = {"hideFrom": _HIDE_FROM, "scaleDistribution": {"type": "linear"}}
    defaults = {"custom": custom, "noValue": no_value, "unit": unit}
    return _panel("heatmap", place, [query], options=options, defaults=defaults)


def table(
    place: Place,
    queries: Sequence[Query],
    *,
    transformations: Sequence[dict[str, Any]],
    overrides: Sequence[dict[str, Any]],
    no_value: str,
) -> Panel:
    """Return a table of instant queries."""
    options = {"cellHeight": "sm", "showHeader": True}
    defaults = _defaults(unit="short", steps=((0, "text"),), no_value=no_value)
    defaults["custom"] = {
        "align": "auto",
        "cellOptions": {"type": "auto"},
        "footer": {"reducers": []},
        "inspect": False,
        "minWidth": 70,
    }
    empty_cell = {"matcher": {"id": "byType", "options": "number"}, "properties": [{"id": "noValue", "value": "–"}]}
    panel = _panel("table", place, queries, options=options, defaults=defaults, overrides=[empty_cell, *overrides])
    panel["transformations"] = list(transformations)
    return panel


def timeseries(
    place: Place,
    queries: Sequence[Query],
    *,
    unit: str,
    no_value: str,
    decimals: int | None = None,
    maximum: float | None = None,
    many: bool = False,
    overrides: Sequence[dict[str, Any]] = (),
) -> Panel:
    """Return lines over time, from zero upwards; the legend of `many` has no room for their last values."""
    options = {
        "legend": {
            "calcs": [] if many else ["lastNotNull"],
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"hideZeros": False, "mode": "multi", "sort": "desc"},
    }
    defaults = _defaults(unit=unit, steps=((0, "green"),), no_value=no_value, decimals=decimals, palette=True)
    defaults |= {"custom": _lines(), "min": 0, "max": maximum}
    return _panel("timeseries", place, queries, options=options, defaults=defaults, overrides=overrides)


def dashed(pattern: str, color: str | None = None, *, legend: bool = True) -> dict[str, Any]:
    """Return the override that draws the series in whose names a pattern is found as thin dashed lines."""
    properties: list[dict[str, Any]] = [
        {"id": "custom.lineStyle", "value": {"dash": [8, 8], "fill": "dash"}},
    ]
    if color:
        properties.append({"id": "color", "value": {"fixedColor": color, "mode": "fixed"}})
    if not legend:
        properties.append({"id": "custom.hideFrom", "value": _HIDE_FROM | {"legend": True}})
    # Without slashes, Grafana matches whole names.
    return {"matcher": {"id": "byRegexp", "options": f"/{pattern}/"}, "properties": properties}


def increase(by: str, metric: str, window: str) -> str:
    """Return the increase of a counter whose name Prometheus does not take for a counter's, without its warning.

    The window is that of a subquery: `1h:` has the resolution in which rules are evaluated.
    """
    return f"increase(sum by ({by}) ({metric})[{window}])"


def marks(name: str, expr: str, title: str, color: str) -> dict[str, Any]:
    """Return the annotation that marks, in all charts, when an expression has samples above zero."""
    return {
        "datasource": DATA_SOURCE,
        "enable": True,
        "expr": expr,
        "hide": True,
        "iconColor": color,
        "name": name,
        "titleFormat": title,
    }


def right(pattern: str, unit: str) -> dict[str, Any]:
    """Return the override that gives series an axis of their own on the right."""
    properties = [{"id": "unit", "value": unit}, {"id": "custom.axisPlacement", "value": "right"}]
    return {"matcher": {"id": "byRegexp", "options": f"/{pattern}/"}, "properties": properties}


def data_source_variable() -> Template:
    """Return the variable by which a viewer chooses the Prometheus that a dashboard asks."""
    return Template(
        name="datasource", label="Data source", type="datasource", query="prometheus", default="prometheus", regex=""
    )


def variable(name: str, label: str, metric: str) -> Template:
    """Return a variable whose values are those of a label of a metric."""
    return Template(
        name=name,
        label=label,
        type="query",
        query=f"label_values({metric}, {name})",
        dataSource=DATA_SOURCE,
        includeAll=True,
        allValue=".*",
        multi=True,
        refresh=2,
        regex="",
        sort=1,
        default="$__all",
    )


def dashboard_link(title: str, uid: str) -> DashboardLink:
    """Return the link to another dashboard, which keeps the time range."""
    return DashboardLink(title=title, type="link", uri=f"/d/{uid}", icon="dashboard", keepTime=True)


def column(name: str, **properties: Any) -> dict[str, Any]:
    """Return the override of one table column, by its name; `__` in a property's name stands for a dot."""
    items = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": items}


def thresholds(steps: Steps) -> dict[str, Any]:
    """Return thresholds; the first step's value counts as minus infinity."""
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in steps]}


def _panel(
    kind: str,
    place: Place,
    queries: Sequence[Query],
    *,
    options: dict[str, Any],
    defaults: dict[str, Any],
    overrides: Sequence[dict[str, Any]] = (),
) -> Panel:
    return {
        "datasource": DATA_SOURCE,
        "description": place.description,
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "gridPos": GridPos(h=place.h, w=place.w, x=place.x, y=place.y).to_json_data(),
        "id": place.id,
        "options": options,
        "pluginVersion": PLUGIN_VERSION,
        "targets": [_target(number, query) for number, query in enumerate(queries)],
        "title": place.title,
        "type": kind,
    }


def _target(number: int, query: Query) -> dict[str, Any]:
    full = Target(
        expr=query.expr,
        legendFormat=query.legend or "__auto",
        format=query.format,
        instant=query.instant,
        refId=chr(ord("A") + number),
        datasource=DATA_SOURCE,
    ).to_json_data()
    more = {"editorMode": "code", "range": not query.instant} | ({"interval": query.step} if query.step else {})
    return {key: full[key] for key in _TARGET_KEYS} | more


def _defaults(
    *,
    unit: str,
    steps: Steps,
    no_value: str,
    mappings: Sequence[dict[str, Any]] = (),
    decimals: int | None = None,
    palette: bool = False,
) -> dict[str, Any]:
    return {
        "color": {"mode": "palette-classic" if palette else "thresholds"},
        "decimals": decimals,
        "mappings": list(mappings),
        "noValue": no_value,
        "thresholds": thresholds(steps),
        "unit": unit,
    }


def _lines() -> dict[str, Any]:
    return {
        "axisBorderShow": False,
        "axisCenteredZero": False,
        "axisColorMode": "text",
        "axisLabel": "",
        "axisPlacement": "auto",
        "barAlignment": 0,
        "barWidthFactor": 0.6,
        "drawStyle": "line",
        "fillOpacity": 0,
        "gradientMode": "none",
        "hideFrom": _HIDE_FROM,
        "insertNulls": False,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 5,
        "scaleDistribution": {"type": "linear"},
        "showPoints": "never",
        "showValues": False,
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "none"},
        "thresholdsStyle": {"mode": "off"},
    }
