"""One text for one dashboard: sorted keys, two spaces, nothing that Grafana ignores or fills in itself."""

import json
from typing import Any

from grafanalib._gen import DashboardEncoder
from grafanalib.core import Dashboard

# Version that the panels are written for: exactly this, and Grafana neither migrates on load nor differs on export.
SCHEMA_VERSION = 42
PLUGIN_VERSION = "12.4.0"

# Keys of older Grafana versions that grafanalib still writes.
_DEAD = {"__inputs", "gnetId", "hideControls", "rows", "sharedCrosshair", "style", "version"}
_DEAD_IN_VARIABLE = {"auto", "auto_count", "auto_min", "hide", "tagValuesQuery", "tags", "tagsQuery", "useTags"}
_DEAD_IN_DATA_SOURCE = {"multi", "sort"}
_ALL = {"text": ["All"], "value": ["$__all"]}


def text(dashboard: Dashboard) -> str:
    """Return a dashboard's canonical JSON."""
    content = json.loads(json.dumps(dashboard.to_json_data(), cls=DashboardEncoder))
    content = {key: value for key, value in content.items() if key not in _DEAD}
    content["timepicker"] = {}
    content["fiscalYearStartMonth"] = 0
    content["preload"] = False
    content["weekStart"] = ""
    content["templating"]["list"] = [_variable(variable) for variable in content["templating"]["list"]]
    return json.dumps(_without_nulls(content), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _variable(variable: dict[str, Any]) -> dict[str, Any]:
    of_data_source = variable["type"] == "datasource"
    dead = _DEAD_IN_VARIABLE | (_DEAD_IN_DATA_SOURCE if of_data_source else set())
    kept = {key: value for key, value in variable.items() if key not in dead}
    if of_data_source:
        return kept | {"current": {key: kept["current"][key] for key in ("text", "value")}}
    return kept | {"current": _ALL, "regexApplyTo": "value"}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value
