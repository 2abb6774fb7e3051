"""Rules, their tests, runbooks and Alertmanager's files, checked by Prometheus' and Alertmanager's own tools."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

import alert_rules
import dashboards
from alert_rules import HERE, alertmanager, goldens, runbook
from alert_rules.alertmanager import Email, Slack

CONFIGURATIONS = sorted(goldens.configurations())
TESTS = sorted(HERE.glob("*_test.yml"))


def _alerts() -> dict[str, dict[str, Any]]:
    rules = [
        rule
        for text in alert_rules.rule_files().values()
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    ]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


@pytest.fixture(scope="session")
def promtool(need_program: Callable[[str, str], str]) -> str:
    """Prometheus' tool; on Debian 13 it has a package of its own."""
    has_own = subprocess.run(["apt-cache", "show", "promtool"], capture_output=True, check=False).returncode == 0
    return need_program("promtool", "promtool" if has_own else "prometheus")


@pytest.fixture(scope="session")
def amtool(need_program: Callable[[str, str], str]) -> str:
    """Alertmanager's tool."""
    return need_program("amtool", "prometheus-alertmanager")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.name))
def test_rules_behave_as_their_tests_say(promtool: str, path: Path) -> None:
    run = _run(promtool, "test", "rules", path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_is_tested_firing_and_quiet() -> None:
    cases = [
        case
        for path in TESTS
        for group in yaml.safe_load(path.read_text())["tests"]
        for case in group["alert_rule_test"]
    ]
    for name in _alerts():
        fires = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name}
        assert fires == ({True} if name == "DeadMansSwitch" else {True, False}), name


@pytest.mark.parametrize("factor", [1, 0.2, 0.004])
def test_rules_are_valid_also_when_shortened(promtool: str, tmp_path: Path, factor: float) -> None:
    texts = alert_rules.rule_files(window_factor=factor) | {"thresholds.yml": alert_rules.thresholds()}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    run = _run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *(tmp_path / name for name in texts))
    assert run.returncode == 0, run.stdout + run.stderr


def test_shortening_reaches_windows_offsets_waits_and_words() -> None:
    text = "increase(x[5m]) offset 1h\nfor: 1m\nkeep_firing_for: 90s\nover 1 s within 5m; every 5m; offset_2h"
    assert alert_rules.scale(text, 0.2) == (
        "increase(x[1m]) offset 12m\nfor: 12s\nkeep_firing_for: 18s\nover 1 s within 1m; every 5m; offset_2h"
    )
    assert alert_rules.scale("[5m]", 0.0255) == "[7650ms]"
    assert alert_rules.rule_files()["erp.yml"] == (HERE / "erp.yml").read_text()
    shortened = alert_rules.rule_files(window_factor=0.2)["erp.yml"]
    assert not re.search(r"\[(5m|1h)\]|offset (5m|1h)|within (5m|1h)", shortened)
    with pytest.raises(ValueError, match="window_factor"):
        alert_rules.rule_files(window_factor=0)


def test_no_window_is_shorter_than_the_settings_allow_for() -> None:
    """settings/model.py holds every window to at least 300 s times the factor."""
    windows = re.findall(r"\[(\d+)([smh])\]", "".join(alert_rules.rule_files().values()))
    assert min(int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in windows) >= 300


def test_thresholds_of_settings(promtool: str, tmp_path: Path) -> None:
    limits = {"/artikel/{id}": 600, '/o"dd\\': 0.5}
    text = alert_rules.thresholds(
        slow_queries_per_hour=3.5, endpoint_queries_per_minute=1_000_000, endpoint_limits=limits, backup_age_hours=0.5
    )
    (tmp_path / "thresholds.yml").write_text(text)
    assert _run(promtool, "check", "rules", tmp_path / "thresholds.yml").returncode == 0
    rules = yaml.safe_load(text)["groups"][0]["rules"]
    found = {(rule["record"], rule.get("labels", {}).get("endpoint")): rule["expr"] for rule in rules}
    assert {key: float(expr.removeprefix("vector(").removesuffix(")")) for key, expr in found.items()} == {
        ("erp:slow_queries_limit:per_hour", None): 3.5,
        ("erp:endpoint_db_queries_default_limit:per_minute", None): 1e6,
        ("messwarte:backup_age_limit:seconds", None): 1800,
        ("messwarte:restore_drill_age_limit:seconds", None): 691200,
        ("erp:endpoint_db_queries_limit:per_minute", "/artikel/{id}"): 600,
        ("erp:endpoint_db_queries_limit:per_minute", '/o"dd\\'): 0.5,
    }


