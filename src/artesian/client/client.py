"""The client: what a server can be asked, as methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import msgspec

from artesian.client.transport import Transport
from artesian.model.ledger import Waterfall
from artesian.model.views import (
    Decision,
    Ended,
    FleetView,
    Happening,
    Held,
    JobFile,
    JobIds,
    JobList,
    JobPage,
    JobView,
    LogPage,
    MovesView,
    NewToken,
    NodePage,
    NodeView,
    Output,
    Over,
    QueueView,
    Started,
    TeamView,
    TokenView,
)

if TYPE_CHECKING:  # numpy comes with them: a tenth of a second for who only lists jobs
    from artesian.kernel.training import JobReport, TrainingSummary

_HAPPENINGS: dict[str, type[Happening]] = {
    "started": Started,
    "ended": Ended,
    "held": Held,
    "output": Output,
    "over": Over,
}
_PAGE = 1000
_SHOWN_ACTIVE, _SHOWN_OVER = 200, 10
_SUBMISSION = "application/vnd.artesian.submission+json"


class Client:
    """Asks one server. Close it, or use it in ``with``.

    ``server`` is its address, ``token`` what ``artesian token create`` printed. ``transport`` replaces the
    network, in tests. Methods raise the errors in ``client.errors``; reads and submits that were cut off are
    tried again, and a submit counts once.
    """

    is_local = False

    def __init__(
        self,
        server: str,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = Transport(server, token, timeout_s, transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- jobs ---------------------------------------------------------------------------------------

    def jobs(self, *, is_all: bool = False) -> JobList:
        """Return the jobs in the order of their submits: the latest, or all of them."""
        if is_all:
            return JobList(jobs=tuple(self.iter_jobs(order="oldest")), more=0)
        counts = self.queue().jobs
        holding = list(self._first("holding", "oldest", _SHOWN_ACTIVE))
        waiting = list(self._first("waiting", "oldest", _SHOWN_ACTIVE - len(holding)))
        over = list(self._first("over", "newest", _SHOWN_OVER))
        # What has changed its state between two answers is in both.
        shown = {job.id: job for job in (*over, *waiting, *holding)}
        found = sorted(shown.values(), key=lambda job: job.submitted_s)
        return JobList(jobs=tuple(found), more=max(0, sum(counts.values()) - len(found)))

    def _first(self, state: str, order: str, most: int) -> Iterator[JobView]:
        if most > 0:
            for number, job in enumerate(self.iter_jobs(state=state, order=order, limit=most), start=1):
                yield job
                if number == most:
                    return

    def iter_jobs(
        self,
        *,
        state: str | None = None,
        team: str | None = None,
        user: str | None = None,
        name: str | None = None,
        order: str = "newest",
        limit: int = _PAGE,
    ) -> Iterator[JobView]:
        """Yield the jobs that match, read page by page of at most ``limit``."""
        cursor: str | None = None
        while True:
            page = self._http.get(
                JobPage,
                "/jobs",
                state=state,
                team=team,
                user=user,
                name=name,
                order=order,
                limit=min(limit, _PAGE),
                cursor=cursor,
            )
            yield from page.jobs
            if (cursor := page.next) is None:
                return

    def job(self, job: str) -> JobView:
        """Return a job by its id, the beginning of it, or its name. Raises UnknownJob."""
        return self._http.get(JobView, f"/jobs/{_quoted(job)}")

    def decision(self, job: str) -> Decision:
        """Return what was last decided about a job. Raises UnknownJob."""
        return self._http.get(Decision, f"/jobs/{_quoted(job)}/why")

    def moves(self) -> MovesView:
        """Return the moves of running jobs with which waiting ones can start. Nobody is moved by that."""
        return self._http.get(MovesView, "/moves")

    def training(self, job: str) -> TrainingSummary:
        """Return what a job has trained. Raises UnknownJob."""
        from artesian.kernel.training import TrainingSummary

        return self._http.get(TrainingSummary, f"/jobs/{_quoted(job)}/training")

    def report(self, job: str) -> JobReport:
        """Return a job, what it has trained, and where the compute went meanwhile. Raises UnknownJob."""
        from artesian.kernel.goodput import Goodput
        from artesian.kernel.training import JobReport, TrainingSummary

        found = self._http.get(dict[str, Any], f"/jobs/{_quoted(job)}/report")
        return JobReport(
            job=msgspec.convert(found["job"], JobView),
            training=msgspec.convert(found["training"], TrainingSummary),
            goodput=msgspec.convert(found["goodput"], Goodput),
            waterfall=Waterfall.from_dict(found["waterfall"]),
        )

    def check(self, file: JobFile) -> None:
        """Raise JobFileError or JobImpossible where the job could not be submitted."""
        self._post_file(file, dry_run=True)

    def submit(self, file: JobFile) -> JobView:
        """Submit a job; it is durable when this returns. Raises JobFileError, JobImpossible."""
        return self._post_file(file)

    def submit_text(self, text: str, *, base_dir: str = "/", env: Mapping[str, str] | None = None) -> JobView:
        """Submit the job in the text of a job file, YAML or JSON."""
        return self.submit(JobFile(text=text, source="job", base_dir=base_dir, env=env or {}, home=None))

    def submit_many(
        self, jobs: list[dict[str, Any]], *, base_dir: str = "/", env: Mapping[str, str] | None = None
    ) -> tuple[str, ...]:
        """Submit up to 1,000 jobs, each with the keys of a job file, all or none; return their ids."""
        body = msgspec.json.encode({"jobs": jobs, "base_dir": base_dir, "env": env or {}})
        return self._http.post(JobIds, "/jobs/bulk", body=body).jobs

    def _post_file(self, file: JobFile, **query: Any) -> JobView:
        body = msgspec.json.encode(
            {
                "file": file.text,
                "source": file.source,
                "base_dir": file.base_dir,
                "env": file.env,
                "home": file.home,
            }
        )
        return self._http.post(
            JobView, "/jobs", body=body, media_type=_SUBMISSION, source=file.source, **query
        )

    def cancel(self, job: str) -> JobView:
        """Ask for a job to be stopped; return it as it was then. Raises UnknownJob, AlreadyOver."""
        return self._http.post(JobView, f"/jobs/{_quoted(job)}/cancel")

    # -- what jobs print ----------------------------------------------------------------------------

    def output(
        self, job: str, *, attempt: int | None = None, worker: int | None = None, is_err: bool = False
    ) -> Iterator[bytes]:
        """Yield what an attempt has printed so far. Raises UnknownJob, AttemptUnknown."""
        offset = 0
        while True:
            page = self._http.get(
                LogPage,
                f"/jobs/{_quoted(job)}/logs",
                attempt=attempt,
                worker=worker,
                is_err=is_err,
                offset=offset,
            )
            if page.data:
                yield page.data
            if page.is_end:
                return
            offset = page.next

    def follow(self, job: str) -> Iterator[Happening]:
        """Yield what happens to a job until it is over, and what it prints. Raises UnknownJob."""
        for name, data in self._http.events(f"/jobs/{_quoted(job)}/follow"):
            kind = _HAPPENINGS.get(name)
            if kind is None:
                continue  # a later server tells more
            happening = msgspec.json.decode(data, type=kind)
            yield happening
            if isinstance(happening, Over):
                return

    def ids(self, beginning: str) -> list[str]:
        """Return the latest ids that begin so."""
        page = self._http.get(JobPage, "/jobs", limit=_PAGE)
        return [job.id for job in page.jobs if job.id.startswith(beginning)]

    # -- the rest -----------------------------------------------------------------------------------

    def waterfall(self, *, job: str | None = None, since_s: float | None = None) -> Waterfall:
        """Return where the compute went: ever, while a job was there, or in the last seconds."""
        return Waterfall.from_dict(self._http.get(dict[str, Any], "/waterfall", job=job, since=since_s))

    def queue(self) -> QueueView:
        """Return how many jobs are in each state."""
        return self._http.get(QueueView, "/queue")

    def fleet(self) -> FleetView:
        """Return the devices by model and pool."""
        return self._http.get(FleetView, "/fleet")

    def nodes(self, *, limit: int = 100, cursor: str | None = None) -> NodePage:
        """Return a page of the nodes."""
        return self._http.get(NodePage, "/nodes", limit=limit, cursor=cursor)

    def iter_nodes(self, *, pool: str | None = None) -> Iterator[NodeView]:
        """Yield the nodes in the order of their ids, read page by page."""
        cursor: str | None = None
        while True:
            page = self._http.get(NodePage, "/nodes", pool=pool, limit=_PAGE, cursor=cursor)
            yield from page.nodes
            if (cursor := page.next) is None:
                return

    def exclude(self, node: str, *, reason: str, is_stopping: bool = False) -> NodeView:
        """Have nothing more start on a node. Raises UnknownNode. For operators."""
        return self._http.post(NodeView, f"/nodes/{_quoted(node)}/exclude", reason=reason, stop=is_stopping)

    def return_node(self, node: str) -> NodeView:
        """Have an excluded node used again. Raises UnknownNode, NotExcluded. For operators."""
        return self._http.post(NodeView, f"/nodes/{_quoted(node)}/return")

    def teams(self) -> tuple[TeamView, ...]:
        """Return what the teams have."""
        return self._http.get(dict[str, tuple[TeamView, ...]], "/teams")["teams"]

    def tokens(self) -> tuple[TokenView, ...]:
        """Return all tokens, without their secrets. For admins."""
        return self._http.get(dict[str, tuple[TokenView, ...]], "/tokens")["tokens"]

    def create_token(
        self, *, user: str, role: str, team: str | None = None, lasts_s: float | None = None, note: str = ""
    ) -> NewToken:
        """Make a token. For admins."""
        return self._http.post(
            NewToken, "/tokens", user=user, role=role, team=team, lasts_s=lasts_s, note=note
        )

    def revoke_token(self, id_: str) -> TokenView:
        """Make a token worthless. For admins."""
        return self._http.delete(TokenView, f"/tokens/{_quoted(id_)}")


def _quoted(name: str) -> str:
    return quote(name, safe="") or "%20"
