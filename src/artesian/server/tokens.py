"""Tokens: who may do what, for programs. 256 random bits each, told once; only an argon2 hash is kept.

A session of the dashboard is a token's, too: as good as that is, at every server that has the same store.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock

from artesian.model.errors import ArtesianError
from artesian.model.views import NewToken, TokenView
from artesian.server.token_store import token_store

_FORM = re.compile(r"artesian_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_MOST_CACHED = 10_000
_LOOK_S = 1.0
"""How long a remote store is not asked whether anything has changed: so long a token may be good that was revoked at
another server."""
_SESSION_S = 7 * 86_400.0
"""How long a session lasts."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


class TokenError(ArtesianError, ValueError):
    """A token that cannot be made or found as asked."""


class Role(StrEnum):
    """What somebody may do; each may also do what those before may."""

    VIEWER = "viewer"
    """Read."""
    MEMBER = "member"
    """Submit jobs, and cancel and resize their own."""
    OPERATOR = "operator"
    """Cancel and resize anybody's jobs, and keep nodes out of use."""
    ADMIN = "admin"
    """Make and revoke tokens."""

    def includes(self, other: "Role") -> bool:
        """Whether this one may do all that ``other`` may."""
        return _RANK[self] >= _RANK[other]


_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls. ``team`` is the only one whose jobs they see and submit; None: every team's."""

    user: str
    role: Role
    team: str | None = None


