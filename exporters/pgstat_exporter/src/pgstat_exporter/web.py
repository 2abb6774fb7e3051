"""HTTP: /metrics and /probe with the scraper's own deadline, health and readiness, and a landing page."""

import html
import socket
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import gzip_accepted

from pgstat_exporter import __version__, packing
from pgstat_exporter.exposition import CONTENT_TYPE
from pgstat_exporter.scrape import Exporter
from pgstat_exporter.web_config import Doorkeeper

_TEXT, _HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
# Longer than usual scrape intervals, so that scrapers keep their connection.
_IDLE_SECONDS = 120
_HANDSHAKE_SECONDS = 10
_READY_SECONDS = 2.0


class Exporters(Protocol):
    """The servers that are measured, at this moment."""

    own: Exporter | None
    targets: dict[str, Exporter]
    scrape_timeout: float


def answer_within(header: str | None, default: float) -> float:
    """Return the seconds there are for an answer: the scraper's timeout less a margin for the way back."""
    try:
        timeout = float(header) if header else default
    except ValueError:
        timeout = default
    if not 0 < timeout < 3600:  # not a number, infinite or absurd
        timeout = default
    return timeout - min(0.5, timeout / 10)


class Server(ThreadingHTTPServer):
    """Answers for exporters, to whom the doorkeeper lets in."""

    daemon_threads = True
    # A burst of scrapers waits instead of being refused.
    request_queue_size = 128

    def __init__(self, listen: str, port: int, exporters: Exporters, doorkeeper: Doorkeeper) -> None:
        self.address_family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        self.exporters = exporters
        self.doorkeeper = doorkeeper
        self.process = CollectorRegistry()
        ProcessCollector(registry=self.process)
        super().__init__((listen, port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer on one connection; in its own thread, so that a slow handshake holds nobody up."""
        context = self.doorkeeper.tls()
        if context:
            request.settimeout(_HANDSHAKE_SECONDS)
            request = context.wrap_socket(request, server_side=True)
        try:
            super().finish_request(request, client_address)
        finally:
            if context:
                # The plain socket that the base class will close has handed its descriptor over.
                request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a scraper that goes away is no fault of this process."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"pgstat_exporter/{__version__}"
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not self.server.doorkeeper.lets_in(self.headers.get("Authorization")):
            self._text(HTTPStatus.UNAUTHORIZED, "a user and a password are wanted", "Basic")
            return
        match url.path:
            case "/metrics":
                self._metrics(self.server.exporters.own, "there is no dsn in the configuration; ask /probe?target=NAME")
            case "/probe":
                self._probe(parse_qs(url.query).get("target", []))
            case "/-/healthy":
                self._text(HTTPStatus.OK, "pgstat_exporter is running.")
            case "/-/ready":
                self._ready()
            case "/":
                self._send(HTTPStatus.OK, _HTML, self._page().encode())
            case _:
                self._text(HTTPStatus.NOT_FOUND, "There are /metrics, /probe, /-/healthy and /-/ready.")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _probe(self, names: Sequence[str]) -> None:
        targets = self.server.exporters.targets
        known = f"targets of the configuration: {', '.join(sorted(targets)) or 'none'}"
        if len(names) != 1:
            self._text(HTTPStatus.BAD_REQUEST, f"Ask for one target: /probe?target=NAME; {known}")
        else:
            self._metrics(targets.get(names[0]), f"no such target; {known}")

    def _metrics(self, exporter: Exporter | None, otherwise: str) -> None:
        if exporter is None:
            self._text(HTTPStatus.NOT_FOUND, otherwise)
            return
        header = self.headers.get("X-Prometheus-Scrape-Timeout-Seconds")
        parts = exporter.scrape(answer_within(header, self.server.exporters.scrape_timeout))
        process = generate_latest(self.server.process)
        if gzip_accepted(self.headers.get("Accept-Encoding", "")):
            pieces = [*(part.packed() for part in parts), packing.pack(process.decode())]
            body = packing.gzipped(packing.join(pieces))
            self._send(HTTPStatus.OK, CONTENT_TYPE, body, "gzip")
        else:
            self._send(HTTPStatus.OK, CONTENT_TYPE, b"".join((*(part.plain for part in parts), process)))

    def _ready(self) -> None:
        exporters = [one for one in (self.server.exporters.own, *self.server.exporters.targets.values()) if one]
        if any(one.ready(_READY_SECONDS) for one in exporters):
            self._text(HTTPStatus.OK, "pgstat_exporter is ready.")
        else:
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, "no database answers")

    def _page(self) -> str:
        targets = "".join(
            f'<li><a href="/probe?target={html.escape(name)}">{html.escape(name)}</a>'
            for name in sorted(self.server.exporters.targets)
        )
        own = '<li><a href="/metrics">metrics</a>' if self.server.exporters.own else ""
        return (
            f'<!doctype html><html lang="en"><title>pgstat_exporter</title><h1>pgstat_exporter {__version__}</h1>'
            f"<p>PostgreSQL's statistics for Prometheus.<ul>{own}{targets}"
            '<li><a href="/-/healthy">health of this process</a>'
            '<li><a href="/-/ready">whether a database answers</a></ul></html>\n'
        )

    def _text(self, status: HTTPStatus, text: str, challenge: str = "") -> None:
        self._send(status, _TEXT, f"{text}\n".encode(), challenge=challenge)

    def _send(
        self, status: HTTPStatus, content_type: str, body: bytes, encoding: str = "", challenge: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Vary", "Accept-Encoding")
        if encoding:
            self.send_header("Content-Encoding", encoding)
        for name, value in self.server.doorkeeper.headers().items():
            self.send_header(name, value)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a line per scrape would bury the others."""
