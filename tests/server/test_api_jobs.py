"""Submitting and reading over HTTP: the same errors as of a job file, keys, bulk, pages, refusals as problems."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api_harness import ADMIN, JOB, Served, a_server
from artesian.kernel.state import Record
from artesian.model.document import DocumentError
from artesian.model.errors import JobImpossible, UnitError, UnknownJob
from artesian.model.events import ResizeRequested
from artesian.model.job import Cause
from artesian.model.jobfile import parse_job
from artesian.model.plan import Plan, Start
from artesian.server.limits import Limits
from artesian.server.streams import audited
from artesian.server.submission import Context, job_from_text
from artesian.store import chained
from builders import a_job, a_node, a_placement, ended, joined, started, submitted


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with a_server(tmp_path) as served:
        yield served


def post(served: Served, body: Any = JOB, path: str = "/jobs", **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.http.post(f"/api/v1{path}", json=body, headers=names)


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["type"]) == (status, f"urn:artesian:problem:{kind}"), found
    assert found["status"] == status
    assert found["detail"]
    return found


def test_a_job_is_submitted_as_yaml_and_as_json_and_is_there_when_the_answer_comes(served: Served) -> None:
    yaml = "name: tiny\ndevices: 1\nworkers: 0\ncommand: 'true'\nworkdir: sub\n"
    by_yaml = served.http.post(
        "/api/v1/jobs?base_dir=/data", content=yaml, headers={"Content-Type": "application/yaml"}
    )
    assert by_yaml.status_code == 201
    job = by_yaml.json()
    assert (job["state"], job["user"], job["workdir"]) == ("queued", "root", "/data/sub")
    assert by_yaml.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert served.http.get(by_yaml.headers["location"]).json() == job
    by_json = post(served).json()
    assert {**by_json, "id": 0, "submitted_s": 0, "workdir": 0} == {
        **job, "id": 0, "submitted_s": 0, "workdir": 0,
    }  # fmt: skip


def test_a_job_is_durable_when_the_answer_comes(tmp_path: Path) -> None:
    with a_server(tmp_path) as served:
        id_ = post(served).json()["id"]
    with a_server(tmp_path, fleet=()) as again:
        assert again.http.get(f"/api/v1/jobs/{id_}").json()["id"] == id_


def test_mistakes_are_told_with_their_lines_in_the_words_of_a_job_file(served: Served) -> None:
    text = "name: Bad Name\ndevices: many\ncommand: 'true'\nworkdir: /\ntypo: 1\n"
    answer = served.http.post("/api/v1/jobs", content=text, headers={"Content-Type": "application/yaml"})
    found = problem(answer, 422, "invalid-document")
    with pytest.raises(DocumentError) as expected:
        parse_job(text, source="job", job_id="new", base_dir="/")
    assert found["detail"] == str(expected.value)
    assert [(one["line"], one["subject"]) for one in found["mistakes"]] == [
        (mistake.at.line, mistake.subject) for mistake in expected.value.mistakes
    ]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["cpu:2", "8", "H100:8", "true", "1e3", "~", "30s", "on", "0x1F", " 7 ", "a: b", "#x"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    ["name", "devices", "command", "workers", "env", "retry", "priority", "grace", "checkpoint", "team", "x"]
)


@given(st.dictionaries(keys, values, max_size=6))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_json_is_read_as_yaml_would_read_it(more: dict[str, Any]) -> None:
    text = json.dumps({**JOB, **more})

    def outcome(read: Any) -> object:
        try:
            return read()
        except DocumentError as error:
            return str(error)

    quick = outcome(lambda: job_from_text(text, Context(), user="amy"))
    slow = outcome(lambda: parse_job(text, source="job", job_id="new", base_dir="/", user="amy"))
    assert quick == slow


def test_a_key_given_twice_is_a_mistake_in_json_too() -> None:
    text = '{"name": "a", "name": "b", "devices": 1, "command": ["true"], "workdir": "/"}'
    with pytest.raises(DocumentError, match="name"):
        job_from_text(text, Context(), user="")


def test_the_same_idempotency_key_submits_once_and_for_another_job_it_is_refused(served: Served) -> None:
    first = post(served, Idempotency_Key="k1")
    again = post(served, Idempotency_Key="k1")
    assert first.json()["id"] == again.json()["id"]
    assert len(served.http.get("/api/v1/jobs").json()["jobs"]) == 1
    for other in ({**JOB, "priority": 1}, {**JOB, "name": "other"}):
        problem(post(served, other, Idempotency_Key="k1"), 422, "idempotency-key-reused")
    assert post(served, Idempotency_Key="k2").json()["id"] != first.json()["id"]
    bulk = {"jobs": [JOB, JOB]}
    ids = post(served, bulk, "/jobs/bulk", Idempotency_Key="k3").json()["jobs"]
    assert post(served, bulk, "/jobs/bulk", Idempotency_Key="k3").json()["jobs"] == ids
    assert len(set(ids)) == 2


def test_a_bulk_is_taken_as_a_whole_or_not_at_all(served: Served) -> None:
    ids = post(served, {"jobs": [JOB] * 30}, "/jobs/bulk").json()["jobs"]
    assert len(set(ids)) == 30
    bad = post(served, {"jobs": [JOB, {**JOB, "priority": "many"}]}, "/jobs/bulk")
    assert problem(bad, 422, "invalid-document")["detail"].startswith("jobs[1]:1:")
    assert served.http.get("/api/v1/queue").json()["jobs"]["queued"] == 30
    wrongs: tuple[Any, ...] = (
        {"jobs": []},
        {},
        [],
        {"jobs": [JOB] * 1001},
        {"jobs": [JOB], "base_dir": "here"},
    )
    for wrong in wrongs:
        problem(post(served, wrong, "/jobs/bulk"), 422, "invalid-document")


def test_a_job_that_the_fleet_could_never_hold_is_refused_and_before_there_is_a_fleet_it_is_not(
    served: Served, tmp_path: Path
) -> None:
    found = problem(post(served, {**JOB, "devices": 9}), 422, "job-impossible")
    assert "cannot run here" in found["detail"]
    assert found["hint"]
    with a_server(tmp_path / "new", fleet=()) as empty:
        assert post(empty, {**JOB, "devices": 9}).status_code == 201


def test_a_dry_run_finds_mistakes_and_submits_nothing(served: Served) -> None:
    assert post(served, path="/jobs?dry_run=true").status_code == 204
    problem(post(served, {**JOB, "devices": "x:y:z:w"}, "/jobs?dry_run=true"), 422, "invalid-document")
    assert served.http.get("/api/v1/jobs").json()["jobs"] == []


def test_jobs_that_were_over_long_ago_are_told_of_as_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def happened() -> Iterator[Record]:
        yield joined(a_node(devices=1), 1.0)
        for number in range(240):
            id_, at_s = f"j{number:03}-xyz", 10.0 + number
            yield submitted(a_job(id_, name=f"n{number}", team=("red", "blue")[number % 2]), at_s)
            start = Start(job_id=id_, epoch=1, placement=a_placement(("n1", [0])), reason="free")
            yield Plan(at_s=at_s, starts=(start,))
            yield started(id_, 1, at_s)
            yield ended(id_, 1, Cause.USER_ERROR if number % 3 else Cause.COMPLETED, at_s + 0.5)

    records = list(happened())

    def told(folder: Path) -> list[Any]:
        with a_server(folder, fleet=()) as served:
            served.tell(*records[: len(records) // 2])
        with a_server(folder, fleet=()) as served:  # that begins with a part of it, and hears of the rest
            served.tell(*records[len(records) // 2 :])
            found: list[Any] = []
            for query in ("limit=7", "order=oldest&limit=50", "team=red", "state=succeeded", "name=n3"):
                cursor = ""
                while cursor is not None:
                    page = served.http.get(f"/api/v1/jobs?{query}{cursor and f'&cursor={cursor}'}").json()
                    found.append(page["jobs"])
                    cursor = page["next"]
            paths = itertools.product(
                ("j000-xyz", "j001", "n2", "j239"), ("", "/why", "/attempts", "/report")
            )
            found += [served.http.get(f"/api/v1/jobs/{name}{path}").json() for name, path in paths]
            found.append(served.http.post("/api/v1/jobs/j000-xyz/cancel").json())
            found.append(served.http.get("/api/v1/queue").json()["jobs"])
            found.append(served.http.get("/api/v1/waterfall?until=300").json())
            found.append([served.http.get(f"/api/v1/waterfall?since={at}").status_code for at in (5, 100)])
            figures = served.http.get("/metrics").text.splitlines()
            found.append(
                [line for line in figures if line.startswith(("artesian_jobs", "artesian_attempts"))]
            )
            archive = served.app.state.service.mirror.state.archive
            found.append(len(archive) > 0)
        return found

    plain = told(tmp_path / "plain")
    monkeypatch.setattr(chained, "KEPT_OVER", 5)
    packed = told(tmp_path / "packed")
    assert (plain[-1], packed[-1]) == (False, True)
    for one, other in zip(plain[:-1], packed[:-1], strict=True):
        assert _untimed(one) == _untimed(other)


def _untimed(found: Any) -> Any:
    """Without the device-seconds up to now, which pass between two answers."""
    if isinstance(found, dict):
        return {
            key: _untimed(value)
            for key, value in found.items()
            if key not in ("waterfall", "nameplate", "stages", "notes")
        }
    return [_untimed(one) for one in found] if isinstance(found, list) else found


def test_pages_have_every_job_once_whatever_is_submitted_meanwhile(served: Served) -> None:
    ids = post(served, {"jobs": [JOB] * 25}, "/jobs/bulk").json()["jobs"]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 10}
    while True:
        page = served.http.get("/api/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["jobs"]]
        post(served)
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert seen == ids[::-1]


def test_a_full_queue_is_refused_with_the_time_to_come_back(tmp_path: Path) -> None:
    with a_server(tmp_path, limits=Limits(queued_jobs=3)) as served:
        assert post(served, {"jobs": [JOB] * 3}, "/jobs/bulk").status_code == 201
        answer = post(served)
        problem(answer, 429, "queue-full")
        assert int(answer.headers["retry-after"]) >= 1


def test_who_asks_too_often_is_told_to_wait(tmp_path: Path) -> None:
    with a_server(tmp_path, limits=Limits(requests_per_s=0.01, burst=3)) as served:
        codes = [served.http.get("/api/v1/queue").status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        answer = served.http.get("/api/v1/queue")
        problem(answer, 429, "too-many-requests")
        assert int(answer.headers["retry-after"]) > 30
        assert served.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/jobs/nope", 404, "unknown-job"),
        ("/nodes/nope", 404, "unknown-node"),
        ("/nothing", 404, "not-found"),
        ("/jobs?limit=0", 422, "invalid-parameter"),
        ("/jobs?limit=many", 422, "invalid-parameter"),
        ("/jobs?state=happy", 422, "invalid-parameter"),
        ("/jobs?cursor=zzz", 422, "invalid-parameter"),
        ("/nodes?cursor=%FF", 422, "invalid-parameter"),
        ("/events?after=5000", 422, "invalid-parameter"),
        ("/waterfall?since=1&start_s=0", 422, "invalid-parameter"),
        ("/waterfall?start_s=5&end_s=1", 422, "invalid-parameter"),
    ],
)
def test_every_refusal_is_a_problem_with_its_own_type(
    served: Served, path: str, status: int, kind: str
) -> None:
    problem(served.http.get(f"/api/v1{path}"), status, kind)


def test_a_wrong_method_and_a_wrong_kind_of_body_are_problems_too(served: Served) -> None:
    problem(served.http.put("/api/v1/jobs"), 405, "method-not-allowed")
    answer = served.http.post("/api/v1/jobs", content="x", headers={"Content-Type": "text/plain"})
    found = problem(answer, 415, "unsupported-media-type")
    assert found["expected"] == "application/json or application/yaml"
    assert found["actual"] == "'text/plain'"


def run_one(served: Served, id_: str = "j1", out: bytes = b"", err: bytes = b"") -> None:
    """A job that has run to its end, and printed this."""
    folder = served.state.jobs / id_ / "attempt-1"
    folder.mkdir(parents=True)
    (folder / "stdout.log").write_bytes(out)
    (folder / "stderr.log").write_bytes(err)
    served.tell(
        submitted(a_job(id_), 2.0),
        Plan(at_s=3.0, starts=(Start(job_id=id_, epoch=1, placement=a_placement(("n1", [0])), reason=""),)),
        started(id_, 1, 4.0),
        ended(id_, 1, at_s=5.0),
    )


def events_of(text: str) -> list[tuple[str, str, Any]]:
    found = []
    for event in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def test_logs_come_in_pieces_that_add_up_to_what_was_printed(served: Served) -> None:
    out = bytes(range(256)) * 50
    run_one(served, out=out)
    client = served.client()
    assert b"".join(client.output("j1")) == out
    page = served.http.get("/api/v1/jobs/j1/logs?offset=100&limit=10").json()
    assert (page["offset"], page["next"], page["is_end"]) == (100, 110, False)
    assert list(client.output("j1", is_err=True)) == []
    problem(served.http.get("/api/v1/jobs/j1/logs?attempt=2"), 404, "unknown-attempt")


def test_a_follower_goes_on_behind_any_event_and_gets_nothing_twice(served: Served) -> None:
    run_one(served, out=b"one\ntwo\n\xff", err=b"three")
    everything = events_of(served.http.get("/api/v1/jobs/j1/follow").text)
    assert [name for _, name, _ in everything] == ["started", "output", "output", "ended", "over"]
    for number, (id_, _, _) in enumerate(everything[:-1]):
        rest = events_of(served.http.get("/api/v1/jobs/j1/follow", headers={"Last-Event-ID": id_}).text)
        assert rest == everything[number + 1 :]


def test_what_is_told_of_the_journal_has_no_environment_in_it(served: Served) -> None:
    post(served, {**JOB, "env": {"SECRET": "xyzzy"}})
    mirror = served.app.state.service.mirror
    page = served.loop.wait(mirror.read(after=0, most=100))
    told = [audited(record, mirror, ADMIN) for _, record in page]
    assert any(one is not None and one.get("name") == "tiny" for one in told)
    assert "xyzzy" not in repr(told)
    for path in ("", "/tiny", "/tiny/why", "/tiny/attempts", "/tiny/report"):
        assert "xyzzy" not in served.http.get(f"/api/v1/jobs{path}").text


def test_the_fleet_adds_up(served: Served) -> None:
    served.tell(*(submitted(a_job("j1", devices="cpu:3"), 2.0),))
    place = a_placement(("n1", [0, 1, 2]))
    served.tell(Plan(at_s=3.0, starts=(Start(job_id="j1", epoch=1, placement=place, reason=""),)))
    [kind] = served.http.get("/api/v1/fleet").json()["kinds"]
    assert (kind["devices"], kind["held"], kind["free"], kind["lost"]) == (8, 3.0, 5.0, 0.0)
    node = served.http.get("/api/v1/nodes/n1").json()
    assert (node["held"], node["jobs"]) == (3.0, ["j1"])
    [team] = served.http.get("/api/v1/teams").json()["teams"]
    assert (team["held"], team["jobs"]) == (3.0, {"starting": 1})


def test_nodes_come_in_pages_by_their_ids(tmp_path: Path) -> None:
    fleet = [a_node(f"n/{number}", pool="even" if number % 2 == 0 else "odd") for number in range(7)]
    with a_server(tmp_path, fleet=fleet) as served:
        first = served.http.get("/api/v1/nodes?limit=4").json()
        rest = served.http.get("/api/v1/nodes", params={"limit": 4, "cursor": first["next"]}).json()
        ids = [node["id"] for node in first["nodes"] + rest["nodes"]]
        assert ids == [f"n/{number}" for number in range(7)]
        assert rest["next"] is None
        odd = served.http.get("/api/v1/nodes?pool=odd").json()["nodes"]
        assert [node["id"] for node in odd] == ["n/1", "n/3", "n/5"]
        assert served.http.get("/api/v1/nodes/n/3").json()["id"] == "n/3"


def test_a_resize_is_journaled_once_and_the_key_of_the_submit_still_names_the_job(served: Served) -> None:
    id_ = post(served, Idempotency_Key="k9").json()["id"]
    mirror = served.app.state.service.mirror
    before = mirror.seq
    for _ in range(2):
        answered = served.http.post(f"/api/v1/jobs/{id_}/resize", params={"devices": "2..3"})
        assert (answered.status_code, answered.json()["devices"]) == (202, ["2..3"])
    page = served.loop.wait(mirror.read(after=before, most=100))
    [told] = [audited(record, mirror, ADMIN) for _, record in page if isinstance(record, ResizeRequested)]
    assert told is not None
    assert (told["job"], told["devices"], told["user"]) == (id_, ["2..3"], ADMIN.user)
    assert post(served, Idempotency_Key="k9").json()["id"] == id_
    with pytest.raises(UnitError, match="expected a count"):
        served.client().resize(id_, "a few")
    with pytest.raises(JobImpossible):
        served.client().resize(id_, "64")
    with pytest.raises(UnknownJob):
        served.client().resize("nobody", "1")
