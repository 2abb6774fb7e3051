"""What a viewer gets from Grafana, over its HTTP API."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx


class Grafana:
    """Grafana as a viewer sees it."""

    def __init__(self, client: httpx.Client) -> None:
        """Take a client that logs in as a viewer; nothing is asked yet."""
        self._client = client

    def samples(self, expression: str) -> int:
        """Return how many values the data source gives for an expression over the last 15 minutes."""
        query = {
            "refId": "A",
            "expr": expression,
            "datasource": {"type": "prometheus", "uid": "prometheus"},
            "intervalMs": 15000,
            "maxDataPoints": 500,
            "range": True,
        }
        body = {"queries": [query], "from": "now-15m", "to": "now"}
        answer = self._client.post("/api/ds/query", json=body)
        answer.raise_for_status()
        frames = answer.json()["results"]["A"].get("frames", [])
        columns = [column for frame in frames for column in frame["data"]["values"][1:]]
        return sum(value is not None for column in columns for value in column)

    def dead_links(self, links: set[str]) -> list[str]:
        """Return the links that do not lead to a panel of a dashboard."""
        return [link for link in sorted(links) if not self._is_panel(link)]

    def _is_panel(self, link: str) -> bool:
        if not self._client.get(link, follow_redirects=True).is_success:
            return False
        parts = urlsplit(link)
        uid = parts.path.removeprefix("/d/").split("/")[0]
        answer = self._client.get(f"/api/dashboards/uid/{uid}")
        panels: list[dict[str, Any]] = answer.json()["dashboard"]["panels"] if answer.is_success else []
        return parse_qs(parts.query).get("viewPanel", [""])[0] in {f"panel-{panel['id']}" for panel in panels}
