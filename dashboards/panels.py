"""Panels as Grafana 12.4 itself saves them: grafanalib's own panel classes are those of older versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafanalib.core import GridPos, Target

from dashboards.canonical import PLUGIN_VERSION

Panel = dict[str, Any]
Steps = Sequence[tuple[float, str]]

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SLOW_SECONDS = 1.0
SLOW: Steps = ((0, "green"), (SLOW_SECONDS, "red"))

_TARGET_KEYS = ("datasource", "expr", "format", "instant", "legendFormat", "refId")
_HIDE_FROM = {"legend": False, "tooltip": False, "viz": False}


@dataclass(frozen=True)
class Query:
    """One PromQL query of a panel; `instant` asks for now only instead of a range."""

    expr: str
    legend: str = ""
    instant: bool = False
    format: str = "time_series"


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
    named: bool = False,
) -> Panel:
    """Return a tile: one large number, coloured by thresholds; `named` shows each series under its name."""
    options = {
        "colorMode": "background",
        "graphMode": "none" if query.instant else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "value_and_name" if named else "value",
        "wideLayout": True,
    }
    defaults = _defaults(unit=unit, steps=steps, no_value=no_value, mappings=mappings, decimals=decimals)
    return _panel("stat", place, [query], options=options, defaults=defaults)


def heatmap(place: Place, query: Query, *, unit: str, no_value: str) -> Panel:
    """Return a heatmap of a histogram's buckets over time; the query's legend must be the bucket's `le`."""
    options = {
        "calculate": False,
        "cellGap": 1,
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
    }
    panel = _panel("table", place, queries, options=options, defaults=defaults, overrides=overrides)
    panel["transformations"] = list(transformations)
    return panel


def timeseries(
    place: Place,
    queries: Sequence[Query],
    *,
    unit: str,
    no_value: str,
    maximum: float | None = None,
    overrides: Sequence[dict[str, Any]] = (),
) -> Panel:
    """Return lines over time, from zero upwards."""
    options = {
        "legend": {
            "calcs": ["lastNotNull"],
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"hideZeros": False, "mode": "multi", "sort": "desc"},
    }
    defaults = _defaults(unit=unit, steps=((0, "green"),), no_value=no_value, palette=True)
    defaults |= {"custom": _lines(), "min": 0, "max": maximum}
    return _panel("timeseries", place, queries, options=options, defaults=defaults, overrides=overrides)


def dashed(pattern: str, color: str | None = None) -> dict[str, Any]:
    """Return the override that draws the series whose names fit a pattern as thin dashed lines."""
    properties: list[dict[str, Any]] = [
        {"id": "custom.lineStyle", "value": {"dash": [8, 8], "fill": "dash"}},
        {"id": "custom.fillOpacity", "value": 0},
    ]
    if color:
        properties.append({"id": "color", "value": {"fixedColor": color, "mode": "fixed"}})
    return {"matcher": {"id": "byRegexp", "options": pattern}, "properties": properties}


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
    return {key: full[key] for key in _TARGET_KEYS} | {"editorMode": "code", "range": not query.instant}


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
        "fillOpacity": 10,
        "gradientMode": "none",
        "hideFrom": _HIDE_FROM,
        "insertNulls": False,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 5,
        "scaleDistribution": {"type": "linear"},
        "showPoints": "auto",
        "showValues": False,
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "none"},
        "thresholdsStyle": {"mode": "off"},
    }
