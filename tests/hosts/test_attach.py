"""A PostgreSQL, a Prometheus and a Grafana of somebody else on one host join in; ours is on another."""

import glob
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

import dashboards
from bench.attach import DATABASE, ROOT, Attached, attached
from lab import Machine
from lab.system import wait_until
from tests.hosts.conftest import lab_of

pytestmark = pytest.mark.long

_PSQL = f"runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d {DATABASE}"
_STATE = """
SELECT 'role', rolname FROM pg_roles UNION ALL
SELECT 'member', roleid::regrole || ' ' || member::regrole FROM pg_auth_members UNION ALL
SELECT 'database', datname || ' ' || acl::text FROM pg_database, unnest(datacl) AS acl UNION ALL
SELECT 'schema', nspname || ' ' || acl::text FROM pg_namespace, unnest(nspacl) AS acl UNION ALL
SELECT 'relation', oid::regclass || ' ' || acl::text FROM pg_class, unnest(relacl) AS acl UNION ALL
SELECT 'extension', extname FROM pg_extension UNION ALL
SELECT 'setting', name || ' ' || setting FROM pg_settings WHERE source <> 'session' UNION ALL
SELECT 'start', pg_postmaster_start_time()::text UNION ALL
SELECT 'loaded', pg_conf_load_time()::text
"""
_METRICS = """
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends prometheus curl
"""


def _catalog(machine: Machine) -> set[str]:
    return set(machine.succeed(f'{_PSQL} -c "{_STATE}"').splitlines())


@pytest.fixture(scope="module")
def there() -> Iterator[Attached]:
    """Both hosts; nothing of ours is on either yet."""
    with lab_of("test-attach"), attached("test-attach") as found:
        yield found


@pytest.fixture(scope="module")
def first(there: Attached) -> tuple[set[str], set[str]]:
    """The foreign server's catalog before `attach`, and when the first panel had data."""
    before = _catalog(there.machines["foreign"])
    seconds = there.first_panel()
    print(f"\nfrom attach to the first panel: {seconds:.0f} s")  # noqa: T201
    return before, _catalog(there.machines["foreign"])


def test_the_foreign_server_has_what_grants_prints_and_was_not_restarted(
    first: tuple[set[str], set[str]], there: Attached
) -> None:
    before, after = first
    printed = there.machines["monitoring"].succeed(
        "cd /opt/messwarte/pgstat_exporter/current && PYTHONPATH=. python3 -P -m pgstat_exporter grants "
        "--config /etc/messwarte/pgstat_exporter/current/config.yml"
    )
    granted = [line for line in printed.splitlines() if not line.startswith("--")]
    assert granted == [
        'GRANT "pg_monitor" TO "messwarte_monitor";',
        f'GRANT CONNECT ON DATABASE "{DATABASE}" TO "messwarte_monitor";',
        'GRANT USAGE ON SCHEMA "public" TO "messwarte_monitor";',
    ]
    assert {line for line in after - before if "messwarte" in line} == {
        "role|messwarte_monitor",
        "member|pg_monitor messwarte_monitor",
        f"database|{DATABASE} messwarte_monitor=c/postgres",
        "schema|public messwarte_monitor=U/pg_database_owner",
    }
    # A database whose access list was empty has what it means in full now.
    defaults = {f"database|{DATABASE} =Tc/postgres", f"database|{DATABASE} postgres=CTc/postgres"}
    assert {line for line in after - before if "messwarte" not in line} <= defaults
    assert before - after == set()


def test_a_second_run_of_each_changes_nothing(first: tuple[set[str], set[str]], there: Attached) -> None:
    again = there.attach()
    assert again.returncode == 0, again.stderr
    assert "nothing to change" in again.stdout
    assert f"{there.settings_file} says so already" in again.stdout
    assert "messwarte_monitor may log in from the monitoring host" in again.stdout
    check = there.run("deploy", "--check", str(there.inventory))
    assert (check.returncode, "no drift" in check.stdout) == (0, True), check.stdout + check.stderr
    assert _catalog(there.machines["foreign"]) == first[1]


@pytest.mark.usefixtures("first")
def test_panels_of_postgresql_have_data_but_those_of_statements(there: Attached) -> None:
    """Nothing is preloaded there, and nothing had to be."""
    grafana = there.grafana()
    queries = [(title, expr) for uid, title, expr in dashboards.queries() if uid == "postgresql"]

    def empty() -> set[str]:
        return {title for title, expr in queries if not grafana.samples(dashboards.substitute(expr))}

    # A rate needs two scrapes.
    wait_until(lambda: len(empty()) <= 1, "all panels but one have data", 60, 1)
    assert empty() == {"Statements that took the most time"}


