"""Who gets in: with tokens a session is needed, and what a session may do is what its token may."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from artesian.server.auth import SESSION_COOKIE as COOKIE
from artesian.server.tokens import Role, Tokens
from ui_harness import DOOMED, PLIANT, USER, Dashboard, Looker, a_dashboard


@pytest.fixture(scope="module")
def closed(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard whose door the first token has closed."""
    del browser
    with a_dashboard(tmp_path_factory.mktemp("closed")) as dashboard:
        Tokens(dashboard.state.tokens).create(user="root", role=Role.ADMIN)
        yield dashboard


def token(dashboard: Dashboard, role: Role, user: str = "vera", team: str | None = None) -> tuple[str, str]:
    made = Tokens(dashboard.state.tokens).create(user=user, role=role, team=team)
    return made.token.id, made.secret


def log_in(dashboard: Dashboard, secret: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{dashboard.url}/ui/login", data={"token": secret}, headers=headers)


def logged_in(
    browser: Browser, dashboard: Dashboard, role: Role, user: str = "vera", team: str | None = None
) -> tuple[str, Looker]:
    """Return the id of a new token, and a browser that has a session by it."""
    id_, secret = token(dashboard, role, user, team)
    looker = Looker(browser, dashboard.url)
    session = log_in(dashboard, secret).cookies[COOKIE]
    looker.context.add_cookies([{"name": COOKIE, "value": session, "url": dashboard.url}])
    return id_, looker


def test_who_has_no_session_is_asked_for_a_token_and_comes_back(browser: Browser, closed: Dashboard) -> None:
    _, secret = token(closed, Role.VIEWER)
    looker = Looker(browser, closed.url)
    page = looker.page
    page.goto(f"{closed.url}/ui/queue", wait_until="domcontentloaded")
    expect(page.get_by_role("heading", name="artesian")).to_be_visible()
    page.get_by_label("Token").fill("artesian_0_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not known here")
    page.get_by_label("Token").fill(secret)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/ui/queue")
    expect(page.get_by_text("vera (viewer)")).to_be_visible()
    [cookie] = [one for one in looker.context.cookies() if one["name"] == COOKIE]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert secret not in cookie["value"]
    assert page.evaluate("fetch('/api/v1/queue').then(answer => answer.status)") == 200
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/ui/login")
    assert httpx.get(f"{closed.url}/api/v1/queue", cookies={COOKIE: cookie["value"]}).status_code == 401
    looker.end()


def test_whoever_may_cancel_and_resize_a_job_gets_the_buttons_and_nobody_else(
    browser: Browser, closed: Dashboard
) -> None:
    for user, role, is_there in (
        (USER, Role.VIEWER, False),
        ("vera", Role.MEMBER, False),
        (USER, Role.MEMBER, True),
        ("vera", Role.OPERATOR, True),
        ("vera", Role.ADMIN, True),
    ):
        _, looker = logged_in(browser, closed, role, user)
        page = looker.open(f"/ui/jobs/{DOOMED}")
        expect(page.get_by_text("running").first).to_be_visible()
        for name in ("Cancel job", "Resize job"):
            expect(page.get_by_role("button", name=name), f"{user}, {role}").to_have_count(int(is_there))
        looker.end()
        assert looker.complaints == []


def test_a_page_that_is_open_can_do_nothing_once_its_token_is_revoked(
    browser: Browser, closed: Dashboard
) -> None:
    id_, looker = logged_in(browser, closed, Role.OPERATOR)
    page = looker.open(f"/ui/jobs/{DOOMED}")
    page.get_by_role("button", name="Cancel job").click()
    Tokens(closed.state.tokens).revoke(id_)
    page.wait_for_url("**/ui/login*")
    assert closed.cli.is_in(DOOMED) == "running"
    looker.end()


def test_a_dialog_that_is_open_resizes_nothing_once_its_token_is_revoked(
    browser: Browser, closed: Dashboard
) -> None:
    id_, looker = logged_in(browser, closed, Role.OPERATOR)
    page = looker.open(f"/ui/jobs/{PLIANT}")
    page.get_by_role("button", name="Resize job").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("4")
    Tokens(closed.state.tokens).revoke(id_)
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/login*")
    assert closed.cli.is_in(PLIANT) == "running"
    looker.end()


def test_a_team_sees_its_own_jobs_only(browser: Browser, closed: Dashboard) -> None:
    _, looker = logged_in(browser, closed, Role.VIEWER, team="vision")
    page = looker.open("/ui/")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("llm-a1")
    page = looker.open(f"/ui/jobs/{DOOMED}")
    expect(page.get_by_role("heading", name="This job is not known here.")).to_be_visible()
    looker.end()


def test_pages_of_other_sites_cannot_log_in_nor_open_a_socket(closed: Dashboard) -> None:
    _, secret = token(closed, Role.ADMIN)
    foreign = {"Origin": "http://evil.example"}
    assert log_in(closed, secret, **foreign).status_code == 403
    session = log_in(closed, secret).cookies[COOKIE]
    socket = f"{closed.url}/ui/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip
    own = {"Cookie": f"{COOKIE}={session}", "Origin": closed.url}
    assert _status(socket, {**upgrade, **own}) == 101
    assert _status(socket, {**upgrade, **own, **foreign}) == 403
    assert _status(socket, {**upgrade, "Origin": closed.url}) == 403, "without a session"
    assert _status(socket, {**upgrade, **own, "Host": "evil.example"}) == 403
    polling = socket.replace("transport=websocket", "transport=polling")
    assert httpx.get(polling).status_code == 401
    assert "access-control-allow-origin" not in httpx.get(polling, headers={**own, **foreign}).headers


def _status(url: str, headers: dict[str, str]) -> int:
    with httpx.stream("GET", url, headers=headers) as answer:
        return answer.status_code


@pytest.mark.parametrize(
    "to", ["https://evil.example/ui/", "//evil.example/ui/", "/ui/../\\evil", "/api/v1/jobs"]
)
def test_nobody_is_sent_elsewhere_after_choosing_a_language(closed: Dashboard, to: str) -> None:
    answer = httpx.get(f"{closed.url}/ui/language/zh", params={"to": to})
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/")


def test_a_page_may_load_nothing_from_elsewhere_nor_be_framed(dashboard: Dashboard) -> None:
    headers = httpx.get(f"{dashboard.url}/ui/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"


def test_without_the_dashboard_there_are_no_pages(tmp_path_factory: pytest.TempPathFactory) -> None:
    with a_dashboard(tmp_path_factory.mktemp("none"), is_seeded=False, words=("--no-dashboard",)) as plain:
        assert httpx.get(f"{plain.url}/ui/").status_code == 404
        assert httpx.get(f"{plain.url}/api/v1/queue").status_code == 200


def test_nicegui_is_loaded_for_the_dashboard_only() -> None:
    loaded = "import sys, artesian.server.serve; sys.exit('nicegui' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded]).returncode == 0


def test_somebody_who_opens_page_after_page_is_held_up_and_the_server_stays_small(closed: Dashboard) -> None:
    session = log_in(closed, token(closed, Role.VIEWER, user="hasty")[1]).cookies[COOKIE]
    with httpx.Client(base_url=closed.url) as client:
        assert {client.get("/ui/queue").status_code for _ in range(20)} == {303}
        codes = [
            client.get("/ui/queue", headers={"Cookie": f"{COOKIE}={session}"}).status_code for _ in range(60)
        ]
    assert codes[0] == 200
    assert 429 in codes
