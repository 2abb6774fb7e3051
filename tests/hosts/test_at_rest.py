"""A stack under its steady load, left alone: nobody is woken for nothing."""

from collections.abc import Iterator

import pytest

from lab.system import wait_until
from proof import mail
from proof.prometheus import Prometheus
from tests.hosts.conftest import Stack, bring_up, lab_of

_MINUTES = 15


@pytest.fixture
def quiet() -> Iterator[Stack]:
    """A host that nothing happens to."""
    with lab_of("test-rest") as lab:
        yield bring_up(lab, ["erp"])


@pytest.mark.long
def test_nothing_but_the_dead_mans_switch_fires_for_15_minutes(quiet: Stack) -> None:
    """At production's intervals, from the first scrape on; the mailbox agrees with Prometheus."""
    prometheus = Prometheus(quiet.client(9090))
    scrapes = f'count_over_time(up{{job="prometheus"}}[{_MINUTES}m:15s])'
    wait_until(lambda: prometheus.value(scrapes) >= _MINUTES * 4 - 1, "15 minutes of scrapes", _MINUTES * 60 + 120, 5)
    fired = prometheus.query(f'count by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{_MINUTES + 2}m]))')
    assert {sample["metric"]["alertname"] for sample in fired} == {"DeadMansSwitch"}
    assert {message.alert for message in mail.read(quiet.machine)} == {"DeadMansSwitch"}
    assert prometheus.value('increase(erp_db_query_count_total{query_name="artikel_suche"}[15m])') > 100
