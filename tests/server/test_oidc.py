"""Single sign-on against a provider of OpenID Connect that checks what it is given."""

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from api_harness import JOB, Loop
from artesian.policy.registry import policy
from artesian.server.app import Parts, create_app
from artesian.server.auth import Auth
from artesian.server.config import StateDir
from artesian.server.oidc import Oidc, is_local
from artesian.server.oidc_settings import OidcSettings, session_key
from artesian.server.settings import SettingsError
from artesian.server.tokens import Tokens
from artesian.store import SqliteJournal
from cli_harness import TIMEOUT_S, until

US = "https://127.0.0.1"


class Provider:
    """An identity provider of one user; ``wrong`` changes what it says."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "k1"}, private=True)
        self.codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {"preferred_username": "amy", "groups": ["ml"]}
        self.wrong: dict[str, Any] = {}
        routes = [
            Route("/.well-known/openid-configuration", self.describe),
            Route("/authorize", self.authorize),
            Route("/token", self.token, methods=["POST"]),
            Route("/keys", self.keys),
        ]
        self.app = Starlette(routes=routes)
        config = uvicorn.Config(self.app, port=0, log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.issuer = f"http://127.0.0.1:{port}"

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(TIMEOUT_S)

    async def describe(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
        )

    async def authorize(self, request: Request) -> Response:
        given = dict(request.query_params)
        assert given["response_type"] == "code"
        assert given["code_challenge_method"] == "S256"
        assert "openid" in given["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = given
        return RedirectResponse(f"{given['redirect_uri']}?code={code}&state={given['state']}")

    async def token(self, request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        given = self.codes.pop(form["code"][0], None)
        basic = base64.b64decode(request.headers["authorization"].split()[1]).decode()
        challenge = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        is_right = (
            given is not None
            and basic == "artesian:s3cret"
            and given["redirect_uri"] == form["redirect_uri"][0]
            and base64.urlsafe_b64encode(challenge).decode().rstrip("=") == given["code_challenge"]
        )
        if not is_right or given is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        now_s = int(time.time())
        claims = {"iss": self.issuer, "aud": "artesian", "sub": "1", "iat": now_s, "exp": now_s + 300}
        claims |= {"nonce": given["nonce"], **self.claims, **self.wrong}
        signed = jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self.key)
        return JSONResponse({"access_token": "x", "token_type": "bearer", "id_token": signed})

    async def keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})


class Browser:
    """A browser that goes where it is sent, with our pages and the provider's."""

    def __init__(self, folder: Path) -> None:
        state = StateDir(folder / "state")
        state.create()
        secret = folder / "secret"
        secret.write_text("s3cret\n")
        secret.chmod(0o600)
        self.provider = Provider()
        settings = OidcSettings.of(
            {
                "issuer": self.provider.issuer,
                "client_id": "artesian",
                "client_secret_file": str(secret),
                "public_url": US,
                "roles": {"ml": "member", "ops": "admin"},
            }
        )
        oidc = Oidc(settings, session_key(state.session_key))
        self.loop = Loop(
            create_app(
                Parts(
                    open_journal=lambda: SqliteJournal.open(state.journal),
                    policy=policy("fifo"),
                    dir=state,
                    auth=Auth(tokens=Tokens(state.tokens), sign_on=oidc.session),
                    wake=lambda: None,
                    oidc=oidc,
                )
            )
        )
        self.http = httpx.Client(transport=self.loop, base_url=US)

    def authorize(self, url: str) -> str:
        """Go to the provider, and return where it sends one back to."""
        return httpx.get(url).headers["location"]

    def log_in(self, goal: str = "/api/v1/queue") -> httpx.Response:
        begun = self.http.get("/login", params={"goal": goal})
        assert begun.status_code == 303
        return self.http.get(self.authorize(begun.headers["location"]))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path)
    try:
        yield browser
    finally:
        browser.http.close()
        browser.loop.end()
        browser.provider.end()


