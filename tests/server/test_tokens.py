"""Tokens and sessions, in a file and in a database: one suite. Several servers, or processes, share each of them."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from starlette.requests import Request

from artesian.server import tokens as module
from artesian.server.auth import SESSION_COOKIE, Auth
from artesian.server.problems import Problem
from artesian.server.tokens import Principal, Role, TokenError, Tokens

AMY = Principal(user="amy", role=Role.MEMBER, team="vision")
Open = Callable[[], Tokens]


@pytest.fixture(params=["file", "postgres"])
def open_tokens(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """Opens the same tokens once more, as another server does."""
    monkeypatch.setattr(module, "_LOOK_S", 0.0)  # a remote store is asked each time
    place: Path | str = tmp_path / "tokens"
    if request.param == "postgres":
        place = request.getfixturevalue("postgres_url")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Tokens(place)))


def of_amy(tokens: Tokens) -> str:
    return tokens.create(user="amy", role=Role.MEMBER, team="vision", note="laptop").secret


def caller(*, token: str | None = None, cookie: str | None = None) -> Request:
    headers = []
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    if cookie is not None:
        headers.append((b"cookie", f"{SESSION_COOKIE}={cookie}".encode()))
    return Request({"type": "http", "headers": headers, "client": ("10.0.0.1", 1)})


def who(auth: Auth, request: Request) -> Principal | int:
    """Who gets in, or the status of the refusal."""
    try:
        return asyncio.run(auth.principal(request))
    except Problem as problem:
        return problem.status


def test_a_token_made_at_one_server_is_good_at_another(open_tokens: Open) -> None:
    here, there = open_tokens(), open_tokens()
    assert (here.is_any, here.list()) == (False, ())
    secret = of_amy(here)
    assert there.verify(secret) == AMY
    there.look()
    assert (here.is_any, there.is_any) == (True, True)
    [found] = there.list()
    assert (found.user, found.role, found.team, found.note) == ("amy", "member", "vision", "laptop")
    assert there.verify(secret[:-1] + ("a" if secret[-1] != "a" else "b")) is None
    assert there.verify("nonsense") is None


def test_a_token_revoked_at_one_server_is_worthless_at_another(open_tokens: Open) -> None:
    here, there = open_tokens(), open_tokens()
    secret = of_amy(here)
    auth = Auth(tokens=there)
    assert who(auth, caller(token=secret)) == AMY
    assert who(auth, caller(token=secret)) == AMY, "known by now"
    [token] = here.list()
    first = here.revoke(token.id)
    assert who(auth, caller(token=secret)) == 401
    assert there.revoke(token.id) == first, "from when on is not changed any more"
    with pytest.raises(TokenError, match="not known here"):
        here.revoke("0" * 16)


def test_a_token_that_is_over_is_worthless(open_tokens: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = open_tokens()
    made = tokens.create(user="amy", role=Role.VIEWER, lasts_s=3600)
    assert tokens.verify(made.secret) is not None
    assert made.token.expires_s is not None
    monkeypatch.setattr(time, "time", lambda: made.token.expires_s)
    assert tokens.known(made.secret) is None
    assert tokens.verify(made.secret) is None


def test_a_session_begun_at_one_server_is_known_at_another_and_ends_at_all(open_tokens: Open) -> None:
    here, there = open_tokens(), open_tokens()
    cookie = here.begin_session(of_amy(here))
    for tokens in (here, there):
        assert who(Auth(tokens=tokens), caller(cookie=cookie)) == AMY
    auth = Auth(tokens=there)
    assert who(auth, caller(cookie=cookie)) == AMY
    assert who(auth, caller(cookie=f"{cookie}x")) == 401
    here.end_session(cookie)
    assert who(auth, caller(cookie=cookie)) == 401


def test_a_session_is_as_good_as_its_token(open_tokens: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = open_tokens(), open_tokens()
    secret = of_amy(here)
    auth, cookies = Auth(tokens=there), [here.begin_session(secret) for _ in range(2)]
    assert who(auth, caller(cookie=cookies[0])) == AMY
    here.revoke(here.list()[0].id)
    assert [who(auth, caller(cookie=cookie)) for cookie in cookies] == [401, 401]


def test_a_session_lasts_a_week(open_tokens: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = open_tokens()
    secret = of_amy(tokens)
    cookie = tokens.begin_session(secret)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 6 * 86_400)
    assert open_tokens().session(cookie) == AMY
    monkeypatch.setattr(time, "time", lambda: now_s + 8 * 86_400)
    assert open_tokens().session(cookie) is None
    tokens.begin_session(secret)  # which tidies up
    monkeypatch.setattr(time, "time", lambda: now_s)
    assert open_tokens().session(cookie) is None


def test_what_is_kept_lets_nobody_in(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    secret = of_amy(tokens)
    cookie = tokens.begin_session(secret)
    kept = (tmp_path / "tokens").read_bytes()
    assert secret.rpartition("_")[2].encode() not in kept
    assert cookie.encode() not in kept
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o600


def test_guessing_cookies_is_held_up_without_asking_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = Auth(tokens=Tokens(tmp_path / "tokens"))
    of_amy(auth.tokens)
    asked: list[str] = []
    monkeypatch.setattr(auth.tokens, "session", asked.append)
    assert {who(auth, caller(cookie=f"guess-{number}")) for number in range(50)} == {401}
    assert len(asked) < 30


def test_servers_on_one_database_sign_with_one_key(postgres_url: str) -> None:
    from artesian.server.postgres_tokens import PostgresTokenStore

    keys = set()
    for _ in range(3):
        with closing(PostgresTokenStore(postgres_url)) as store:
            keys.add(store.signing_key())
    assert len(keys) == 1
    assert len(keys.pop()) >= 40
