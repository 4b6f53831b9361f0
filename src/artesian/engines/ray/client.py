"""Ray's dashboard over HTTP: the Jobs REST interface, and the list of nodes. It blocks: call it in a thread."""

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from artesian.engines.ray.settings import RaySettings
from artesian.engines.watching import Refused, Unreachable

_TIMEOUT_S = 20.0
_MOST_NODES = 10_000
"""Ray lists no more than that in one answer."""
_TEXT_BYTES = 2000
_MAY_PASS = (
    http.client.UNAUTHORIZED,
    http.client.FORBIDDEN,
    http.client.REQUEST_TIMEOUT,
    http.client.TOO_MANY_REQUESTS,
)
"""Refusals that a new token, or time, may mend: no job must fail for them."""
_OVER = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RayJob:
    """What Ray says of a job. ``exit_code`` is its driver's own, negative for a signal."""

    submission_id: str
    status: str
    message: str = ""
    exit_code: int | None = None

    @property
    def is_pending(self) -> bool:
        """Whether its driver has no place yet."""
        return self.status == "PENDING"

    @property
    def is_over(self) -> bool:
        """Whether its driver runs no more."""
        return self.status in _OVER


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """A raylet that is alive: its id in Ray, and what it offers."""

    ray_id: str
    name: str
    address: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]


class RayClient:
    """Asks one dashboard. All methods raise Unreachable and Refused."""

    def __init__(self, settings: RaySettings) -> None:
        self._url = urlsplit(settings.address)
        self._token_file = settings.token_file

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        env: Mapping[str, str],
        metadata: Mapping[str, str],
        place: Mapping[str, Any] | None = None,
    ) -> None:
        """Submit a job; one that is there already stays as it is. ``place``: where its entrypoint runs, and on what.

        All of it can be read by everybody who sees the dashboard: it must hold no secret.
        """
        body = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": {"env_vars": dict(env)},
            "metadata": dict(metadata),
            **(place or {}),
        }
        try:
            self._call("POST", "/api/jobs/", body)
        except Unreachable:
            if self.job(submission_id) is None:
                raise

    def job(self, submission_id: str) -> RayJob | None:
        """Return a job; None where Ray does not know it."""
        said = self._call("GET", f"/api/jobs/{quote(submission_id, safe='')}", may_be_absent=True)
        return None if said is None else _job(said)

    def jobs(self) -> dict[str, RayJob]:
        """Return all jobs that were submitted through this interface, by their submission ids."""
        said = self._call("GET", "/api/jobs/")
        return {job.submission_id: job for job in map(_job, said) if job.submission_id}

    def stop(self, submission_id: str) -> None:
        """Send the driver SIGTERM, and SIGKILL when the time that it was submitted with is over."""
        self._call("POST", f"/api/jobs/{quote(submission_id, safe='')}/stop", may_be_absent=True)

    def delete(self, submission_id: str) -> None:
        """Have Ray forget a job that is over."""
        self._call("DELETE", f"/api/jobs/{quote(submission_id, safe='')}", may_be_absent=True)

    def nodes(self) -> list[RayNode]:
        """Return the nodes that are alive."""
        said = self._call("GET", f"/api/v0/nodes?limit={_MOST_NODES}&detail=false")
        try:
            entries: Sequence[Mapping[str, Any]] = said["data"]["result"]["result"]
            return [
                RayNode(
                    ray_id=entry["node_id"],
                    name=entry["node_name"] or entry["node_ip"],
                    address=entry["node_ip"],
                    resources=entry["resources_total"] or {},
                    labels=entry.get("labels") or {},
                )
                for entry in entries
                if entry["state"] == "ALIVE"
            ]
        except (KeyError, TypeError) as error:
            raise Unreachable(f"Ray lists its nodes in a form that is not known: {error!r}") from error

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, may_be_absent: bool = False
    ) -> Any:
        secure = self._url.scheme == "https"
        make = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = make(self._url.hostname or "", self._url.port, timeout=_TIMEOUT_S)
        try:
            connection.request(
                method,
                self._url.path + path,
                None if body is None else json.dumps(body),
                {"Content-Type": "application/json", **self._authorization()},
            )
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"Ray at {self._url.netloc}: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND and may_be_absent:
            return None
        if answer.status >= http.client.BAD_REQUEST:
            said = f"Ray at {self._url.netloc}: {answer.status} {_last_line(text)}"
            may_pass = answer.status in _MAY_PASS or answer.status >= http.client.INTERNAL_SERVER_ERROR
            raise (Unreachable if may_pass else Refused)(said)
        try:
            return json.loads(text)
        except ValueError as error:
            raise Unreachable(f"Ray at {self._url.netloc}: expected JSON, got {text[:80]!r}") from error

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        return {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}


def _job(said: Mapping[str, Any]) -> RayJob:
    return RayJob(
        submission_id=said.get("submission_id") or "",
        status=said["status"],
        message=said.get("message") or "",
        exit_code=said.get("driver_exit_code"),
    )


def _last_line(text: bytes) -> str:
    lines = text[-_TEXT_BYTES:].decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
