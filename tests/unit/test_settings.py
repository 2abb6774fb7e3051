"""Settings: what is refused, with which words, and what a value means."""

import subprocess
import sys
from pathlib import Path

import pytest

from settings import Settings, SettingsError, load, reference
from settings.values import seconds, size_bytes

ROOT = Path(__file__).resolve().parent.parent.parent


def _refusal(folder: Path, text: str) -> str:
    path = folder / "settings.yml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    words = str(caught.value)
    assert words.startswith(f"{path}: ")
    return words.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("redis: {memroy: 1GB}", "redis.memroy: there is no such setting; there are: mode, existing, memory"),
        ("postgres: {}", "postgres: there is no such setting; there are: network, postgresql, backup, redis,"),
        (
            "grafana: {source: {mirror: x}}",
            "grafana.source.mirror: there is no such setting; there are: repository, package",
        ),
        ("redis: {memory: 1024}", "redis.memory: Input should be a valid string (given: 1024)"),
        ("redis: {memory: 1 GB}", "redis.memory: must be a size such as `512MB` or `8GB` (given: '1 GB')"),
        ("redis: {memory: 0GB}", "must be a size such as"),
        ("postgresql: {max_connections: '200'}", "postgresql.max_connections: Input should be a valid integer"),
        ("postgresql: {max_connections: 5}", "greater than or equal to 20 (given: 5)"),
        ("postgresql: {max_connections: true}", "postgresql.max_connections: Input should be a valid integer"),
        ("postgresql: {slow_query: 1 second}", "postgresql.slow_query: must be a duration such as `15s`"),
        ("postgresql: {mode: on}", "postgresql.mode: Input should be 'deployed', 'existing' or 'off' (given: True)"),
        ("postgresql: {mode: existing}", "postgresql: `existing: {address: host:port}` belongs to `mode: existing`"),
        ("redis: {existing: {address: 'a:1'}}", "redis: `existing: {address: host:port}` belongs to `mode: existing`"),
        ("backup: {folder: backup}", "backup.folder: must be an absolute path such as `/mnt/backup`"),
        ("backup: {folder: /mnt/../etc}", "backup.folder: must be an absolute path such as `/mnt/backup`"),
        ("backup: {full: Sundays}", "backup.full: must be a calendar event of systemd such as `Sun 01:30`"),
        ("backup: {drill: \"Sun 01:30' ; reboot '\"}", "backup.drill: must be a calendar event of systemd"),
        ("backup: {name: Main}", "backup.name: String should match pattern"),
        (
            "backup: {folder: /a, s3: {endpoint: 'a:1', region: r, bucket: b}}",
            "backup: one place, not several (folder, s3)",
        ),
        (
            "backup: {sftp: {address: 'a:1', user: u, path: /p, host_keys: [AAAA]}}",
            "backup.sftp.host_keys.0: must be a public key such as `ssh-ed25519 AAAA...`",
        ),
        (
            "backup: {mode: deployed}\npostgresql: {mode: off}",
            "backup: `mode: deployed` belongs to `postgresql: {mode: deployed}`",
        ),
        ("redis: {mode: existing, existing: {address: a}}", "redis.existing.address: must be `host:port`"),
        ("redis: {mode: existing, existing: {address: 'a:70000'}}", "must be `host:port`"),
        (
            "prometheus: {mode: existing}",
            "prometheus: `existing: {address: host:port}` belongs to `mode: existing`",
        ),
        ("grafana: {mode: existing}", "grafana: `mode: existing` needs its `url`"),
        (
            "postgresql: {mode: existing, existing: {address: 'a:1', sslmode: allow}}",
            "postgresql.existing.sslmode: Input should be 'prefer', 'require' or 'verify-full' (given: 'allow')",
        ),
        (
            "postgresql: {mode: existing, existing: {address: 'a:1', ca: /ca.pem}}",
            "postgresql.existing: `ca` belongs to `sslmode: verify-full`",
        ),
        ("redis: {mode: existing, existing: {}}", "redis.existing.address: Field required"),
        ("prometheus: {retention_time: ninety days}", "prometheus.retention_time: must be a duration"),
        ("prometheus: {retention_time: 1ms}", "prometheus.retention_time: must be at least `2h` (given: '1ms')"),
        ("alertmanager: {email: {smarthost: 'mail:25'}}", "alertmanager.email.sender: Field required"),
        (
            "alertmanager: {email: {smarthost: 'm:25', sender: a@b, recipients: [nobody]}}",
            "alertmanager.email.recipients.0: must be a mail address such as `operator@example.com`",
        ),
        (
            "alertmanager: {email: {smarthost: 'm:25', sender: a@b, recipients: []}}",
            "alertmanager.email.recipients: List should have at least 1 item",
        ),
        ("grafana: {url: 'https://exa mple'}", "grafana.url: must be an address such as `https://"),
        ("grafana: {url: grafana.example.com}", "grafana.url: must be an address such as `https://"),
        ("thresholds: {slow_queries_per_hour: .inf}", "thresholds.slow_queries_per_hour: Input should be a finite"),
        ("thresholds: {endpoint_limits: {/a: many}}", "thresholds.endpoint_limits./a: Input should be a valid number"),
        (
            "timing: {interval_factor: 1, window_factor: 0.1}",
            "no rule window may be shorter than four scrape intervals",
        ),
        ("mailbox: 1", "mailbox: Input should be a valid boolean (given: 1)"),
        ("- redis", "settings: Input should be a valid dictionary"),
        ("redis: {", "not valid YAML: while parsing a flow"),
        ("redis: {memory: 1GB}\nredis: {mode: 'off'}", "not valid YAML: `redis` comes twice"),
        ("redis:\n  memory: 1GB\n  memory: 2GB", "line 3, column 3"),
    ],
)
def test_wrong_setting_is_named_with_what_would_be_right(tmp_path: Path, text: str, words: str) -> None:
    """File, setting and given value are in the message, and an example or the alternatives."""
    assert words in _refusal(tmp_path, text)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """One line each, each with the file."""
    words = _refusal(tmp_path, "redis: {memory: x}\ngrafana: {url: y}\nmail: true")
    assert [line.split(": ")[-3 if "given" in line else 0] != "" for line in words.splitlines()] == [True] * 3
    assert words.count("settings.yml: ") == 2


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A folder, and bytes that are no text."""
    with pytest.raises(SettingsError, match=f"{tmp_path}: cannot be read"):
        load(tmp_path)
    (tmp_path / "binary.yml").write_bytes(b"mailbox: \xff\xfe")
    with pytest.raises(SettingsError, match=r"binary\.yml: cannot be read"):
        load(tmp_path / "binary.yml")


def test_no_braces_no_defaults(tmp_path: Path) -> None:
    """A file that lost its content would take away what it asked for; who means the defaults says so."""
    path = tmp_path / "settings.yml"
    for text in ("", "# nothing yet"):
        path.write_text(text)
        with pytest.raises(SettingsError, match=r"settings\.yml: holds no setting; write `{}`"):
            load(path)
    path.write_text("{}")
    assert load(path) == load(tmp_path / "none.yml") == Settings()


@pytest.mark.parametrize("section", ["postgresql", "redis", "prometheus", "alertmanager", "grafana", "erp", "tasks"])
def test_off_needs_no_quotes(tmp_path: Path, section: str) -> None:
    """YAML 1.1 reads a bare `off` as false; it means `off` all the same."""
    path = tmp_path / "settings.yml"
    path.write_text(f"{section}: {{mode: off}}")
    assert getattr(load(path), section).mode == "off"


@pytest.mark.parametrize(
    ("text", "value"), [("250ms", 0.25), ("15s", 15), ("5m", 300), ("12h", 43200), ("90d", 7776000), ("1w", 604800)]
)
def test_durations(text: str, value: float) -> None:
    """In seconds."""
    assert seconds(text) == value


@pytest.mark.parametrize(("text", "value"), [("512MB", 536870912), ("8GB", 8589934592), ("1TB", 1099511627776)])
def test_sizes(text: str, value: int) -> None:
    """In powers of 1024, as PostgreSQL, Prometheus and Redis read them."""
    assert size_bytes(text) == value


def test_trailing_slash_of_an_address_is_dropped(tmp_path: Path) -> None:
    """So that links made of it have one slash."""
    path = tmp_path / "settings.yml"
    path.write_text("grafana: {url: 'https://grafana.example.com/erp/'}")
    assert load(path).grafana.url == "https://grafana.example.com/erp"


def test_comment_of_a_host_key_is_dropped(tmp_path: Path) -> None:
    """As is a trailing slash; both would end in a file of known hosts or in a path."""
    path = tmp_path / "settings.yml"
    keys = "['ssh-ed25519 AAAAC3NzaC1l/+= root@nas', 'ecdsa-sha2-nistp256 AAAAE2Vj']"
    path.write_text(f"backup: {{sftp: {{address: 'nas:22', user: erp, path: /backup/, host_keys: {keys}}}}}")
    sftp = load(path).backup.sftp
    assert sftp is not None
    assert (sftp.path, sftp.host_keys) == ("/backup", ["ssh-ed25519 AAAAC3NzaC1l/+=", "ecdsa-sha2-nistp256 AAAAE2Vj"])


@pytest.mark.parametrize("name", ["lab", "local", "production.example"])
def test_settings_that_we_ship_are_right(name: str) -> None:
    """They load."""
    assert load(ROOT / f"inventories/{name}.yml") != Settings()


def test_reference_is_what_the_settings_say() -> None:
    """docs/settings.md has not drifted, and every setting has a meaning."""
    check = [sys.executable, "-m", "settings.reference", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in reference.TARGET.read_text().splitlines() if line.startswith("| `")]
    assert "| `redis.memory` | size | `512MB` | Redis refuses writes above this; nothing is evicted. |" in rows
    assert "| `tasks.concurrency` | whole number from 1 to 64 | `2` | Tasks at once on each worker host. |" in rows
    assert [row for row in rows if row.rsplit("|", 2)[1].strip() == ""] == []


def test_reference_that_drifted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check` ends with the command that helps; without it the page is written."""
    monkeypatch.setattr(reference, "TARGET", tmp_path / "settings.md")
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    with pytest.raises(SystemExit, match=r"run: python -m settings\.reference"):
        reference.main()
    monkeypatch.setattr(sys, "argv", ["reference"])
    reference.main()
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    reference.main()
    (tmp_path / "settings.md").write_text("old")
    with pytest.raises(SystemExit):
        reference.main()
