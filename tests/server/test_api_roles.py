"""Every route as every role. A route that is not in the table fails; so does one that asks for another role."""

from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from api_harness import JOB, Served, a_server
from artesian.server.tokens import Role
from builders import a_job, submitted

ROLES: dict[tuple[str, str], Role | None] = {
    ("GET", "/api/v1/jobs"): Role.VIEWER,
    ("POST", "/api/v1/jobs"): Role.MEMBER,
    ("POST", "/api/v1/jobs/bulk"): Role.MEMBER,
    ("GET", "/api/v1/jobs/{job}"): Role.VIEWER,
    ("GET", "/api/v1/jobs/{job}/why"): Role.VIEWER,
    ("GET", "/api/v1/jobs/{job}/attempts"): Role.VIEWER,
    ("GET", "/api/v1/jobs/{job}/training"): Role.VIEWER,
    ("GET", "/api/v1/jobs/{job}/report"): Role.VIEWER,
    ("GET", "/api/v1/jobs/{job}/metrics"): Role.VIEWER,
    ("POST", "/api/v1/jobs/{job}/cancel"): Role.MEMBER,
    ("POST", "/api/v1/jobs/{job}/resize"): Role.MEMBER,
    ("GET", "/api/v1/jobs/{job}/logs"): Role.VIEWER,
    ("GET", "/api/v1/jobs/{job}/follow"): Role.VIEWER,
    ("GET", "/api/v1/events"): Role.VIEWER,
    ("GET", "/api/v1/fleet"): Role.VIEWER,
    ("GET", "/api/v1/nodes"): Role.VIEWER,
    ("GET", "/api/v1/nodes/{node:path}"): Role.VIEWER,
    ("POST", "/api/v1/nodes/{node:path}/exclude"): Role.OPERATOR,
    ("POST", "/api/v1/nodes/{node:path}/return"): Role.OPERATOR,
    ("GET", "/api/v1/teams"): Role.VIEWER,
    ("GET", "/api/v1/moves"): Role.VIEWER,
    ("GET", "/api/v1/queue"): Role.VIEWER,
    ("GET", "/api/v1/census"): Role.VIEWER,
    ("GET", "/api/v1/waterfall"): Role.VIEWER,
    ("GET", "/api/v1/tokens"): Role.ADMIN,
    ("POST", "/api/v1/tokens"): Role.ADMIN,
    ("DELETE", "/api/v1/tokens/{token}"): Role.ADMIN,
    ("GET", "/metrics"): Role.VIEWER,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/api/v1/openapi.json"): None,
    ("GET", "/login"): None,
    ("GET", "/login/callback"): None,
    ("POST", "/logout"): None,
}
"""The least role that each route asks for; None: nobody is asked who they are."""

