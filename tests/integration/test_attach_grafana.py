"""`attach grafana` with a real Grafana and a real Prometheus: what it brings, keeps, refuses and takes away."""

import contextlib
import glob
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import dashboards
from settings import load
from tests.integration.conftest import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
UIDS = {json.loads(text)["uid"] for text in dashboards.build().values()}


@dataclass
class Server:
    """A Grafana started by hand with data of its own: its administrator, and a token of a service account."""

    url: str
    admin: httpx.Client
    token: str

    def attach(self, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the verb with the token on standard input."""
        command = [sys.executable, "-m", "cli", "attach", "grafana", self.url, *arguments, "--token-stdin"]
        return subprocess.run(command, cwd=ROOT, input=token or self.token, capture_output=True, text=True, check=False)

    def ours(self) -> dict[str, int]:
        """Return the versions of the dashboards in our folder."""
        found = self.admin.get("/api/search", params={"folderUIDs": "messwarte"}).json()
        full = {one["uid"]: self.admin.get(f"/api/dashboards/uid/{one['uid']}").json() for one in found}
        return {uid: one["dashboard"]["version"] for uid, one in full.items()}

    def change(self, uid: str) -> None:
        """Change a dashboard as somebody would by hand."""
        found = self.admin.get(f"/api/dashboards/uid/{uid}").json()
        body = {"dashboard": found["dashboard"] | {"title": "Mine"}, "folderUid": found["meta"]["folderUid"]}
        self.admin.post("/api/dashboards/db", json=body | {"message": "mine"}).raise_for_status()


@contextlib.contextmanager
def _process(command: list[str], ready: str, folder: Path) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(ready), f"{ready} answers, see {folder / 'log'}", 60)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def prometheus(need_program: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty Prometheus."""
    folder, address = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{free_port()}"
    (folder / "prometheus.yml").write_text("{}")
    with _process(
        [need_program("prometheus", "prometheus"), f"--web.listen-address={address}"],
        f"http://{address}/-/ready",
        folder,
    ):
        yield f"http://{address}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grafana's programs, from the package file of the lab."""
    pattern = str(load(ROOT / "inventories/lab.yml").grafana.source.package)
    found = sorted(one for one in glob.glob(pattern) if one.endswith(".tar.gz"))  # noqa: PTH207  an absolute pattern
    if not found:
        pytest.skip(f"there is no tar archive of Grafana at {pattern}")
    folder = tmp_path_factory.mktemp("grafana-home")
    with tarfile.open(found[-1]) as tar:
        tar.extractall(folder, filter="data")
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def running(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, httpx.Client]]:
    """Grafana, and its administrator."""
    folder, port = tmp_path_factory.mktemp("grafana"), free_port()
    settings = {"paths.data": folder, "server.http_addr": "127.0.0.1", "server.http_port": port}
    settings |= {"analytics.reporting_enabled": "false", "analytics.check_for_updates": "false"}
    settings |= {"plugins.preinstall_disabled": "true", "log.level": "warn"}
    options = [f"cfg:{key}={value}" for key, value in settings.items()]
    url = f"http://127.0.0.1:{port}"
    command = [str(home / "bin" / "grafana"), "server", f"--homepath={home}", *options]
    with (
        _process(command, f"{url}/api/health", folder),
        httpx.Client(base_url=url, auth=("admin", "admin"), timeout=20, trust_env=False) as admin,
    ):
        yield url, admin


@pytest.fixture
def grafana(running: tuple[str, httpx.Client], prometheus: str) -> Iterator[Server]:
    """Grafana with one data source, the token of an editor, and nothing of ours."""
    url, admin = running
    source = {"name": "Metrics", "uid": "metrics", "type": "prometheus", "access": "proxy", "url": prometheus}
    admin.post("/api/datasources", json=source).raise_for_status()
    yield Server(url, admin, _token(admin))
    for one in admin.get("/api/datasources").json():
        admin.delete(f"/api/datasources/uid/{one['uid']}").raise_for_status()
    admin.delete("/api/folders/messwarte")
    for uid in UIDS:
        admin.delete(f"/api/dashboards/uid/{uid}")


def _token(admin: httpx.Client, role: str = "Editor") -> str:
    name = f"messwarte-{os.urandom(4).hex()}"
    account = admin.post("/api/serviceaccounts", json={"name": name, "role": role}).json()
    answer = admin.post(f"/api/serviceaccounts/{account['id']}/tokens", json={"name": name})
    return str(answer.json()["key"])


def _asked(dashboard: dict[str, Any]) -> str:
    (variable,) = [one for one in dashboard["templating"]["list"] if one["name"] == "datasource"]
    return str(variable["current"]["value"])