@pytest.mark.usefixtures("first")
def test_a_role_that_cannot_log_in_is_told_with_what_to_run(there: Attached) -> None:
    foreign = there.machines["foreign"]
    foreign.succeed(f"{_PSQL} -c \"ALTER ROLE messwarte_monitor PASSWORD 'another'\"")
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'messwarte_monitor'"
    foreign.succeed(f'{_PSQL} -c "{ended}"')
    broken = there.run("status", "--json", str(there.inventory))
    (line,) = [one for one in json.loads(broken.stdout) if one["component"] == "pgstat_exporter"]
    assert not line["healthy"]
    assert "password authentication failed" in line["detail"]
    assert "run: ./messwarte attach postgresql" in line["detail"]
    assert there.attach().returncode == 0
    assert there.run("status", str(there.inventory)).returncode == 0


@pytest.mark.usefixtures("first")
def test_a_host_that_pg_hba_keeps_out_is_told_before_the_deploy(there: Attached) -> None:
    """The monitoring host is asked, not this machine, which pg_hba lets in."""
    foreign, address = there.machines["foreign"], there.machines["monitoring"].address
    hba = "/etc/postgresql/17/main/pg_hba.conf"
    foreign.succeed(f"cp {hba} /root/ && sed -i '1i host all all {address}/32 reject' {hba}")
    foreign.succeed(f"{_PSQL} -c 'SELECT pg_reload_conf()'")
    try:
        run = there.attach()
    finally:
        foreign.succeed(f"cat /root/pg_hba.conf > {hba}; {_PSQL} -c 'SELECT pg_reload_conf()'")
    assert run.returncode == 1
    assert f'cannot log in from the monitoring host: pg_hba.conf rejects connection for host "{address}"' in run.stderr


@pytest.fixture(scope="module")
def metrics(first: tuple[set[str], set[str]], there: Attached) -> Machine:
    """Debian's Prometheus on the foreign host, which includes what `attach prometheus` wrote; ours is gone."""
    assert first
    foreign = there.machines["foreign"]
    foreign.succeed(_METRICS, timeout=600)
    settings = yaml.safe_load(there.settings_file.read_text())
    existing = {"mode": "existing", "existing": {"address": f"{foreign.address}:9090"}}
    there.settings(
        postgresql=settings["postgresql"], prometheus=existing, network={"exposed": True, "firewall": True},
        grafana={"mode": "off"},
    )  # fmt: skip
    deployed = there.run("deploy", str(there.inventory))
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    folder = there.lab.state / "prometheus"
    written = there.run("attach", "prometheus", str(folder), str(there.inventory))
    assert written.returncode == 0, written.stderr
    lines = [line for line in written.stdout.splitlines() if line.startswith("    ")]
    theirs = yaml.safe_load(foreign.succeed("cat /etc/prometheus/prometheus.yml"))
    ours = yaml.safe_load("\n".join(lines))
    theirs["rule_files"] = [*(theirs.get("rule_files") or []), *ours.pop("rule_files")]
    local = there.lab.state / "prometheus.yml"
    local.write_text(yaml.safe_dump(theirs | ours))
    foreign.succeed(f"mkdir -p {folder.parent}")
    foreign.copy_to_host(folder, str(folder.parent))
    foreign.copy_to_host(local, "/etc/prometheus/prometheus.yml")
    foreign.succeed(f"chown prometheus {folder}/scrape_password && chmod 644 /etc/prometheus/prometheus.yml")
    foreign.succeed("promtool check config /etc/prometheus/prometheus.yml && systemctl reload prometheus")
    return foreign


