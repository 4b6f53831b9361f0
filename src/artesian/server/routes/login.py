"""Logging in and out, where artesian.toml has ``[oidc]``. Pages for people, below no version."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from artesian.server.oidc_settings import SESSION
from artesian.server.problems import Problem
from artesian.server.routes.common import answer

if TYPE_CHECKING:
    from artesian.server.oidc import Oidc

router = APIRouter(tags=["login"])


def _oidc(request: Request) -> "Oidc":
    oidc: Oidc | None = request.app.state.oidc
    if oidc is None:
        raise Problem(
            404, "no-single-sign-on", "this server has no single sign-on", hint="[oidc] in artesian.toml"
        )
    return oidc


@router.get("/login", status_code=303, response_class=RedirectResponse)
async def begin_login(request: Request, goal: Annotated[str, Query(max_length=1000)] = "/") -> Response:
    """Go to the identity provider."""
    return await _oidc(request).begin(goal)


@router.get("/login/callback", status_code=303, response_class=RedirectResponse)
async def finish_login(request: Request) -> Response:
    """Come back from the identity provider."""
    return await _oidc(request).finish(request)


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Forget the session in this browser."""
    _oidc(request)
    response = answer({"status": "logged out"})
    response.delete_cookie(SESSION)
    return response
