"""`attach prometheus`: files that a real promtool accepts, written whole or not at all, and only over our own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from attach import AttachError, prometheus
from deploy.topology import Topology, node
from settings import Secrets, Settings

_EXISTING = {"mode": "existing", "existing": {"address": "10.0.0.9:9090"}}


def _files(folder: Path, **changes: object) -> dict[str, str]:
    off = {name: {"mode": "off"} for name in ("postgresql", "redis", "tasks", "grafana")}
    settings = Settings.model_validate(off | {"prometheus": _EXISTING, "network": {"exposed": True}} | changes)
    hosts = [node("watch", {"address": "10.0.0.1"}, ["monitoring"])]
    return prometheus.files(Topology(hosts, settings), Secrets(folder / "secrets.yml"))


def _tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_accepted_and_a_second_run_writes_nothing(
    need_program: Callable[[str, str], str], tmp_path: Path
) -> None:
    need_program("promtool", "prometheus")
    wanted, out = _files(tmp_path), tmp_path / "out"
    assert prometheus.check(wanted)
    assert set(prometheus.write(out, wanted)) == set(wanted)
    assert _tree(out) == wanted
    assert prometheus.write(out, _files(tmp_path)) == []
    assert (out / "scrape_password").stat().st_mode & 0o777 == 0o600
    jobs = yaml.safe_load(wanted["scrape.yml"])["scrape_configs"]
    assert {job["job_name"] for job in jobs} == {"messwarte-alertmanager", "messwarte-node"}
    for job in jobs:
        assert job["relabel_configs"] == [
            {"target_label": "job", "replacement": job["job_name"].removeprefix("messwarte-")}
        ]
        assert job["basic_auth"] == {"username": "prometheus", "password_file": "scrape_password"}
        assert job["scheme"] == "https"


def test_a_change_of_settings_replaces_what_differs_and_takes_away_what_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = _files(tmp_path)
    prometheus.write(out, first | {"rules/old.yml": first["rules/meta.yml"]})
    changed = _files(tmp_path, thresholds={"slow_queries_per_hour": 3})
    assert prometheus.write(out, changed) == ["rules/thresholds.yml", "rules/old.yml"]
    assert _tree(out) == changed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away; run: sudo ./messwarte test")
def test_a_new_password_stays_readable_for_whom_the_old_one_was_given_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prometheus.write(out, _files(tmp_path))
    password = out / "scrape_password"
    os.chown(password, 1234, 1234)
    (tmp_path / "secrets.yml").write_text("gate_prometheus: another\n")
    (tmp_path / "secrets.yml").chmod(0o600)
    assert "scrape_password" in prometheus.write(out, _files(tmp_path))
    assert (password.read_text(), password.stat().st_uid, password.stat().st_mode & 0o777) == ("another", 1234, 0o600)


@pytest.mark.parametrize("name", ["scrape.yml", "rules/erp.yml", "ca.pem"])
def test_a_file_of_somebody_else_stops_everything(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("theirs")
    with pytest.raises(AttachError, match=f"not written by Messwarte, or changed since: {out / name}"):
        prometheus.write(out, _files(tmp_path))
    assert _tree(out) == {name: "theirs"}


def test_what_promtool_refuses_is_not_written(need_program: Callable[[str, str], str], tmp_path: Path) -> None:
    need_program("promtool", "prometheus")
    wanted = _files(tmp_path)
    with pytest.raises(AttachError, match="promtool refuses"):
        prometheus.write(tmp_path / "out", wanted | {"rules/erp.yml": wanted["rules/erp.yml"].replace("expr:", "exp:")})
    assert not (tmp_path / "out").exists()
