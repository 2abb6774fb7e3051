"""An existing Grafana gets our dashboards through its HTTP API, in a folder of their own."""

import json
import ssl
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

import dashboards
from attach import AttachError

FOLDER = {"uid": "messwarte", "title": "Messwarte"}
# The message of a saved version: whoever saves by hand leaves another one.
_MESSAGE = "messwarte attach grafana"
_OURS = "prometheus"


class Grafana:
    """A Grafana by its address and the token of a service account. Raises AttachError for whatever it refuses."""

    def __init__(self, url: str, token: str) -> None:
        if not token.isascii() or not token.isprintable() or " " in token:
            raise AttachError("the token must be one word, such as glsa_...")
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(),
            timeout=20,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def version(self) -> str:
        """Grafana's version."""
        return str(self._call("GET", "/api/health")["version"])

    def source(self, uid: str | None) -> dict[str, Any]:
        """Return name and uid of the Prometheus data source to ask: the one that is named, or the only one."""
        # What Grafana's own pages ask; the list of /api/datasources is empty for those who are no administrators.
        known = self._call("GET", "/api/frontend/settings")["datasources"].values()
        found = [one for one in known if one["type"] == "prometheus"]
        chosen = [one for one in found if uid in {None, one["uid"]}]
        if len(chosen) == 1:
            self._must_answer(chosen[0])
            return dict(chosen[0])
        names = ", ".join(f"{one['uid']} ({one['name']})" for one in found)
        if not found:
            raise AttachError("it has no data source of type Prometheus; add the one that measures the ERP")
        raise AttachError(
            f"--datasource: there is no Prometheus data source `{uid}`; there are: {names}"
            if uid
            else f"it has several Prometheus data sources; name one with --datasource UID: {names}"
        )

    def bring(self, source: dict[str, Any], *, overwrite: bool) -> list[str]:
        """Create or update folder and dashboards; return what was done. What was changed by hand is not replaced."""
        wanted = {one["uid"]: one for one in map(json.loads, dashboards.build().values())}
        for dashboard in wanted.values():
            _ask(dashboard, source)
        stored = {uid: self._stored(uid) for uid in wanted}
        stale = [uid for uid, one in wanted.items() if stored[uid] != one]
        self._refuse_strange(stale, overwrite=overwrite)
        done = []
        if self._find(f"/api/folders/{FOLDER['uid']}") is None:
            self._call("POST", "/api/folders", FOLDER)
            done.append(f"made folder {FOLDER['title']}")
        for uid in stale:
            body = {"dashboard": wanted[uid], "folderUid": FOLDER["uid"], "message": _MESSAGE}
            # One that the token may not even see must not be overwritten.
            self._call("POST", "/api/dashboards/db", body | {"overwrite": stored[uid] is not None})
            done.append(f"brought {wanted[uid]['title']}: {self.url}/d/{uid}")
        return done

    def remove(self, *, overwrite: bool) -> list[str]:
        """Take our dashboards away, and our folder when it is empty then; return what was done."""
        found = {uid: self._find(f"/api/dashboards/uid/{uid}") for uid in _uids()}
        # One of our name that lies elsewhere is not ours.
        present = [uid for uid, one in found.items() if one and one["meta"].get("folderUid") == FOLDER["uid"]]
        self._refuse_strange(present, overwrite=overwrite)
        for uid in present:
            self._call("DELETE", f"/api/dashboards/uid/{uid}")
        done = [f"removed dashboard {uid}" for uid in present]
        if self._find(f"/api/folders/{FOLDER['uid']}") is None:
            return done
        if self._call("GET", f"/api/search?folderUIDs={FOLDER['uid']}"):
            return [*done, f"folder {FOLDER['title']} stays: it holds dashboards of others"]
        self._call("DELETE", f"/api/folders/{FOLDER['uid']}")
        return [*done, f"removed folder {FOLDER['title']}"]

    def _refuse_strange(self, uids: list[str], *, overwrite: bool) -> None:
        """Raise AttachError, before anything is written, for what is not ours or was changed by hand."""
        for uid in uids:
            found = self._find(f"/api/dashboards/uid/{uid}")
            if found is None:
                continue
            if found["meta"].get("folderUid") != FOLDER["uid"]:
                raise AttachError(
                    f"a dashboard `{uid}` is outside of folder {FOLDER['title']} and stays as it is: move it"
                )
            if not overwrite and self._changed_by_hand(uid):
                raise AttachError(
                    f"dashboard `{uid}` was changed by hand (by {found['meta'].get('updatedBy', 'somebody')}); "
                    "save a copy under another name, then use --overwrite"
                )

    def _must_answer(self, source: dict[str, Any]) -> None:
        query = {"refId": "A", "expr": "vector(1)", "instant": True, "datasource": {"uid": source["uid"]}}
        body = {"queries": [query], "from": "now-1m", "to": "now"}
        try:
            self._call("POST", "/api/ds/query", body)
        except AttachError as error:
            raise AttachError(f"data source {source['name']} does not answer: {error}") from None

    def _stored(self, uid: str) -> Any:
        """Return a dashboard as Grafana has it, without what it adds itself; None when there is no such dashboard."""
        found = self._find(f"/api/dashboards/uid/{uid}")
        return found and {key: value for key, value in found["dashboard"].items() if key not in {"id", "version"}}

    def _changed_by_hand(self, uid: str) -> bool:
        # The first version has a message of Grafana's own, whoever saved it.
        (last,) = self._call("GET", f"/api/dashboards/uid/{uid}/versions?limit=1")["versions"]
        return bool(last["version"] != 1 and last["message"] != _MESSAGE)

    def _find(self, path: str) -> Any:
        """Return what is at a path, or None when nothing is there."""
        return self._call("GET", path, absent=True)

    def _call(self, method: str, path: str, body: Any = None, *, absent: bool = False) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise AttachError(f"{self.url} does not answer: {error or type(error).__name__}") from error
        # To an editor, what does not exist is forbidden; writing to what exists and may not be seen fails by itself.
        if absent and answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN}:
            return None
        if answer.is_success:
            try:
                return answer.json()
            except ValueError:
                raise AttachError(f"{self.url}{path} does not answer as Grafana does") from None
        advice = {
            httpx.codes.UNAUTHORIZED: "the token is wrong or has ended",
            httpx.codes.PRECONDITION_FAILED: "somebody else's dashboard has this uid and stays as it is",
            httpx.codes.FORBIDDEN: "the token's service account may not do this",
        }
        said = advice.get(answer.status_code, f"status {answer.status_code}")  # type: ignore[call-overload]
        raise AttachError(f"{method} {self.url}{path}: {said}: {answer.text.strip()[:300]}")


def check_url(url: str, *, plain_http: bool) -> None:
    """Raise AttachError for an address to which no token may be sent."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise AttachError("URL must be an address such as `https://grafana.example.com`, without user or password")
    if parts.scheme == "http" and not plain_http and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise AttachError(
            f"{url}: the token would cross the network unencrypted; use its https address, or say --plain-http"
        )


def _uids() -> list[str]:
    return [json.loads(text)["uid"] for text in dashboards.build().values()]


def _ask(dashboard: dict[str, Any], source: dict[str, Any]) -> None:
    """Let a dashboard's variable lead to a data source."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "datasource" and variable["current"]["value"] == _OURS:
            variable["current"] = {"text": source["name"], "value": source["uid"]}
