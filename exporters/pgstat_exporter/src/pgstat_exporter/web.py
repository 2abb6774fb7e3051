"""HTTP: /metrics with the scraper's own deadline, a health check, and a landing page."""

import gzip
import socket
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.metrics_core import Metric as Family

from pgstat_exporter import __version__
from pgstat_exporter.scrape import Exporter

_PAGE = f"""<!doctype html><html lang="en"><title>pgstat_exporter</title>
<h1>pgstat_exporter {__version__}</h1><p>PostgreSQL's statistics for Prometheus: <a href="/metrics">metrics</a>,
<a href="/-/healthy">health of this process</a>.</p></html>
"""
# Longer than usual scrape intervals, so that scrapers keep their connection.
_IDLE_SECONDS = 120


def answer_within(header: str | None, default: float) -> float:
    """Return the seconds there are for an answer: the scraper's timeout less a margin for the way back."""
    try:
        timeout = float(header) if header else default
    except ValueError:
        timeout = default
    if not 0 < timeout < 3600:  # not a number, infinite or absurd
        timeout = default
    return timeout - min(0.5, timeout / 10)


class _Answer:
    """Families as the object that prometheus_client's encoders want."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


class Server(ThreadingHTTPServer):
    """Serves an exporter; `timeout` is what a scraper has that sends none, in seconds."""

    daemon_threads = True
    # A burst of scrapers waits instead of being refused.
    request_queue_size = 128

    def __init__(self, listen: str, port: int, exporter: Exporter, timeout: float) -> None:
        self.address_family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        self.exporter = exporter
        self.scrape_timeout = timeout
        self.process = CollectorRegistry()
        ProcessCollector(registry=self.process)
        super().__init__((listen, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a scraper that goes away is no fault of this process."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"pgstat_exporter/{__version__}"
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/-/healthy":
            self._send(HTTPStatus.OK, "text/plain; charset=utf-8", b"pgstat_exporter is running.\n")
        elif path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", _PAGE.encode())
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There is /metrics.\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _metrics(self) -> None:
        header = self.headers.get("X-Prometheus-Scrape-Timeout-Seconds")
        families = self.server.exporter.scrape(answer_within(header, self.server.scrape_timeout))
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(_Answer([*families, *self.server.process.collect()]))
        self._send(HTTPStatus.OK, content_type, body)

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Vary", "Accept-Encoding")
        if gzip_accepted(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a line per scrape would bury the others."""
