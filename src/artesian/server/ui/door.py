"""What every request to the dashboard passes: no socket for strangers, and nothing from elsewhere in a page."""

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artesian.server.auth import Auth, too_many
from artesian.server.limits import Buckets
from artesian.server.problems import Problem
from artesian.server.ui.login import login_path
from artesian.server.ui.nonces import new_nonce

_SOCKET = "/_nicegui_ws/"
_ASSETS = "/ui/_nicegui/"
"""Below it are scripts and styles, the same for everybody."""
_PAGE_COST = 100.0


def content_policy(nonce: str) -> str:
    """Return the Content-Security-Policy of a page whose own scripts have this nonce.

    Vue compiles NiceGUI's templates in the browser, and NiceGUI's socket sends handlers as text: both take
    'unsafe-eval'. Scripts in the page's text, and handlers in attributes, run with the nonce only, so never.
    """
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


class Door:
    """Wraps NiceGUI's application. Host and origin were looked at by the gate before.

    NiceGUI keeps what a page is made of for a minute, whether its browser comes back or not: so nobody is let
    through to it who has not logged in, and a page costs its reader as much as many requests to the API.
    """

    def __init__(self, app: ASGIApp, *, auth: Auth, buckets: Buckets) -> None:
        self._app = app
        self._auth = auth
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_asset = scope["type"] == "http" and scope["path"].startswith(_ASSETS)
        refusal = None if is_asset else await self._refusal(scope)
        if refusal is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal is not None:
            await refusal(scope, receive, send)
        else:
            nonce = new_nonce(HTTPConnection(scope))

            async def guarded(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).setdefault("Content-Security-Policy", content_policy(nonce))
                await send(message)

            await self._app(scope, receive, guarded)

    async def _refusal(self, scope: Scope) -> Response | None:
        """Return what somebody gets who may not go on; None where they may, and are now in the scope's state."""
        connection = HTTPConnection(scope)
        is_socket = _SOCKET in scope["path"]
        try:
            who = await self._auth.principal(connection)
        except Problem as problem:
            if problem.status == 401 and not is_socket:
                return RedirectResponse(login_path(connection), 303)
            return problem.response()
        if not is_socket and (wait_s := self._buckets.take(who.user, _PAGE_COST)) is not None:
            return too_many(f"{who.user} opens too many pages", wait_s).response()
        connection.state.principal = who
        return None