def test_an_existing_prometheus_scrapes_and_loads_the_rules(metrics: Machine, there: Attached) -> None:
    api = f"http://{metrics.address}:9090/api/v1"
    # Both targets, each asked once.
    ready = f"curl -fsSG {api}/query --data-urlencode 'query=sum(up{{host!=\"\"}})' | grep -q '\"2\"'"
    metrics.wait_until_succeeds(ready, 90)
    targets = httpx.get(f"{api}/targets", trust_env=False).json()["data"]["activeTargets"]
    ours = {
        (one["labels"]["job"], one["labels"].get("host")): one["health"] for one in targets if "host" in one["labels"]
    }
    assert ours == {("postgres", metrics.address): "up", ("node", "monitoring"): "up"}

    def rules() -> dict[str, str]:
        groups = httpx.get(f"{api}/rules", trust_env=False).json()["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    assert {"ErpSlowQuery", "DeadMansSwitch", "erp:slow_queries_limit:per_hour"} <= rules().keys()
    wait_until(lambda: "unknown" not in rules().values(), "every rule has been asked once", 90)
    assert set(rules().values()) == {"ok"}
    again = there.run("attach", "prometheus", str(there.lab.state / "prometheus"), str(there.inventory))
    assert "nothing to change" in again.stdout


def test_files_of_others_are_not_replaced(metrics: Machine, there: Attached, tmp_path: Path) -> None:
    assert metrics
    rule = there.lab.state / "prometheus/rules/erp.yml"
    before = rule.read_text()
    rule.write_text(before.replace("severity: warning", "severity: page", 1))
    (tmp_path / "scrape.yml").write_text("theirs")
    try:
        for folder, file in ((rule.parent.parent, rule), (tmp_path, tmp_path / "scrape.yml")):
            run = there.run("attach", "prometheus", str(folder), str(there.inventory))
            assert (run.returncode, f"not written by Messwarte, or changed since: {file}" in run.stderr) == (1, True)
    finally:
        rule.write_text(before)
    assert [path.name for path in tmp_path.iterdir()] == ["scrape.yml"]


def test_an_existing_grafana_shows_the_dashboards_by_token(metrics: Machine, there: Attached, tmp_path: Path) -> None:
    pattern = str(yaml.safe_load((ROOT / "inventories/lab.yml").read_text())["grafana"]["source"]["package"])
    found = sorted(path for path in glob.glob(pattern) if path.endswith(".tar.gz"))  # noqa: PTH207  an absolute pattern
    if not found:
        pytest.skip(f"there is no tar archive of Grafana at {pattern}")
    metrics.copy_to_host(Path(found[-1]), "/root/grafana.tar.gz")
    metrics.succeed(
        "mkdir /root/grafana && tar -C /root/grafana --strip-components=1 -xzf /root/grafana.tar.gz",
        "systemd-run -q --working-directory=/root/grafana /root/grafana/bin/grafana server "
        "cfg:analytics.reporting_enabled=false cfg:plugins.preinstall_disabled=true",
    )
    url = f"http://{metrics.address}:3000"
    metrics.wait_until_succeeds(f"curl -fsS {url}/api/health", 90)
    with httpx.Client(base_url=url, auth=("admin", "admin"), timeout=20, trust_env=False) as admin:
        source = {"name": "Theirs", "type": "prometheus", "access": "proxy", "url": "http://127.0.0.1:9090"}
        uid = admin.post("/api/datasources", json=source).json()["datasource"]["uid"]
        account = admin.post("/api/serviceaccounts", json={"name": "messwarte", "role": "Editor"}).json()["id"]
        token = admin.post(f"/api/serviceaccounts/{account}/tokens", json={"name": "messwarte"}).json()["key"]
        (tmp_path / "token").write_text(token)
        run = there.run("attach", "grafana", url, "--plain-http", "--token-file", str(tmp_path / "token"))
        assert run.returncode == 0, run.stderr
        shown = admin.get("/api/dashboards/uid/postgresql").json()["dashboard"]
        (variable,) = [one for one in shown["templating"]["list"] if one["name"] == "datasource"]
        assert variable["current"]["value"] == uid
        panel = next(one for one in shown["panels"] if one["title"] == "Sessions by state")
        expr = dashboards.substitute(panel["targets"][0]["expr"])
        query = {"refId": "A", "expr": expr, "datasource": {"uid": uid}, "range": True, "intervalMs": 15000}
        answer = admin.post("/api/ds/query", json={"queries": [query], "from": "now-5m", "to": "now"}).json()
    assert any(frame["data"]["values"] for frame in answer["results"]["A"]["frames"])


def test_remove_leaves_the_foreign_server_as_it_was(
    metrics: Machine, first: tuple[set[str], set[str]], there: Attached
) -> None:
    there.settings(prometheus={"mode": "off"}, grafana={"mode": "off"})
    gone = there.run("deploy", str(there.inventory))
    assert gone.returncode == 0, gone.stderr
    run = there.attach("--remove")
    assert run.returncode == 0, run.stderr
    assert not {line for line in _catalog(metrics) if "messwarte" in line}
    assert {line for line in first[0] if line.startswith(("start", "setting"))} <= _catalog(metrics)
