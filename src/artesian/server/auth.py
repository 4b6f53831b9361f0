"""Who calls, and whether they may: tokens, sessions of the dashboard, and the embedded user on loopback."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection, Request

from artesian.model.errors import ArtesianError
from artesian.server.limits import Buckets
from artesian.server.problems import Problem
from artesian.server.tokens import Principal, Role, Tokens

_VERIFICATIONS = 2
"""Tokens that are verified at the same time: each takes 19 MiB and tens of milliseconds."""
SESSION_COOKIE = "artesian_session"
SignOn = Callable[[HTTPConnection], Principal | None]


class OpenListener(ArtesianError):  # noqa: N818 - reads as what it is
    """The server would serve others than this machine's user without asking who they are."""


@dataclass(slots=True, kw_only=True)
class Auth:
    """Finds out who calls.

    ``embedded`` is who everybody is while there are no tokens, on loopback; None: nobody gets in without.
    ``sign_on`` returns who has logged in at the provider of single sign-on. A session of the dashboard is known by
    its cookie.
    """

    tokens: Tokens
    embedded: Principal | None = None
    sign_on: SignOn = field(default=lambda _: None)
    _wrong: Buckets = field(default_factory=lambda: Buckets(rate=0.5, burst=20.0))
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_VERIFICATIONS))

    async def principal(self, request: HTTPConnection) -> Principal:
        """Return who calls. Raises Problem 401 or 429."""
        if self.tokens.is_stale:
            await asyncio.to_thread(self.tokens.look)
        given = request.headers.get("authorization")
        caller = request.client.host if request.client is not None else "?"
        if given is None:
            found = await self._session(request, caller) or self.sign_on(request) or self._default()
            if found is None:
                raise _unknown("this server asks for a token", "set ARTESIAN_TOKEN, or log in")
            return found
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer":
            raise _unknown("authorization: expected a bearer token", "Authorization: Bearer TOKEN")
        return await self.bearer(token.strip(), caller)

    async def bearer(self, token: str, caller: str) -> Principal:
        """Return whose token it is; ``caller`` is from where it came. Raises Problem 401 or 429."""
        if (known := self.tokens.known(token)) is not None:
            return known
        if (wait_s := self._wrong.wait_s(caller)) is not None:
            raise too_many("too many tokens were tried from here", wait_s)
        async with self._room:
            found = await asyncio.to_thread(self.tokens.verify, token)
        if found is None:
            self._wrong.take(caller)
            raise _unknown(
                "the token is not known here, or expired, or revoked", "ask an admin for a new one"
            )
        return found

    async def _session(self, request: HTTPConnection, caller: str) -> Principal | None:
        """Return whose session the cookie is of; None where there is none, or it is over."""
        cookie = request.cookies.get(SESSION_COOKIE)
        if cookie is None:
            return None
        if (known := self.tokens.known_session(cookie)) is not None:
            return known
        if self._wrong.wait_s(caller) is not None:
            return None
        if (found := await asyncio.to_thread(self.tokens.session, cookie)) is None:
            self._wrong.take(caller)
        return found

    def _default(self) -> Principal | None:
        return None if self.embedded is None or self.tokens.is_any else self.embedded


def _unknown(message: str, hint: str) -> Problem:
    return Problem(401, "unauthenticated", message, hint=hint, headers={"WWW-Authenticate": "Bearer"})


def too_many(message: str, wait_s: float) -> Problem:
    """Return the problem of somebody who is to come back later."""
    seconds = max(1, round(wait_s + 0.5))
    return Problem(
        429,
        "too-many-requests",
        message,
        hint=f"try again in {seconds} s",
        headers={"Retry-After": str(seconds)},
    )


def allowed(role: Role) -> Callable[[Request], Awaitable[Principal]]:
    """Return the dependency of a route that needs ``role``; it gives the route who calls."""

    async def dependency(request: Request) -> Principal:
        auth: Auth = request.app.state.auth
        principal = await auth.principal(request)
        if not principal.role.includes(role):
            raise Problem(
                403,
                "forbidden",
                f"{request.method} {request.url.path}: expected the role {role} or more, got {principal.role}",
                hint="ask an admin for a token with that role",
            )
        buckets: Buckets = request.app.state.buckets
        if (wait_s := buckets.take(principal.user)) is not None:
            raise too_many(f"{principal.user} sends too many requests", wait_s)
        return principal

    dependency.role = role  # type: ignore[attr-defined]  # for tests to see which routes ask for what
    return dependency