def test_dashboards_come_ask_the_data_source_and_a_second_run_changes_nothing(grafana: Server) -> None:
    run = grafana.attach()
    assert run.returncode == 0, run.stderr
    first = grafana.ours()
    assert set(first) == UIDS
    for uid in UIDS:
        found = grafana.admin.get(f"/api/dashboards/uid/{uid}").json()
        assert _asked(found["dashboard"]) == "metrics"
        assert found["meta"]["folderTitle"] == "Messwarte"
    again = grafana.attach()
    assert (again.returncode, again.stdout.splitlines()[-1], grafana.ours()) == (0, "nothing to change", first)
    assert grafana.token not in run.stdout + run.stderr


def test_what_was_changed_by_hand_stays_until_it_is_said(grafana: Server) -> None:
    uid = min(UIDS)
    assert grafana.attach().returncode == 0
    grafana.change(uid)
    before = grafana.ours()
    for arguments in ((), ("--remove",)):
        run = grafana.attach(*arguments)
        assert run.returncode == 1
        assert f"dashboard `{uid}` was changed by hand (by admin)" in run.stderr
        assert grafana.ours() == before
    assert grafana.attach("--overwrite").returncode == 0
    assert grafana.admin.get(f"/api/dashboards/uid/{uid}").json()["dashboard"]["title"] != "Mine"
    assert "nothing to change" in grafana.attach().stdout


def test_a_dashboard_of_others_is_never_replaced(grafana: Server) -> None:
    uid = max(UIDS)
    grafana.admin.post("/api/dashboards/db", json={"dashboard": {"uid": uid, "title": "Theirs"}}).raise_for_status()
    for arguments in ((), ("--overwrite",)):
        run = grafana.attach(*arguments)
        # Seen or not: Grafana keeps for a while what an account may see.
        assert (run.returncode, "stays as it is" in run.stderr) == (1, True), run.stderr
        seen = grafana.attach(*arguments, token=_token(grafana.admin, "Admin"))
        assert (seen.returncode, f"dashboard `{uid}` is outside of folder Messwarte" in seen.stderr) == (1, True)
    assert grafana.attach("--remove", "--overwrite").returncode == 0
    assert grafana.admin.get(f"/api/dashboards/uid/{uid}").json()["dashboard"]["title"] == "Theirs"
    assert uid not in grafana.ours()


def test_remove_leaves_the_dashboards_of_others(grafana: Server) -> None:
    assert grafana.attach().returncode == 0
    theirs = {"dashboard": {"uid": "theirs", "title": "Theirs"}, "folderUid": "messwarte"}
    grafana.admin.post("/api/dashboards/db", json=theirs).raise_for_status()
    run = grafana.attach("--remove")
    assert (run.returncode, "folder Messwarte stays: it holds dashboards of others" in run.stdout) == (0, True)
    assert set(grafana.ours()) == {"theirs"}
    grafana.admin.delete("/api/dashboards/uid/theirs").raise_for_status()
    assert "removed folder Messwarte" in grafana.attach("--remove").stdout
    assert grafana.admin.get("/api/folders/messwarte").status_code == 404
    assert grafana.attach("--remove").stdout.strip() == "nothing to change"


def test_the_data_source_is_named_where_there_are_several_and_has_to_answer(grafana: Server) -> None:
    dead = {"name": "Dead", "uid": "dead", "type": "prometheus", "access": "proxy", "url": "http://127.0.0.1:9"}
    grafana.admin.post("/api/datasources", json=dead).raise_for_status()
    for arguments, words in (
        ((), "name one with --datasource UID: dead (Dead), metrics (Metrics)"),
        (("--datasource", "none"), "there is no Prometheus data source `none`; there are: dead (Dead), metrics"),
        (("--datasource", "dead"), "data source Dead does not answer"),
    ):
        run = grafana.attach(*arguments)
        assert (run.returncode, words in run.stderr) == (1, True), run.stderr
    assert grafana.ours() == {}
    assert grafana.attach("--datasource", "metrics").returncode == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://grafana.example.com", "the token would cross the network unencrypted"),
        ("https://admin:secret@grafana.example.com", "without user or password"),
        ("grafana", "must be an address such as"),
        ("http://127.0.0.1:9", "does not answer"),
    ],
)
def test_addresses_that_get_no_token_are_named(url: str, words: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "cli", "attach", "grafana", url, "--token-stdin"],
        cwd=ROOT,
        input="glsa_token",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, words in run.stderr) == (1, True), run.stderr
    assert "glsa_token" not in run.stderr


def test_a_wrong_or_missing_token_is_said(grafana: Server) -> None:
    run = grafana.attach(token="wrong")
    assert (run.returncode, "the token is wrong or has ended" in run.stderr) == (1, True), run.stderr
    clean = {key: value for key, value in os.environ.items() if key != "MESSWARTE_GRAFANA_TOKEN"}
    command = [sys.executable, "-m", "cli", "attach", "grafana", grafana.url]
    run = subprocess.run(
        command, cwd=ROOT, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (run.returncode, "--token-stdin or MESSWARTE_GRAFANA_TOKEN" in run.stderr) == (2, True)
