"""The exporter's configuration: every error names the file, the setting and what would be right."""

from pathlib import Path

import pytest
import yaml

from pgstat_exporter import config, content
from pgstat_exporter.__main__ import main
from pgstat_exporter.strict import Problem

DSN = "dsn: host=/run/postgresql dbname=erp\n"


def load(tmp_path: Path, text: str) -> list[config.Enabled]:
    """Read a configuration as `serve` does."""
    path = tmp_path / "config.yml"
    path.write_text(text)
    return config.enabled(config.load(path), content.load(), str(path))


def test_defaults_enable_every_collector(tmp_path: Path) -> None:
    """A DSN is all that has to be said."""
    assert [one.name for one in load(tmp_path, DSN)] == sorted(content.load())


def test_settings_replace_what_the_declaration_says(tmp_path: Path) -> None:
    """Durations take units, `top` bounds the rows, texts can be turned off, and a collector, too."""
    text = "collectors:\n  statements: {top: 7, query_text: false, lock_timeout: 50ms}\n  locks: {enabled: false}\n"
    chosen = {one.name: one for one in load(tmp_path, DSN + text)}
    assert "locks" not in chosen
    statements = chosen["statements"]
    assert (statements.top, statements.query_text, statements.lock_timeout) == (7, False, 0.05)
    assert statements.statement_timeout == 2.0


@pytest.mark.parametrize(
    "text",
    [
        "dsn: {host: x, password: geheim}\n",
        "dsn: [geheim]\n",
        "targets: {one: {dsn: {password: geheim}}}\n",
        "targets: [{dsn: host=x password=geheim}]\n",
        "password: geheim\n",
        "dsn: host=x password=geheim\n",
    ],
)
def test_errors_repeat_no_secret(tmp_path: Path, text: str) -> None:
    """They are logged, and read by others than who wrote the file."""
    with pytest.raises(Problem) as problem:
        load(tmp_path, text)
    assert "geheim" not in str(problem.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port: 9187\n", ["dsn is missing", "several under targets"]),
        (DSN + "prot: 9187\n", ["prot", "no such setting", "did you mean port?"]),
        (DSN + "port: '9187'\n", ["port", "must be a whole number", "'9187'"]),
        (DSN + "port: 0\n", ["port", "greater than or equal to 1"]),
        (DSN + "listen: everywhere\n", ["listen", "must be an IP address such as 127.0.0.1", "'everywhere'"]),
        (DSN + "scrape_timeout: soon\n", ["scrape_timeout", "duration such as 500ms, 2s, 1m or 1h"]),
        (DSN + "scrape_timeout: 0\n", ["scrape_timeout", "greater than or equal to 0.001"]),
        (DSN + "password_file: secrets\n", ["password_file", "must be an absolute path"]),
        (DSN + "collectors: {lock: {}}\n", ["collectors.lock", "no such collector", "did you mean locks?"]),
        (DSN + "collectors: {locks: {top: 5}}\n", ["collectors.locks.top", "no such setting"]),
        (DSN + "collectors: {statements: {topp: 5}}\n", ["collectors.statements.topp", "did you mean top?"]),
        (DSN + "collectors: {statements: {top: 0}}\n", ["collectors.statements.top", "greater than or equal to 1"]),
        (DSN + "collectors: {locks: off}\n", ["collectors.locks", "must be a mapping of settings", "False"]),
        (DSN + DSN, [":2:", "'dsn' is set twice"]),
        ("dsn: [1\n", [":2:", "not valid YAML"]),
        ("dsn: {{ dsn }}\n", ["not valid YAML", "unhashable"]),
        (DSN + "databases: {exclude: [2026-13-45]}\n", ["not valid YAML", "month must be in 1..12"]),
        ("[" * 5000, ["not valid YAML"]),
        ("- dsn\n", ["must be a mapping"]),
        ("dsn: nonsense\n", ["dsn", "libpq connection string such as"]),
    ],
)
def test_errors_name_file_setting_and_what_is_right(tmp_path: Path, text: str, said: list[str]) -> None:
    """Whoever mistyped can mend it without the documentation."""
    with pytest.raises(Problem) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "config.yml"))
    assert [part for part in said if part not in message] == []


def test_password_in_the_dsn_is_refused_and_not_repeated(tmp_path: Path) -> None:
    """Secrets live in files of their own, and no error prints one."""
    for dsn in ("host=db password=geheim", "postgresql://app:geheim@db/erp", "host=db password='geheim"):
        with pytest.raises(Problem) as caught:
            load(tmp_path, f'dsn: "{dsn}"\n')
        assert "geheim" not in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """One run of `check --offline` is enough to mend a file."""
    with pytest.raises(Problem) as caught:
        load(tmp_path, "port: none\nlisten: 1\ntarget: {}\n")
    assert len(str(caught.value).splitlines()) == 3


def test_every_collector_off_is_an_error(tmp_path: Path) -> None:
    """An exporter that would export nothing is a mistake."""
    off = "".join(f"  {name}: {{enabled: false}}\n" for name in content.load())
    with pytest.raises(Problem, match="every collector is off"):
        load(tmp_path, f"{DSN}collectors:\n{off}")


def test_check_offline_needs_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It validates before a deploy swaps the file in; a bad file ends with 2."""
    path = tmp_path / "config.yml"
    path.write_text("dsn: host=192.0.2.1 dbname=erp\npassword_file: /run/credentials/none/password\n")
    assert main(["check", "--offline", "--config", str(path)]) == 0
    assert "statements" in capsys.readouterr().out
    path.write_text("dns: x\n")
    assert main(["check", "--offline", "--config", str(path)]) == 2
    assert f"{path}: dns: no such setting; did you mean dsn?" in capsys.readouterr().err


def test_grants_are_those_of_the_collectors_that_are_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Role and database are the DSN's; names that need quotes have them; a collector that is off asks for nothing."""
    path = tmp_path / "config.yml"
    off = {name: {"enabled": False} for name in content.load() if name not in {"activity", "database_size", "wal"}}
    path.write_text(yaml.safe_dump({"dsn": "host=db dbname='my \"erp\"' user=watcher", "collectors": off}))
    assert main(["grants", "--config", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "-- activity, database_size",
        'GRANT "pg_read_all_stats" TO "watcher";',
        "-- all collectors",
        'GRANT CONNECT ON DATABASE "my ""erp""" TO "watcher";',
    ]
    assert main(["grants", "--schema", "tools"]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("--")]
    assert printed == [
        'GRANT "pg_monitor" TO "messwarte_monitor";',
        'GRANT CONNECT ON DATABASE "erp" TO "messwarte_monitor";',
        'GRANT USAGE ON SCHEMA "tools" TO "messwarte_monitor";',
    ]


def test_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path is in the message."""
    assert main(["check", "--offline", "--config", str(tmp_path / "none.yml")]) == 2
    assert f"{tmp_path}/none.yml: cannot be read" in capsys.readouterr().err
