"""Mounts the dashboard on the application of ``artesian serve``. A process can have one."""

from collections.abc import Awaitable, Callable
from functools import partial

from fastapi import FastAPI
from nicegui import Client, core, ui
from starlette.requests import Request
from starlette.responses import Response

from artesian.server.tokens import Principal
from artesian.server.ui import fleet, job, overview, queue, simulate
from artesian.server.ui.door import Door
from artesian.server.ui.frame import framed
from artesian.server.ui.login import add_login, texts_of
from artesian.server.ui.nonces import add_nonces
from artesian.server.ui.plain import missing
from artesian.server.ui.trial import Trials
from artesian.server.ui.visit import House, Visit

Build = Callable[[Visit], Awaitable[None]]


def mount(app: FastAPI) -> None:
    """Add all pages below ``/ui`` to an application that ``create_app`` made."""
    state = app.state
    house = House(auth=state.auth, buckets=state.buckets, service=state.service, ledger=state.ledger)
    add_login(app, house.auth)
    _add(house, "/", "overview", overview.build)
    _add(house, "/fleet", "fleet", fleet.build)
    _add(house, "/queue", "queue", queue.build)
    _add(house, "/jobs/{job}", "job", job.build)
    _add(house, "/simulate", "simulate", partial(simulate.build, trials=Trials()))
    core.sio.eio.cors_allowed_origins = (
        None  # NiceGUI's default lets pages of any origin read; ours need none
    )
    core.app.config.quasar_config["brand"].update(_COLOURS)
    add_nonces()
    core.app.add_exception_handler(404, _answer_missing)
    core.app.add_middleware(Door, auth=house.auth, buckets=house.buckets)
    ui.run_with(
        app,
        mount_path="/ui",
        title="artesian",
        favicon=_ICON,
        binding_refresh_interval=None,
        tailwind=False,
        show_welcome_message=False,
    )


_COLOURS = {"primary": "#0b5cad", "negative": "#b3261e", "positive": "#20703b"}
"""Dark enough for white text on them, by WCAG AA."""
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<path d="M2 3h12v2H2zm0 4h9v2H2zm0 4h5v2H2z" fill="#0b5cad"/></svg>'
)


async def _answer_missing(request: Request, error: Exception) -> Response:
    del error
    return missing(texts_of(request))


def _add(house: House, path: str, name: str, build: Build) -> None:
    async def show(request: Request, client: Client) -> None:
        who: Principal = request.state.principal  # by the door
        visit = Visit(house=house, request=request, client=client, texts=texts_of(request), who=who)
        with framed(visit, name):
            await build(visit)

    show.__name__ = f"show_{name}"
    ui.page(path)(show)
