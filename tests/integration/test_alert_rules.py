"""A real Alertmanager sends our messages to a mailbox and to chat addresses that the test plays."""

import email
import email.policy
import html
import http.server
import json
import re
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

import alert_rules
from alert_rules import alertmanager, runbook
from alert_rules.alertmanager import Email, Slack, Teams
from tests.integration.conftest import PostgresServer, free_port, wait_until

GRAFANA = "http://grafana.example.com:3000"


class Mailbox(socketserver.ThreadingTCPServer):
    """An SMTP server (RFC 5321, what is needed of it) that keeps what it gets."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        super().__init__(("127.0.0.1", 0), _Smtp)

    def about(self, alert: str, status: str) -> list[EmailMessage]:
        """Messages of one alert and status."""
        return [
            message
            for message in self.messages
            if (message["X-Messwarte-Alert"], message["X-Messwarte-Status"]) == (alert, status)
        ]


class _Smtp(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self.wfile.write(b"220 mailbox\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                content = b"".join(part.removeprefix(b".") for part in lines)
                self.server.messages.append(email.message_from_bytes(content, policy=email.policy.default))
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return


class Chat(http.server.ThreadingHTTPServer):
    """Takes what is posted to it, by path."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Post)


class _Post(http.server.BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        """Keep the body."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append((self.path, body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mailbox that listens."""
    with Mailbox() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def chat() -> Iterator[Chat]:
    """A chat that listens."""
    with Chat() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Alertmanager:
    """An Alertmanager with our configuration, on loopback."""

    def __init__(self, program: str, directory: Path, files: dict[str, str]) -> None:
        for path, text in files.items():
            (directory / path).parent.mkdir(exist_ok=True)
            (directory / path).write_text(text)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    f"--config.file={directory / 'alertmanager.yml'}",
                    f"--storage.path={directory / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    "--cluster.listen-address=",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._ready, f"Alertmanager is ready: {self.log.read_text()[-2000:]}")

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").is_success
        except httpx.TransportError:
            return False

    def post(self, *alerts: dict[str, Any]) -> None:
        """Send alerts as Prometheus does."""
        httpx.post(f"{self.url}/api/v2/alerts", json=alerts).raise_for_status()


@pytest.fixture
def run_alertmanager(need_program: Callable[[str, str], str], tmp_path: Path) -> Iterator[Callable[..., Alertmanager]]:
    """A function that starts Alertmanager with what `render` makes of its arguments, by default a hundredfold fast."""
    program = need_program("prometheus-alertmanager", "prometheus-alertmanager")
    started: list[Alertmanager] = []

    def start(interval_factor: float = 0.01, **receivers: Any) -> Alertmanager:
        if receivers.get("teams") and _version(program) < (0, 28):
            pytest.skip(f"{program} is older than 0.28 and knows no msteamsv2")
        files = alertmanager.render(interval_factor=interval_factor, credentials=str(tmp_path), **receivers)
        started.append(Alertmanager(program, tmp_path, files))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
        one.process.wait(10)


def _version(program: str) -> tuple[int, int]:
    run = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    major, minor = re.findall(r"version (\d+)\.(\d+)", run.stdout + run.stderr)[0]
    return int(major), int(minor)


def _alert(name: str, severity: str, ends: float | None = None, **labels: str) -> dict[str, Any]:
    now = time.time()
    return {
        "labels": {"alertname": name, "severity": severity, **labels},
        "annotations": {
            "summary": "What happened",
            "description": "It <b>happened</b> & hurts.",
            "panel": "/d/erp-overview?viewPanel=panel-7&var-query_name=a%3Cb%2Bc",
        },
        "startsAt": _iso(now - 60),
        "endsAt": _iso(now + 3600 if ends is None else ends),
    }


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content())


def _email(mailbox: Mailbox) -> Email:
    return Email(f"127.0.0.1:{mailbox.server_address[1]}", "m@example.com", ["a@example.com", "b@example.com"], False)