@pytest.mark.parametrize("name", sorted(_alerts()))
def test_alert_says_how_bad_what_and_what_to_do(name: str) -> None:
    rule = _alerts()[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    assert "{{" not in rule["annotations"]["summary"], "static, so that messages can be grouped by it"
    assert "description" in rule["annotations"]
    headings = [block.text for block in runbook.parse(alert_rules.runbooks()[name]) if block.kind == "heading"]
    assert tuple(headings) == runbook.SECTIONS
    assert runbook.first_step(alert_rules.runbooks()[name])[-1] in ".?"


def test_every_runbook_has_its_alert() -> None:
    assert alert_rules.runbooks().keys() == _alerts().keys()


@pytest.mark.parametrize("name", sorted(_alerts()))
def test_link_of_an_alert_opens_an_existing_panel(name: str) -> None:
    link = urlsplit(re.sub(r"\{\{.*?\}\}", "x", _alerts()[name]["annotations"]["panel"]))
    dashboard = json.loads(dashboards.build()[f"{link.path.removeprefix('/d/')}.json"])
    query = parse_qs(link.query)
    assert query.pop("viewPanel")[0] in {f"panel-{panel['id']}" for panel in dashboard["panels"]}
    variables = {f"var-{variable['name']}" for variable in dashboard["templating"]["list"]}
    assert query.keys() <= variables


def test_committed_renderings_are_current() -> None:
    assert goldens.stale(goldens.files()) == [], "run: python -m alert_rules"


def test_committed_messages_are_what_alertmanager_makes_of_them(amtool: str) -> None:
    assert goldens.stale(goldens.messages(amtool)) == [], "run: python -m alert_rules"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_alertmanager_accepts_its_configuration(amtool: str, tmp_path: Path, name: str) -> None:
    files = goldens.configurations()[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    run = _run(amtool, "check-config", tmp_path / "alertmanager.yml")
    if "field msteamsv2_configs not found" in run.stdout + run.stderr:
        pytest.skip("this amtool is older than 0.28 and knows no msteamsv2; the hosts tests check it on Debian 13")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 templates" in run.stdout


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=DeadMansSwitch severity=none", "heartbeat"),
        ("alertname=ErpSlowQuery severity=warning", "people"),
        ("alertname=ErpManySlowQueries severity=critical", "people"),
        ("alertname=ErpEndpointQueryRate severity=info", "people"),
        ("alertname=Other", "people"),
    ],
)
def test_routes_lead_to_the_right_receiver(amtool: str, labels: str, receiver: str) -> None:
    file = HERE / "alertmanager" / "goldens" / "email_with_grafana" / "alertmanager.yml"
    run = _run(amtool, "config", "routes", "test", f"--config.file={file}", *labels.split())
    assert run.stdout.split() == [receiver]


def test_repeats_are_multiples_of_the_group_interval() -> None:
    units = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

    def milliseconds(text: str) -> int:
        number, unit = re.fullmatch(r"(\d+)(\D+)", text).groups()  # type: ignore[union-attr]
        return int(number) * units[unit]

    for factor in (1, 0.2, 1 / 7):
        route = yaml.safe_load(alertmanager.render(interval_factor=factor)["alertmanager.yml"])["route"]
        for one in (route, *route["routes"]):
            assert milliseconds(one["repeat_interval"]) % milliseconds(one["group_interval"]) == 0
        assert milliseconds(route["group_interval"]) == round(300_000 * factor)


def test_inhibitions_compare_what_tells_alerts_apart() -> None:
    rules = yaml.safe_load(alertmanager.render()["alertmanager.yml"])["inhibit_rules"]
    assert rules
    for rule in rules:
        assert {"alertname", "host", "query_name", "endpoint"} <= set(rule["equal"])


def test_heartbeat_goes_to_one_channel_only() -> None:
    def heartbeat(**receivers: Any) -> set[str]:
        found = yaml.safe_load(alertmanager.render(**receivers)["alertmanager.yml"])["receivers"]
        return set(next(one for one in found if one["name"] == "heartbeat")) - {"name"}

    email, slack = Email("localhost:25", "a@example.com", ["b@example.com"]), Slack("#c")
    assert heartbeat(email=email, teams=alertmanager.Teams(), slack=slack) == {"email_configs"}
    assert heartbeat(teams=alertmanager.Teams(), slack=slack) == {"msteamsv2_configs"}
    assert heartbeat(slack=slack) == {"slack_configs"}
    assert heartbeat() == set()


def test_secrets_are_named_as_files_only() -> None:
    text = "".join(files["alertmanager.yml"] for files in goldens.configurations().values())
    named = re.findall(r"^\s*-?\s*(\w*(?:password|url)\w*): ", text, flags=re.MULTILINE)
    assert set(named) == {"smtp_auth_password_file", "webhook_url_file", "api_url_file"}


@pytest.mark.parametrize("url", ["grafana", "https://g/{{", 'https://g" onclick="', "https://g/?a=b", "http://a b"])
def test_addresses_that_cannot_stand_in_a_link_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="grafana_url"):
        alertmanager.render(grafana_url=url)


def test_runbook_in_a_message_is_the_runbook() -> None:
    """Every word of the Markdown is in both forms; what is code stays as it is, line by line."""
    for markdown in alert_rules.runbooks().values():
        words = re.sub(r"^# .*$|^```\w*$|^## |^- |`", "", markdown, flags=re.MULTILINE).split()
        plain = runbook.plain(markdown)
        assert re.sub(r"^- |`", "", plain, flags=re.MULTILINE).split() == words
        for code in re.findall(r"^```\w+\n(.*?)^```$", markdown, flags=re.MULTILINE | re.DOTALL):
            for line in code.splitlines():
                assert f"    {line}\n" in plain + "\n"