def test_who_logs_in_has_a_session_with_the_role_of_their_group(browser: Browser) -> None:
    assert browser.http.get("/api/v1/queue").status_code == 401
    done = browser.log_in()
    assert (done.status_code, done.headers["location"]) == (303, "/api/v1/queue")
    cookie = next(one for one in done.headers.get_list("set-cookie") if one.startswith("artesian_sign_on"))
    for word in ("HttpOnly", "Secure", "SameSite=lax"):
        assert word in cookie
    assert browser.http.get("/api/v1/queue").status_code == 200
    assert browser.http.get("/api/v1/tokens").status_code == 403
    submitted = browser.http.post("/api/v1/jobs", json=JOB, headers={"Origin": US})
    assert submitted.json()["user"] == "amy"
    assert browser.http.post("/logout").status_code == 200
    assert browser.http.get("/api/v1/queue").status_code == 401


def test_a_form_of_another_site_cannot_use_the_session(browser: Browser) -> None:
    browser.log_in()
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert browser.http.post("/api/v1/jobs", json=JOB, headers=headers).status_code == 403
        assert browser.http.post("/logout", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "somebody-else"},
        {"iss": "https://evil.example"},
        {"nonce": "of-another-login"},
        {"exp": 1},
        {"preferred_username": ""},
    ],
    ids=str,
)
def test_an_id_token_that_is_not_for_this_login_is_refused(browser: Browser, wrong: dict[str, Any]) -> None:
    browser.provider.wrong = wrong
    assert browser.log_in().status_code == 401
    assert browser.http.get("/api/v1/queue").status_code == 401


def test_an_id_token_of_another_key_is_refused(browser: Browser) -> None:
    begun = browser.http.get("/login")
    back = browser.authorize(begun.headers["location"])
    other = RSAKey.generate_key(2048, {"kid": "k1"}, private=True)
    shown, browser.provider.key = browser.provider.key, other

    async def keys(_: Request) -> Response:
        return JSONResponse({"keys": [shown.as_dict(private=False)]})

    browser.provider.app.router.routes[-1] = Route("/keys", keys)
    assert browser.http.get(back).status_code == 401


def test_a_login_is_for_one_browser_and_one_time(browser: Browser) -> None:
    begun = browser.http.get("/login")
    back = browser.authorize(begun.headers["location"])
    with httpx.Client(transport=browser.loop, base_url=US) as other:
        assert other.get(back).status_code == 401
    assert browser.http.get(back.replace("state=", "state=x")).status_code == 401
    assert browser.http.get(back).status_code == 303
    assert browser.http.get(back).status_code == 401


def test_who_is_in_no_group_does_not_get_in_and_of_two_roles_the_greater_counts(browser: Browser) -> None:
    browser.provider.claims["groups"] = ["sales"]
    assert browser.log_in().status_code == 403
    browser.provider.claims["groups"] = ["ml", "ops"]
    browser.log_in()
    assert browser.http.get("/api/v1/tokens").status_code == 200


def test_a_forged_session_is_nobodys(browser: Browser) -> None:
    browser.log_in()
    cookie = browser.http.cookies["artesian_sign_on"]
    browser.http.cookies.clear()
    browser.http.cookies.set("artesian_sign_on", cookie[:-4] + "AAAA")
    assert browser.http.get("/api/v1/queue").status_code == 401


@pytest.mark.parametrize(
    ("goal", "is_ours"),
    [("/", True), ("/queue?x=1", True), ("//evil.example", False), ("https://evil.example", False),
     ("/\\evil.example", False), ("/\nx", False), ("", False)],
)  # fmt: skip
def test_after_a_login_one_is_sent_to_a_page_of_ours(browser: Browser, goal: str, is_ours: bool) -> None:
    assert is_local(goal) is is_ours
    assert browser.log_in(goal).headers["location"] == (goal if is_ours else "/")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"issuer": "http://id.example"}, "expected an address with https"),
        ({"roles": {"ml": "boss"}}, "expected one of viewer, member, operator, admin, got 'boss'"),
        ({"isuer": "x"}, "isuer is no key"),
        ({"client_id": 3}, "client_id: expected a text"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        OidcSettings.of({"issuer": "https://id.example", "client_id": "artesian", "public_url": US, **change})
