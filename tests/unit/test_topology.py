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


@pytest.mark.parametrize(
    ("groups", "backup", "words"),
    [
        ((), {}, "there is no place for the backups; name a host in group `backup`"),
        (("backup",), {"folder": "/mnt/backup"}, "`folder` and host two of group `backup` are two places"),
        (("backup", "database"), {}, "host two is in groups `database` and `backup`"),
    ],
)
def test_backups_need_one_place_that_outlives_the_database(
    groups: tuple[str, ...], backup: dict[str, object], words: str
) -> None:
    settings = Settings.model_validate({"backup": {"mode": "deployed", **backup}})
    first = [group for group in GROUPS if group not in groups and group != "backup"]
    nodes = [node("one", {"address": "10.0.0.1"}, first), node("two", {"address": "10.0.0.2"}, groups)]
    with pytest.raises(SettingsError, match=words):
        Topology(nodes, settings)


def test_host_of_group_backup_is_the_place_only_when_backups_are_wanted() -> None:
    for mode, found in (("off", "None"), ("deployed", "10.0.0.2:2222")):
        settings = Settings.model_validate({"backup": {"mode": mode}})
        one = node("one", {"address": "10.0.0.1"}, [group for group in GROUPS if group != "backup"])
        assert str(Topology([one, node("two", {"address": "10.0.0.2"}, ["backup"])], settings).backup_store()) == found
