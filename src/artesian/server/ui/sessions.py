"""Who has logged in with a browser. The cookie is random; the token it stands for stays in this process."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

COOKIE = "artesian_session"
_MOST = 10_000


@dataclass(slots=True)
class Sessions:
    """Tokens by the value of the cookie. A restart of the server ends all sessions."""

    _tokens: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def begin(self, token: str) -> str:
        """Return the cookie of a new session; the oldest one ends where there are too many."""
        cookie = secrets.token_urlsafe(32)
        self._tokens[cookie] = token
        if len(self._tokens) > _MOST:
            self._tokens.popitem(last=False)
        return cookie

    def end(self, connection: HTTPConnection) -> None:
        """End the session, if there is one."""
        self._tokens.pop(connection.cookies.get(COOKIE, ""), None)

    def token(self, connection: HTTPConnection) -> str | None:
        """Return the token that the session was begun with: whether it is still good is to be asked each time."""
        return self._tokens.get(connection.cookies.get(COOKIE, ""))
