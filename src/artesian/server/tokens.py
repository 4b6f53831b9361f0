"""Tokens: who may do what, for programs. 256 random bits each, told once; only an argon2 hash is kept.

They are in a SQLite file of their own, mode 0600, beside the journal: what is in the journal may be shown.
"""

import hashlib
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock

from artesian.model.errors import ArtesianError
from artesian.model.views import NewToken, TokenView

_SCHEMA = """CREATE TABLE IF NOT EXISTS tokens (
  id TEXT PRIMARY KEY, hash TEXT NOT NULL, user TEXT NOT NULL, role TEXT NOT NULL, team TEXT,
  created_s REAL NOT NULL, expires_s REAL, revoked_s REAL, note TEXT NOT NULL) WITHOUT ROWID, STRICT"""
_COLUMNS = "id, user, role, team, created_s, expires_s, revoked_s, note"
_FORM = re.compile(r"artesian_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_MOST_CACHED = 10_000
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


class TokenError(ArtesianError, ValueError):
    """A token that cannot be made or found as asked."""


class Role(StrEnum):
    """What somebody may do; each may also do what those before may."""

    VIEWER = "viewer"
    """Read."""
    MEMBER = "member"
    """Submit jobs, and cancel their own."""
    OPERATOR = "operator"
    """Cancel anybody's jobs."""
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
    """The tokens of one state folder. May be used from several threads, and several processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._verified: dict[bytes, TokenView] = {}
        self._stamp: tuple[int, int] | None = None
        self._is_any: bool | None = None

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
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)",
                (id_, _hash(secret), user, role.value, team, now_s, token.expires_s, token.note),
            )
        return NewToken(token=token, secret=f"artesian_{id_}_{secret}")

    def revoke(self, id_: str) -> TokenView:
        """Make the token worthless from now on. Raises TokenError where there is none with this id."""
        with self._connection() as connection:
            connection.execute(
                "UPDATE tokens SET revoked_s = coalesce(revoked_s, ?) WHERE id = ?", (time.time(), id_)
            )
        with self._lock:
            self._verified.clear()
        found = next((token for token in self.list() if token.id == id_), None)
        if found is None:
            raise TokenError(f"token {id_!r} is not known here", hint="artesian token list shows the tokens")
        return found

    # -- reading ------------------------------------------------------------------------------------

    def list(self) -> tuple[TokenView, ...]:
        """Return all tokens ever made, the oldest first."""
        if not self._path.exists():
            return ()
        with self._connection() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM tokens ORDER BY created_s, id")  # noqa: S608
            return tuple(_view(row) for row in rows)

    @property
    def is_any(self) -> bool:
        """Whether a token was ever made: from then on nobody gets in without one.

        Every request without one asks, so it costs a look at the file's time unless somebody changed it.
        """
        with self._lock:
            self._forget_if_changed()
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
        with self._lock:
            self._forget_if_changed()
            found = self._verified.get(key)
        return None if found is None else _principal(found)

    def verify(self, token: str) -> Principal | None:
        """Return whose token this is; None where it is nobody's, expired or revoked.

        Takes tens of milliseconds on purpose: call it on a thread, and ``known`` before it.
        """
        form = _FORM.fullmatch(token)
        if form is None or not self._path.exists():
            return None
        with self._lock:
            self._forget_if_changed()
            stamp = self._stamp
        with self._connection() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS}, hash FROM tokens WHERE id = ?",  # noqa: S608
                (form[1],),
            ).fetchone()
        if row is None or not _is_hash_of(row[-1], form[2]):
            return None
        found = _view(row[:-1])
        with self._lock:
            if stamp == self._stamp:  # else somebody has changed something meanwhile: a revocation, perhaps
                if len(self._verified) >= _MOST_CACHED:
                    self._verified.clear()
                self._verified[hashlib.sha256(token.encode()).digest()] = found
        return _principal(found)

    def _forget_if_changed(self) -> None:
        """Another process may have revoked one."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            stamp = None
        if stamp != self._stamp:
            self._stamp, self._is_any = stamp, None
            self._verified.clear()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open the file, made for its user only, in a transaction."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, timeout=5.0)
        try:
            # Not WAL: every commit is to change the file itself, by which other processes see it.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_SCHEMA)
            with connection:
                yield connection
        finally:
            connection.close()


def _view(row: tuple[object, ...]) -> TokenView:
    names = [name.strip() for name in _COLUMNS.split(",")]
    return TokenView(**dict(zip(names, row, strict=True)))  # type: ignore[arg-type]  # the table is STRICT


def _principal(token: TokenView) -> Principal | None:
    is_over = token.expires_s is not None and token.expires_s <= time.time()
    if is_over or token.revoked_s is not None:
        return None
    return Principal(user=token.user, role=Role(token.role), team=token.team)


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
