"""What Prometheus says, over its HTTP API."""

import math
from typing import Any

import httpx


class Prometheus:
    """A Prometheus server."""

    def __init__(self, client: httpx.Client) -> None:
        """Take a client of it; nothing is asked yet."""
        self._client = client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query, those that are no number left out. Raises httpx.HTTPError."""
        answer = self._get("/api/v1/query", query=expression)
        if answer["resultType"] == "scalar":
            return [{"metric": {}, "value": answer["result"]}]
        return [sample for sample in answer["result"] if not math.isnan(float(sample["value"][1]))]

    def value(self, expression: str) -> float:
        """Return the value of an instant query's only sample; 0 when there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def targets(self) -> dict[str, str]:
        """Return the health of each target by `job address`: `up`, `unknown` or the scrape's error."""
        active = self._get("/api/v1/targets", state="active")["activeTargets"]
        return {
            f"{one['labels']['job']} {one['labels']['instance']}": one["lastError"] or one["health"] for one in active
        }

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now, the dead-man's switch left out."""
        found = self.query('ALERTS{alertstate="firing", alertname!="DeadMansSwitch"}')
        return {sample["metric"]["alertname"] for sample in found}

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = self._client.get(path, params=parameters)
        answer.raise_for_status()
        return dict(answer.json()["data"])
