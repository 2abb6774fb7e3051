"""Dashboards: canonical, current, complete, and about metrics that exist."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import alert_rules
import dashboards
from pgstat_exporter import content

DASHBOARDS = sorted(dashboards.build())

# What the exporters of the stack expose and panels and rules may use.
METRICS = {
    "erp_db_query_count_total",
    "erp_db_query_duration_seconds_bucket",
    "erp_db_query_duration_seconds_count",
    "erp_db_query_duration_seconds_sum",
    "erp_db_active_connections",
    "erp_db_connection_seconds_total",
    "erp_endpoint_db_queries_total",
    "erp_http_requests_total",
    "erp_http_request_duration_seconds_bucket",
    "erp_http_request_duration_seconds_count",
    "erp_http_request_duration_seconds_sum",
    # our PostgreSQL exporter
    "pg_up",
    *(metric.name for collector in content.load().values() for metric in collector.metrics()),
    # node exporter, and what backups leave for it
    "messwarte_backup_enrolled_timestamp_seconds",
    "messwarte_backup_last_failed",
    "messwarte_backup_last_success_timestamp_seconds",
    "messwarte_restore_drill_last_failed",
    "messwarte_restore_drill_last_success_timestamp_seconds",
    "node_cpu_seconds_total",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    # Prometheus itself
    "up",
    "ALERTS",
}


def _parsed(name: str) -> dict[str, Any]:
    return dict(json.loads(dashboards.build()[name]))


def _values(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _values(part)


def _recorded() -> set[str]:
    texts = [*alert_rules.rule_files().values(), alert_rules.thresholds(endpoint_limits={"/a": 1})]
    rules = [rule for text in texts for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    return {rule["record"] for rule in rules if "record" in rule}


def _named(expr: str) -> set[str]:
    """Metric names of an expression: what is left without strings, labels, groupings, ranges and functions."""
    bare = re.sub(r"#.*", "", re.sub(r'"[^"]*"|`[^`]*`', "", expr))
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|offset \w+", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\b(and|or|unless|bool)\b", " ", bare)
    return set(re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", bare))


def test_committed_files_are_what_is_built() -> None:
    assert dashboards.check() == [], "run: python -m dashboards"


def test_drift_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboards, "GENERATED", tmp_path)
    assert dashboards.check() == [f"{name}: missing" for name in DASHBOARDS]
    dashboards.write()
    assert dashboards.check() == []
    (tmp_path / "erp-overview.json").write_text("{}")
    (tmp_path / "old.json").write_text("{}")
    assert dashboards.check() == [
        "erp-overview.json: differs from what is built",
        "old.json: no dashboard builds it",
    ]
    dashboards.write()
    assert sorted(path.name for path in tmp_path.iterdir()) == DASHBOARDS


@pytest.mark.parametrize("name", DASHBOARDS)
def test_text_is_canonical(name: str) -> None:
    text = dashboards.build()[name]
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert None not in list(_values(json.loads(text))), "Grafana drops nulls when it saves"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_is_one_of_grafana_12(name: str) -> None:
    found = _parsed(name)
    assert f"{found['uid']}.json" == name
    assert found["schemaVersion"] == 42
    assert found["editable"] is False
    old = {"rows", "style", "sharedCrosshair", "hideControls", "gnetId", "__inputs", "version", "id"}
    assert not old & found.keys()
    for panel in found["panels"]:
        assert panel["pluginVersion"] == "12.4.0"
        for target in panel["targets"]:
            assert not {"intervalFactor", "step", "metric", "target", "query"} & target.keys()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_are_as_grafana_saves_them(name: str) -> None:
    both = {"current", "includeAll", "label", "name", "options", "query", "refresh", "regex", "type"}
    for variable in _parsed(name)["templating"]["list"]:
        of_query = {"allValue", "datasource", "multi", "regexApplyTo", "sort"} if variable["type"] == "query" else set()
        assert variable.keys() == both | of_query
        assert variable["current"].keys() == {"text", "value"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_explain_themselves(name: str) -> None:
    panels = _parsed(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]
        assert {target["refId"] for target in panel["targets"]} == set("ABCDEFGH"[: len(panel["targets"])])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_data_source_is_the_variable(name: str) -> None:
    found = _parsed(name)
    for panel in found["panels"]:
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    (variable,) = [one for one in found["templating"]["list"] if one["name"] == "datasource"]
    assert variable["current"]["value"] == "prometheus"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in _parsed(name)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def _overview(*ids: int) -> list[dict[str, Any]]:
    return [panel for panel in _parsed("erp-overview.json")["panels"] if panel["id"] in ids]


def test_links_find_the_panels_under_their_ids() -> None:
    kinds = {panel["id"]: panel["type"] for panel in _parsed("erp-overview.json")["panels"]}
    lower = {7: "heatmap", 8: "table", 9: "timeseries", 10: "timeseries", 11: "timeseries"}
    assert kinds == dict.fromkeys(range(1, 7), "stat") | lower


def test_titles_of_tiles_fit_a_window_of_1280_pixels() -> None:
    assert all(len(tile["title"]) <= 7 for tile in _overview(*range(1, 7)))


def test_a_tile_without_data_does_not_look_well() -> None:
    for tile in _overview(*range(1, 7)):
        defaults = tile["fieldConfig"]["defaults"]
        (nothing,) = [mapping["options"] for mapping in defaults["mappings"] if mapping["type"] == "special"]
        assert nothing["match"] == "null+nan"
        assert nothing["result"]["text"] == defaults["noValue"]
        assert nothing["result"]["color"] not in {step["color"] for step in defaults["thresholds"]["steps"]}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_overrides_match(name: str) -> None:
    for panel in _parsed(name)["panels"]:
        organized = [one["options"] for one in panel.get("transformations", ()) if one["id"] == "organize"]
        columns = {column for options in organized for column in options["renameByName"].values()}
        legends = [target["legendFormat"] for target in panel["targets"]]
        for override in panel["fieldConfig"]["overrides"]:
            kind, option = override["matcher"]["id"], override["matcher"]["options"]
            if kind == "byName":
                assert option in columns
            elif kind == "byRegexp":
                assert re.fullmatch("/.+/", option), "without slashes, Grafana matches whole names"
                assert any(re.search(option.strip("/"), legend) for legend in legends)


def test_a_query_leads_to_its_query_times() -> None:
    (table,) = _overview(8)
    properties = [one for override in table["fieldConfig"]["overrides"] for one in override["properties"]]
    ((link,),) = [one["value"] for one in properties if one["id"] == "links"]
    assert link["url"].startswith("/d/erp-overview?viewPanel=panel-7&var-query_name=${__value.text:percentencode}&")


def test_slow_bound_is_drawn() -> None:
    text = json.dumps(_overview(5, 8))
    assert text.count('{"color": "red", "value": 1.0}') == 3


@pytest.mark.parametrize(("uid", "title", "expr"), dashboards.queries())
def test_panels_name_known_metrics(uid: str, title: str, expr: str) -> None:
    unknown = _named(dashboards.substitute(expr)) - METRICS - _recorded()
    assert not unknown, f"{uid}, {title}"


def test_rules_name_known_metrics() -> None:
    for text in alert_rules.rule_files().values():
        for group in yaml.safe_load(text)["groups"]:
            for rule in group["rules"]:
                assert not _named(rule["expr"]) - METRICS - _recorded(), rule


def test_metric_names_are_found_in_expressions() -> None:
    expr = 'round(sum by (a) (rate(x_total{b="c_d"}[5m]))) > on () group_left (e) erp:limit:per_hour # f'
    assert _named(expr) == {"x_total", "erp:limit:per_hour"}
    assert _named('label_replace(vector(0), "g", "h", "", "") or on () up offset 1h unless y') == {"up", "y"}


def test_every_query_parses(need_program: Callable[[str, str], str], tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": dashboards.substitute(expr)}
        for number, (_, _, expr) in enumerate(dashboards.queries())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    own = subprocess.run(["apt-cache", "show", "promtool"], capture_output=True, check=False).returncode == 0
    promtool = need_program("promtool", "promtool" if own else "prometheus")
    run = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"SUCCESS: {len(rules)} rules found" in run.stdout


def test_variables_are_substituted() -> None:
    expr = 'rate(x{a=~"$query_name", b="${host:regex}"}[$__rate_interval]) + y[$__range]'
    assert dashboards.substitute(expr) == 'rate(x{a=~".*", b=".*"}[1m]) + y[1h]'
    filled = dashboards.substitute(expr, query_name="q", host="h", __rate_interval="20s", __range="5m")
    assert filled == 'rate(x{a=~"q", b="h"}[20s]) + y[5m]'