class Tokens:
    """The tokens at ``place``: a file, or the URL of a database. May be used from several threads, and processes.

    Raises StoreError where a database cannot be reached.
    """

    def __init__(self, place: Path | str) -> None:
        self._store = token_store(place)
        self._lock = Lock()
        self._verified: dict[bytes, TokenView] = {}
        self._sessions: dict[str, TokenView] = {}
        self._stamp: Hashable = None
        self._looked_s = 0.0
        self._is_any: bool | None = None

    def close(self) -> None:
        """Let go of what they are kept in."""
        self._store.close()

    # -- changing -----------------------------------------------------------------------------------

    def create(
        self,
        *,
        user: str,
        role: Role,
        team: str | None = None,
        lasts_s: float | None = None,
        note: str = "",
    ) -> NewToken:
        """Make a token; the only time that its secret is known. Raises TokenError."""
        for subject, value in (("user", user), ("team", team)):
            if value is not None and not _WORD.fullmatch(value):
                raise TokenError(
                    f"token: {subject}: expected up to 63 letters, digits and . _ @ -, got {value!r}"
                )
        if role is Role.ADMIN and team is not None:
            raise TokenError("token: expected an admin to be of no team: they can make tokens of any")
        if lasts_s is not None and not 0 < lasts_s < 1e10:
            raise TokenError(f"token: expected it to last for more than 0 s, got {lasts_s:g} s")
        id_, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        now_s = time.time()
        token = TokenView(
            id=id_,
            user=user,
            role=role.value,
            team=team,
            created_s=now_s,
            expires_s=None if lasts_s is None else now_s + lasts_s,
            revoked_s=None,
            note=note[:200],
        )
        self._store.add(token, _hash(secret))
        self.look()
        return NewToken(token=token, secret=f"artesian_{id_}_{secret}")

    def revoke(self, id_: str) -> TokenView:
        """Make the token worthless from now on. Raises TokenError where there is none with this id."""
        self._store.revoke(id_, time.time())
        self.look()
        found = next((token for token in self.list() if token.id == id_), None)
        if found is None:
            raise TokenError(f"token {id_!r} is not known here", hint="artesian token list shows the tokens")
        return found

    # -- reading ------------------------------------------------------------------------------------

    def list(self) -> tuple[TokenView, ...]:
        """Return all tokens ever made, the oldest first."""
        return self._store.all()

    @property
    def is_stale(self) -> bool:
        """Whether ``look`` is to be called, on a thread, before anything is said of whom to let in."""
        return self._store.is_remote and time.monotonic() - self._looked_s > _LOOK_S

    def look(self) -> None:
        """See whether anybody has changed anything, and forget what was known then."""
        asked_s = time.monotonic()
        stamp = self._store.stamp()
        with self._lock:
            self._looked_s = asked_s
            if stamp != self._stamp:
                self._stamp, self._is_any = stamp, None
                self._verified.clear()
                self._sessions.clear()

    @property
    def is_any(self) -> bool:
        """Whether a token was ever made: from then on nobody gets in without one.

        Every request without one asks, so it costs a look at the file's time unless somebody changed it.
        """
        self._look_if_quick()
        with self._lock:
            stamp, found = self._stamp, self._is_any
        if found is None:
            found = bool(self.list())
            with self._lock:
                if stamp == self._stamp:
                    self._is_any = found
        return found

    def known(self, token: str) -> Principal | None:
        """Return whose token this is, if it was verified not long ago and is still good; quick."""
        key = hashlib.sha256(token.encode()).digest()
        self._look_if_quick()
        with self._lock:
            found = self._verified.get(key)
        return None if found is None else _principal(found)

    def verify(self, token: str) -> Principal | None:
        """Return whose token this is; None where it is nobody's, expired or revoked.

        Takes tens of milliseconds on purpose: call it on a thread, and ``known`` before it.
        """
        form = _FORM.fullmatch(token)
        if form is None:
            return None
        self._look_if_quick()
        stamp = self._stamp
        kept = self._store.find(form[1])
        if kept is None or not _is_hash_of(kept[1], form[2]):
            return None
        found = kept[0]
        with self._lock:
            if stamp == self._stamp:  # else somebody has changed something meanwhile: a revocation, perhaps
                if len(self._verified) >= _MOST_CACHED:
                    self._verified.clear()
                self._verified[hashlib.sha256(token.encode()).digest()] = found
        return _principal(found)

    # -- sessions of the dashboard ------------------------------------------------------------------

    def begin_session(self, token: str) -> str:
        """Return the cookie of a new session of a token, which was verified just now."""
        form = _FORM.fullmatch(token)
        assert form is not None, "a verified token has its form"
        cookie, now_s = secrets.token_urlsafe(32), time.time()
        self._store.begin_session(_cookie_hash(cookie), form[1], now_s, oldest_s=now_s - _SESSION_S)
        return cookie

    def end_session(self, cookie: str) -> None:
        """End a session, at every server."""
        self._store.end_session(_cookie_hash(cookie))
        self.look()

    def known_session(self, cookie: str) -> Principal | None:
        """Return who logged in to get this cookie, if that was looked up not long ago; quick."""
        self._look_if_quick()
        with self._lock:
            found = self._sessions.get(_cookie_hash(cookie))
        return None if found is None else _principal(found)

    def session(self, cookie: str) -> Principal | None:
        """Return who logged in to get this cookie; None where nobody did, or the token is no good any more."""
        stamp, hashed = self._stamp, _cookie_hash(cookie)
        found = self._store.session(hashed, oldest_s=time.time() - _SESSION_S)
        if found is None:
            return None
        with self._lock:
            if stamp == self._stamp:
                if len(self._sessions) >= _MOST_CACHED:
                    self._sessions.clear()
                self._sessions[hashed] = found
        return _principal(found)

    def _look_if_quick(self) -> None:
        """Another process may have revoked one: see at once where that costs nothing."""
        if not self._store.is_remote:
            self.look()


def _principal(token: TokenView) -> Principal | None:
    is_over = token.expires_s is not None and token.expires_s <= time.time()
    if is_over or token.revoked_s is not None:
        return None
    return Principal(user=token.user, role=Role(token.role), team=token.team)


def _cookie_hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()


def _hash(secret: str) -> str:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1).hash(secret)


def _is_hash_of(hashed: str, secret: str) -> bool:
    from argon2 import PasswordHasher
    from argon2.exceptions import VerificationError

    try:
        return PasswordHasher().verify(hashed, secret)
    except VerificationError:
        return False
