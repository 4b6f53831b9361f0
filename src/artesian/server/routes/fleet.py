"""Nodes, devices, teams, the queue, the census."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from artesian.census import Census, CensusError
from artesian.server.problems import Problem
from artesian.server.routes.common import Cursor, Limit, Operator, TheService, Viewer, answer, shows

router = APIRouter(tags=["fleet"])


@router.get("/fleet", responses=shows("FleetView"))
async def show_fleet(service: TheService, who: Viewer) -> Response:
    """Show the devices by model and pool: how many there are, are held, are free, are gone."""
    del who
    return answer(service.fleet.view())


@router.get("/nodes", responses=shows("NodePage"))
async def list_nodes(
    service: TheService,
    who: Viewer,
    pool: Annotated[str | None, Query(max_length=200)] = None,
    is_up: bool | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """List nodes, page by page, in the order of their ids."""
    del who
    return answer(service.fleet.page(pool=pool, is_up=is_up, limit=limit, cursor=cursor))


NodeId = Annotated[str, Path(min_length=1, max_length=500)]


@router.get("/nodes/{node:path}", responses=shows("NodeView"))
async def show_node(node: NodeId, service: TheService, who: Viewer) -> Response:
    """Show a node, each of its devices, who holds them, and what was measured of them."""
    found = await service.node(node, who)
    if found is None:
        raise Problem(404, "unknown-node", f"node {node!r} is not known here", hint="GET /api/v1/nodes")
    return answer(found)


@router.post("/nodes/{node:path}/exclude", responses=shows("NodeView"))
async def exclude_node(
    node: NodeId,
    service: TheService,
    who: Operator,
    reason: Annotated[str, Query(min_length=1, max_length=500)],
    stop: Annotated[bool, Query(description="Stop what runs there, too: it goes on elsewhere.")] = False,
) -> Response:
    """Have nothing more start on a node, for the reason that is given."""
    return answer(await service.exclude(node, who, reason=reason, is_stopping=stop))


@router.post("/nodes/{node:path}/return", responses=shows("NodeView"))
async def return_node(node: NodeId, service: TheService, who: Operator) -> Response:
    """Have an excluded node used again."""
    return answer(await service.return_node(node, who))


@router.get("/teams", responses=shows("TeamList"))
async def list_teams(service: TheService, who: Viewer) -> Response:
    """List the teams: jobs that are not over, by state, devices held, guaranteed and borrowed, weights and limits."""
    return answer({"teams": service.fleet.teams(only=who.team)})


@router.get("/queue", responses=shows("QueueView"))
async def show_queue(service: TheService, who: Viewer) -> Response:
    """Show how many jobs are in each state."""
    del who
    return answer(service.queue())


@router.get("/moves", responses=shows("MovesView"))
async def list_moves(service: TheService, who: Viewer) -> Response:
    """List the moves of running jobs with which waiting ones can start, and what each would lose. Nobody is moved."""
    return answer(service.moves(who))


@router.get(
    "/census",
    responses={
        200: {"description": "The census.", "content": {"application/json": {"schema": {"type": "object"}}}}
    },
)
async def show_census(service: TheService, who: Viewer) -> Response:
    """Show the latest census of the server's machine."""
    del who

    def load() -> dict[str, Any]:
        return Census.load(service.dir.census).summary()

    try:
        found = await asyncio.to_thread(load)
    except (FileNotFoundError, CensusError) as error:
        raise Problem(
            404, "no-census", "no census was taken of this machine yet", hint="artesian census"
        ) from error
    return answer(found)
