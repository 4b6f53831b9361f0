"""Every page as every role, and what somebody hostile may try at the dashboard; no browser, whose rules are not ours."""

import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import pytest

from artesian.server.auth import SESSION_COOKIE as COOKIE
from artesian.server.tokens import Role, Tokens
from cli_harness import until
from ui_harness import DOOMED, Dashboard, a_dashboard

PAGES = ("/ui/", "/ui/fleet", "/ui/queue", f"/ui/jobs/{DOOMED}", "/ui/simulate")
"""What nobody sees who has not logged in."""
OPEN = ("/", "/ui", "/ui/login", "/ui/language/{language}")
"""What everybody may ask for: they tell nothing."""
FORMS = ("/ui/login", "/ui/logout")
"""All that is not a GET."""
LISTED = """
from types import SimpleNamespace
from fastapi import FastAPI
from nicegui import core
from artesian.server.ui.dashboard import mount
app = FastAPI(openapi_url=None)
for name in ("auth", "buckets", "service", "ledger"):
    setattr(app.state, name, SimpleNamespace())
mount(app)
print(*(route.path for route in core.app.routes if (getattr(route, "name", None) or "").startswith("show_")))
print(*(f"{method}:{route.path}" for route in app.routes for method in getattr(route, "methods", None) or ()))
"""
"""Prints the pages, and the routes beside them."""
POLLING = "/ui/_nicegui_ws/socket.io/?EIO=4&transport=polling"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard whose door the first token has closed."""
    with a_dashboard(tmp_path_factory.mktemp("doors")) as dashboard:
        Tokens(dashboard.state.tokens).create(user="root", role=Role.ADMIN)
        yield dashboard


@pytest.fixture(scope="module")
def sessions(closed: Dashboard) -> dict[Role, str]:
    """A session of each role, of a user of its own: a page costs as much as many requests."""
    tokens = Tokens(closed.state.tokens)
    return {role: session(closed, tokens.create(user=f"a-{role}", role=role).secret) for role in Role}


def session(dashboard: Dashboard, secret: str) -> str:
    answer = httpx.post(f"{dashboard.url}/ui/login", data={"token": secret})
    assert answer.status_code == 303, answer.text
    return answer.cookies[COOKIE]


def get(dashboard: Dashboard, path: str, cookie: str | None = None, **headers: str) -> httpx.Response:
    if cookie is not None:
        headers["Cookie"] = f"{COOKIE}={cookie}"
    return httpx.get(f"{dashboard.url}{path}", headers=headers)


def raw(dashboard: Dashboard, path: str, headers: Sequence[str]) -> bytes:
    """Ask for a path as it is written: clients tidy up their dots before they ask."""
    host = urlsplit(dashboard.url).netloc
    name, _, port = host.partition(":")
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    with socket.create_connection((name, int(port))) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_the_pages_here_are_all_that_there_are() -> None:
    # In a process of its own: NiceGUI can be mounted once.
    found = subprocess.run([sys.executable, "-c", LISTED], capture_output=True, text=True, check=True)
    pages, routes = found.stdout.splitlines()
    known = {path.removeprefix("/ui") for path in PAGES}
    assert {path.replace("{job}", DOOMED) for path in pages.split()} == known
    assert set(routes.split()) == {*(f"GET:{path}" for path in OPEN), *(f"POST:{path}" for path in FORMS)}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_for_whoever_has_logged_in_and_for_nobody_else(
    closed: Dashboard, sessions: dict[Role, str], path: str
) -> None:
    stranger = get(closed, path)
    assert (stranger.status_code, urlsplit(stranger.headers["location"]).path) == (303, "/ui/login")
    assert DOOMED not in stranger.text
    assert get(closed, path, "made-up").status_code == 303
    for role in Role:
        page = get(closed, path, sessions[role])
        assert page.status_code == 200, role
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert "default-src 'self'" in page.headers["content-security-policy"]


def test_the_socket_is_for_whoever_has_logged_in_and_for_nobody_else(
    closed: Dashboard, sessions: dict[Role, str]
) -> None:
    assert get(closed, POLLING).status_code == 401
    assert get(closed, POLLING, "made-up").status_code == 401
    for role in Role:
        assert get(closed, POLLING, sessions[role]).status_code == 200


def test_pages_without_a_script_allow_none(closed: Dashboard, sessions: dict[Role, str]) -> None:
    for answer in (get(closed, "/ui/login"), get(closed, "/ui/nothing", sessions[Role.VIEWER])):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert "script-src" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_page_of_another_site_posts_nothing(
    closed: Dashboard, sessions: dict[Role, str], headers: dict[str, str]
) -> None:
    admin = {"Cookie": f"{COOKIE}={sessions[Role.ADMIN]}", **headers}
    paths = (
        *FORMS,
        "/ui/",
        f"/api/v1/jobs/{DOOMED}/cancel",
        f"/api/v1/jobs/{DOOMED}/resize?devices=2",
        POLLING,
    )
    for path in paths:
        assert httpx.post(f"{closed.url}{path}", headers=admin).status_code == 403, path
    assert get(closed, "/api/v1/queue", sessions[Role.ADMIN]).status_code == 200, "not logged out"
    assert closed.cli.is_in(DOOMED) == "running"


def test_a_session_ends_with_its_token(closed: Dashboard) -> None:
    tokens = Tokens(closed.state.tokens)
    revoked = tokens.create(user="gone", role=Role.ADMIN)
    cookie = session(closed, revoked.secret)
    assert get(closed, "/api/v1/queue", cookie).status_code == 200
    tokens.revoke(revoked.token.id)
    for path, status in (("/ui/queue", 303), (POLLING, 401), ("/api/v1/queue", 401)):
        assert get(closed, path, cookie).status_code == status
    brief = tokens.create(user="brief", role=Role.ADMIN, lasts_s=3600.0)
    cookie = session(closed, brief.secret)
    assert get(closed, "/api/v1/queue", cookie).status_code == 200
    with closing(
        sqlite3.connect(closed.state.tokens, isolation_level=None, timeout=60.0)
    ) as database:  # it is over
        database.execute("UPDATE tokens SET expires_s = created_s WHERE id = ?", (brief.token.id,))
    until(lambda: get(closed, "/api/v1/queue", cookie).status_code == 401)
    assert get(closed, "/ui/queue", cookie).status_code == 303
    again = httpx.post(f"{closed.url}/ui/login", data={"token": brief.secret})
    assert (again.status_code, COOKIE in again.cookies) == (401, False)


@pytest.mark.parametrize(
    "path",
    [
        "/ui/_nicegui/../../../../etc/passwd",
        "/ui/_nicegui/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/ui/_nicegui/x/components/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/ui/_nicegui/x/resources/x/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/ui/jobs/..%2f..%2ftokens.sqlite3",
        "/ui/jobs/%00",
        "/ui/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "//evil.example/ui/",
        "/ui/language/zh?to=/ui/%0d%0aSet-Cookie:%20x=1",
    ],
)
def test_no_path_leads_elsewhere_nor_into_a_page(
    closed: Dashboard, sessions: dict[Role, str], path: str
) -> None:
    answer = raw(closed, path, [f"Cookie: {COOKIE}={sessions[Role.ADMIN]}", "Accept-Encoding: identity"])
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 200", b"HTTP/1.1 303")), answer[:80]
    assert b"root:" not in answer
    assert b"SQLite" not in answer
    assert b"<script>alert(1)" not in answer
    assert b"\r\nset-cookie: x" not in answer.lower()
    assert b"\r\nlocation: //" not in answer.lower()


def test_a_session_that_began_by_https_is_kept_to_it_also_behind_a_proxy(closed: Dashboard) -> None:
    secret = Tokens(closed.state.tokens).create(user="amy", role=Role.VIEWER).secret
    host = urlsplit(closed.url).netloc
    for origin, is_secure in ((f"https://{host}", True), (f"http://{host}", False), (None, False)):
        headers = {} if origin is None else {"Origin": origin}
        answer = httpx.post(f"{closed.url}/ui/login", data={"token": secret}, headers=headers)
        assert answer.status_code == 303
        words = {word.strip() for word in answer.headers["set-cookie"].split(";")}
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= words
        assert ("Secure" in words) is is_secure, origin


def test_a_login_reads_a_small_body_and_no_query(closed: Dashboard) -> None:
    secret = Tokens(closed.state.tokens).create(user="quick", role=Role.VIEWER).secret
    for size in (5000, 2**21 + 1):
        large = httpx.post(f"{closed.url}/ui/login", content=b"token=" + b"&a=b" * (size // 4))
        assert large.status_code == 413
    assert COOKIE not in httpx.post(f"{closed.url}/ui/login", params={"token": secret}).cookies
