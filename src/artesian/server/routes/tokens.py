"""Tokens: who may come in. For admins."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from artesian.server.auth import Auth
from artesian.server.problems import Problem
from artesian.server.routes.common import Admin, answer, shows
from artesian.server.tokens import Role, TokenError

router = APIRouter(prefix="/tokens", tags=["tokens"])


@router.get("", responses=shows("TokenList"))
async def list_tokens(request: Request, who: Admin) -> Response:
    """List all tokens ever made, without their secrets."""
    del who
    auth: Auth = request.app.state.auth
    return answer({"tokens": await asyncio.to_thread(auth.tokens.list)})


@router.post("", status_code=201, responses=shows("NewToken", 201))
async def create_token(
    request: Request,
    who: Admin,
    user: Annotated[str, Query(max_length=100)],
    role: Role,
    team: Annotated[str | None, Query(max_length=100)] = None,
    lasts_s: Annotated[float | None, Query(gt=0, lt=1e10)] = None,
    note: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Make a token. Its secret is in this answer and nowhere else."""
    del who
    auth: Auth = request.app.state.auth
    try:
        made = await asyncio.to_thread(
            lambda: auth.tokens.create(user=user, role=role, team=team, lasts_s=lasts_s, note=note)
        )
    except TokenError as error:
        raise Problem(422, "invalid-parameter", str(error), hint=error.hint) from error
    return answer(made, 201)


@router.delete("/{token}", responses=shows("TokenView"))
async def revoke_token(
    request: Request, who: Admin, token: Annotated[str, Path(min_length=1, max_length=100)]
) -> Response:
    """Make a token worthless from now on, by its id."""
    del who
    auth: Auth = request.app.state.auth
    try:
        return answer(await asyncio.to_thread(auth.tokens.revoke, token))
    except TokenError as error:
        raise Problem(404, "unknown-token", str(error), hint=error.hint) from error