def test_mail_with_grafana_leads_to_the_panel(run_alertmanager: Callable[..., Alertmanager], mailbox: Mailbox) -> None:
    manager = run_alertmanager(email=_email(mailbox), grafana_url=GRAFANA)
    manager.post(_alert("ErpSlowQuery", "warning", query_name="a<b+c"))
    wait_until(lambda: bool(mailbox.about("ErpSlowQuery", "firing")), "the mail arrives")
    (message,) = mailbox.about("ErpSlowQuery", "firing")
    assert message["Subject"] == "[WARNING] ErpSlowQuery: What happened"
    assert message["To"] == "a@example.com, b@example.com"
    plain, rich = _part(message, "plain"), _part(message, "html")
    assert "It <b>happened</b> & hurts." in plain
    assert "It &lt;b&gt;happened&lt;/b&gt; &amp; hurts." in rich, "what alerts carry is escaped"
    (link,) = re.findall(r"Panel: (\S+)", plain)
    assert link.startswith(f"{GRAFANA}/d/erp-overview?viewPanel=panel-7&var-query_name=a%3Cb%2Bc&from=")
    assert html.unescape(re.findall(r'<a href="([^"]+)"', rich)[0]) == link
    assert runbook.plain(alert_rules.runbooks()["ErpSlowQuery"]).splitlines()[-1] in plain

    manager.post(_alert("ErpSlowQuery", "warning", ends=time.time() - 1, query_name="a<b+c"))
    wait_until(lambda: bool(mailbox.about("ErpSlowQuery", "resolved")), "the mail about its end arrives")
    (message,) = mailbox.about("ErpSlowQuery", "resolved")
    assert message["Subject"] == "[RESOLVED] ErpSlowQuery: What happened"
    assert "What to do" not in _part(message, "plain")
    assert "Error on notify" not in manager.log.read_text()


def test_mail_without_grafana_holds_the_runbook_and_no_link(
    run_alertmanager: Callable[..., Alertmanager], mailbox: Mailbox
) -> None:
    manager = run_alertmanager(email=_email(mailbox))
    names = sorted(alert_rules.runbooks())
    manager.post(*(_alert(name, "warning") for name in names))
    for name in names:
        wait_until(lambda n=name: bool(mailbox.about(n, "firing")), f"the mail about {name} arrives")  # type: ignore[misc]
        (message,) = mailbox.about(name, "firing")
        plain = _part(message, "plain")
        assert runbook.plain(alert_rules.runbooks()[name]) in plain.replace("\r\n", "\n")
        text = plain + _part(message, "html")
        assert not re.search(r"https?://|href=", text)


def test_heartbeat_repeats(run_alertmanager: Callable[..., Alertmanager], mailbox: Mailbox) -> None:
    # An hour becomes 3.6 s.
    manager = run_alertmanager(email=_email(mailbox), interval_factor=0.001)
    manager.post(_alert("DeadMansSwitch", "none"))
    wait_until(lambda: len(mailbox.about("DeadMansSwitch", "firing")) >= 3, "it is repeated")
    assert {message["Subject"] for message in mailbox.messages} == {"[OK] DeadMansSwitch: What happened"}


def test_chats_get_their_own_markup(run_alertmanager: Callable[..., Alertmanager], chat: Chat, tmp_path: Path) -> None:
    base = f"http://127.0.0.1:{chat.server_address[1]}"
    (tmp_path / "teams_webhook_url").write_text(f"{base}/teams")
    (tmp_path / "slack_api_url").write_text(f"{base}/slack")
    manager = run_alertmanager(teams=Teams(), slack=Slack("#erp"), grafana_url=GRAFANA)
    manager.post(_alert("ErpManySlowQueries", "critical"))
    wait_until(lambda: len(chat.posts) == 2, "both chats get it")
    posts = dict(chat.posts)
    (attachment,) = posts["/slack"]["attachments"]
    assert attachment["title"] == "[CRITICAL] ErpManySlowQueries: What happened"
    assert "It &lt;b&gt;happened&lt;/b&gt; &amp; hurts." in attachment["text"]
    assert attachment["title_link"].startswith(f"{GRAFANA}/d/erp-overview?viewPanel=panel-7&")
    card = json.dumps(posts["/teams"])
    assert f"[Open the panel]({GRAFANA}/d/erp-overview?viewPanel=panel-7&" in card
    assert "Mitigation" in card, "without e-mail, the chat holds the runbook"
    assert len(card) < 28_000


def test_sql_of_runbooks_runs(postgres: PostgresServer, database: str) -> None:
    """On a server as ours are: pg_stat_statements loaded; as somebody with pg_monitor's rights."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute("SET ROLE pg_monitor")
        found = 0
        for markdown in alert_rules.runbooks().values():
            for sql in re.findall(r"^```sql\n(.*?)^```$", markdown, flags=re.MULTILINE | re.DOTALL):
                connection.execute(sql.encode())
                found += 1
    assert found >= 5, postgres.directory
