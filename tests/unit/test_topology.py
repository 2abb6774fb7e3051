"""Which hosts an inventory has to name, and what is said of one that does not."""

import pytest

from deploy.prometheus.deploy import jobs
from deploy.topology import GROUPS, Endpoint, Topology, node
from settings import Settings, SettingsError


def _topology(groups: tuple[str, ...], **settings: dict[str, object]) -> Topology:
    return Topology([node("one", {"address": "10.0.0.1"}, ["all", *groups])], Settings.model_validate(settings))


@pytest.mark.parametrize(
    ("group", "part"),
    [("database", "postgresql"), ("cache", "redis"), ("monitoring", "prometheus"), ("worker", "tasks")],
)
def test_what_is_deployed_needs_a_host(group: str, part: str) -> None:
    """A misspelt group is refused, not taken for a wish to switch its components off."""
    groups = tuple(f"{one}x" if one == group else one for one in GROUPS)
    with pytest.raises(
        SettingsError, match=f"{part}.mode is `deployed`, and the inventory has no host in group `{group}`"
    ):
        _topology(groups)


def test_all_groups_that_are_missing_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        _topology(("cache",), erp={"mode": "demo"})
    said = [line.split(".")[0] for line in str(caught.value).splitlines()]
    assert said == ["postgresql", "prometheus", "alertmanager", "grafana", "tasks", "erp"]


def test_what_exists_or_is_off_needs_no_host() -> None:
    found = _topology(
        ("monitoring",),
        postgresql={"mode": "existing", "existing": {"address": "db:5432"}},
        redis={"mode": "existing", "existing": {"address": "cache:6379"}},
        tasks={"mode": "off"},
    )
    assert str(found.database(found.nodes[0])) == "db:5432"
    assert found.members("worker") == []


def test_what_exists_is_measured_on_the_monitoring_host_for_a_prometheus_that_exists_too() -> None:
    there: dict[str, dict[str, object]] = {
        "postgresql": {"mode": "existing", "existing": {"address": "db:5432"}},
        "prometheus": {"mode": "existing", "existing": {"address": "metrics:9090"}},
    }
    off: dict[str, dict[str, object]] = {
        name: {"mode": "off"} for name in ("redis", "alertmanager", "grafana", "tasks")
    }
    with pytest.raises(SettingsError, match=r"prometheus\.mode is `existing`, and .* no host in group `monitoring`"):
        _topology((), **there, **off)
    assert jobs(_topology(("monitoring",), **there, **off), grafana=False) == {
        "node": [Endpoint("127.0.0.1", 9100, "one")],
        "postgres": [Endpoint("127.0.0.1", 9187, "db")],
    }


def test_an_erp_that_exists_is_scraped_on_its_hosts() -> None:
    with pytest.raises(SettingsError, match=r"erp\.mode is `existing`, and the inventory has no host in group `app`"):
        _topology(("database", "cache", "monitoring", "worker"), erp={"mode": "existing"})