STREAMS = {"/api/v1/events", "/api/v1/jobs/{job}/follow"}
WITHOUT_END = "?after=99999999"
"""A stream is refused for its parameter, once it is known that the caller may have it."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with a_server(tmp_path_factory.mktemp("state"), is_open=False) as served:
        served.tell(submitted(a_job("j1", user="member"), 2.0))
        yield served


@pytest.fixture(scope="module")
def tokens(served: Served) -> dict[Role, str]:
    return {role: served.token(role) for role in Role}


def paths(served: Served) -> set[tuple[str, str]]:
    described = {
        (method.upper(), path)
        for path, operations in served.app.openapi()["paths"].items()
        for method in operations
    }
    return {(method, path.replace("{node}", "{node:path}")) for method, path in described}


def test_every_route_is_in_the_table_and_every_one_of_the_table_is_there(served: Served) -> None:
    assert paths(served) == ROLES.keys() - {("GET", "/api/v1/openapi.json")}
    assert all(route.include_in_schema for route in routes_of(served.app.router))


def routes_of(router: object) -> Iterator[APIRoute]:
    for route in getattr(router, "routes", ()):
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from routes_of(getattr(route, "original_router", None))


def ask(served: Served, method: str, path: str, token: str | None) -> int:
    address = path.replace("{job}", "j1").replace("{node:path}", "n1").replace("{token}", "0" * 16)
    if path in STREAMS:
        address += WITHOUT_END
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    if path.endswith("/follow"):
        headers["Last-Event-ID"] = "nonsense"
    json = {"/api/v1/jobs": JOB, "/api/v1/jobs/bulk": {"jobs": [JOB]}}.get(path)
    params = {"user": "x", "role": "viewer"} if (method, path) == ("POST", "/api/v1/tokens") else None
    answer = served.http.request(
        method, address, headers=headers, json=json if method == "POST" else None, params=params
    )
    return answer.status_code


@pytest.mark.parametrize(("method", "path"), ROLES, ids=str)
def test_a_route_lets_in_its_role_and_those_above_and_nobody_else(
    served: Served, tokens: dict[Role, str], method: str, path: str
) -> None:
    least = ROLES[method, path]
    status = ask(served, method, path, None)
    assert (status == 401) is (least is not None), status
    for role in Role:
        status = ask(served, method, path, tokens[role])
        if least is None or role.includes(least):
            assert status in (200, 201, 202, 404, 409, 422), (role, status)
        else:
            assert status == 403, (role, status)


def test_a_member_cancels_their_own_jobs_and_an_operator_anybodys(served: Served) -> None:
    served.tell(
        *(submitted(a_job(id_, user="amy"), 3.0) for id_ in ("a1", "a2", "a3")),
    )

    def cancel(job: str, token: str) -> int:
        return served.http.post(
            f"/api/v1/jobs/{job}/cancel", headers={"Authorization": f"Bearer {token}"}
        ).status_code

    assert cancel("a1", served.token("member", user="bob")) == 403
    assert cancel("a1", served.token("member", user="amy")) == 202
    assert cancel("a2", served.token("operator", user="bob")) == 202
    assert cancel("a2", served.token("operator", user="bob")) == 409
    assert cancel("a3", served.token("admin", user="bob")) == 202


def test_a_member_resizes_their_own_jobs_and_an_operator_anybodys(served: Served) -> None:
    served.tell(submitted(a_job("own", user="amy"), 3.0))

    def resize(devices: str, token: str) -> int:
        return served.http.post(
            "/api/v1/jobs/own/resize",
            params={"devices": devices},
            headers={"Authorization": f"Bearer {token}"},
        ).status_code

    assert resize("2", served.token("viewer", user="amy")) == 403
    assert resize("2", served.token("member", user="bob")) == 403
    assert resize("2", served.token("member", user="amy")) == 202
    assert resize("3", served.token("operator", user="bob")) == 202


@pytest.mark.parametrize("what", ["cancel", "resize?devices=2"])
def test_a_team_mate_sees_a_job_and_the_teams_operator_says_what_becomes_of_it(
    served: Served, what: str
) -> None:
    id_ = f"mates-{what[:6]}"
    served.tell(submitted(a_job(id_, user="amy", team="red"), 3.0))

    def status(token: str, path: str = "") -> int:
        headers = {"Authorization": f"Bearer {token}"}
        address = f"/api/v1/jobs/{id_}"
        if not path:
            return served.http.get(address, headers=headers).status_code
        return served.http.post(f"{address}/{path}", headers=headers).status_code

    mate = served.token("member", user="bob", team="red")
    assert (status(mate), status(mate, what)) == (200, 403)
    for role in ("member", "operator"):  # of another team, even the job's own user
        other = served.token(role, user="amy", team="blue")
        assert (status(other), status(other, what)) == (404, 404)
    assert status(served.token("viewer", user="amy", team="red"), what) == 403
    assert status(served.token("operator", user="bob", team="red"), what) == 202


def test_an_operator_of_one_team_keeps_no_node_from_the_others(served: Served) -> None:
    def exclude(token: str) -> int:
        return served.http.post(
            "/api/v1/nodes/n1/exclude",
            params={"reason": "it is slow"},
            headers={"Authorization": f"Bearer {token}"},
        ).status_code

    assert exclude(served.token("operator", team="red")) == 403
    assert exclude(served.token("operator")) in (200, 404)


def test_a_token_of_a_team_sees_and_submits_nothing_of_another(served: Served) -> None:
    served.tell(submitted(a_job("r1", name="red-job", team="red"), 4.0))
    served.tell(submitted(a_job("b1", name="blue-job", team="blue"), 4.0))
    red = {"Authorization": f"Bearer {served.token('member', team='red')}"}

    def get(path: str) -> int:
        return served.http.get(f"/api/v1{path}", headers=red).status_code

    for path in ("", "/why", "/attempts", "/training", "/report", "/metrics", "/logs"):
        assert get(f"/jobs/b1{path}") == 404
    assert get("/jobs/blue-job") == 404
    assert get("/jobs/r1") == 200
    assert get("/jobs/b1/follow") == 404
    assert get("/waterfall?job=b1") == 404
    assert get("/jobs?team=blue") == 403
    listed = served.http.get("/api/v1/jobs", headers=red).json()["jobs"]
    assert {job["team"] for job in listed} == {"red"}
    teams = served.http.get("/api/v1/teams", headers=red).json()["teams"]
    assert [team["team"] for team in teams] == ["red"]
    mine = served.http.post("/api/v1/jobs", headers=red, json=JOB)
    assert mine.json()["team"] == "red"
    theirs = served.http.post("/api/v1/jobs", headers=red, json={**JOB, "team": "blue"})
    assert theirs.status_code == 403
    assert served.http.post("/api/v1/jobs/b1/cancel", headers=red).status_code == 404
    assert served.http.post("/api/v1/jobs/b1/resize?devices=2", headers=red).status_code == 404


def test_expired_and_revoked_tokens_are_worthless_at_once(served: Served) -> None:

    def status(token: str) -> int:
        return served.http.get("/api/v1/queue", headers={"Authorization": f"Bearer {token}"}).status_code

    brief = served.tokens.create(user="amy", role=Role.VIEWER, lasts_s=1e-3)
    assert status(brief.secret) == 401
    made = served.tokens.create(user="amy", role=Role.VIEWER)
    assert status(made.secret) == 200
    assert status(made.secret) == 200, "remembered"
    served.tokens.revoke(made.token.id)
    assert status(made.secret) == 401
    kept = served.tokens.create(user="amy", role=Role.VIEWER)
    assert status(kept.secret) == 200
    assert status(kept.secret[:-1] + ("A" if kept.secret[-1] != "A" else "B")) == 401


def test_a_revocation_by_another_process_is_seen(served: Served) -> None:
    made = served.tokens.create(user="amy", role=Role.VIEWER)
    headers = {"Authorization": f"Bearer {made.secret}"}
    assert served.http.get("/api/v1/queue", headers=headers).status_code == 200
    type(served.tokens)(served.state.tokens).revoke(made.token.id)
    assert served.http.get("/api/v1/queue", headers=headers).status_code == 401
