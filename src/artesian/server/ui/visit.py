"""One open page: who looks at it, in which language, and what it may ask the server."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nicegui import Client, ui
from starlette.requests import HTTPConnection, Request

from artesian.model.errors import ArtesianError
from artesian.server.auth import Auth, too_many
from artesian.server.ledger import Ledger
from artesian.server.limits import Buckets
from artesian.server.problems import Problem
from artesian.server.service import Service
from artesian.server.tokens import Principal, Role
from artesian.server.ui.login import login_path
from artesian.server.ui.markup import Markup, join, tag
from artesian.server.ui.phrases import in_words, phrase
from artesian.server.ui.texts import Texts

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all pages are served from."""

    auth: Auth
    buckets: Buckets
    service: Service
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """``who`` was let in when the page was asked for; what happens on it later asks again, by ``principal``."""

    house: House
    request: Request
    client: Client
    texts: Texts
    who: Principal

    @property
    def service(self) -> Service:
        """What the API's routes ask, too."""
        return self.house.service

    async def principal(self, role: Role = Role.VIEWER) -> Principal:
        """Return who is at the page's socket now.

        The socket's own cookie counts, not the page's: whoever got hold of a page's number has not got its
        session. Raises Problem where their token is no good any more, where they are somebody else than the
        page was made for, and where their role does not allow it.
        """
        found = await self.house.auth.principal(self._connection())
        if found.user != self.who.user or found.team != self.who.team or not found.role.includes(role):
            raise Problem(403, "forbidden", self.texts("forbidden"))
        if (wait_s := self.house.buckets.take(found.user)) is not None:
            raise too_many(f"{found.user} sends too many requests", wait_s)
        return found

    def _connection(self) -> HTTPConnection:
        scope = (self.client.environ or {}).get("asgi.scope")
        return self.request if scope is None else HTTPConnection(scope)

    def failure(self, error: Exception) -> Markup:
        """Return what is shown in place of what could not be."""
        texts = self.texts
        if not isinstance(error, ArtesianError):
            return tag("p", texts("broken"), class_="failure", role="alert")
        return tag(
            "p",
            join((tag("strong", texts("failed")), texts("colon"), phrase(str(error), texts))),
            join((tag("br"), texts("hint", hint=in_words(error.hint, texts)))) if error.hint else None,
            class_="failure",
            role="alert",
        )

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Tell of an error of the block on the page; who has no session any more logs in again."""
        try:
            yield
        except Problem as problem:
            if problem.status == 401:
                self.client.open(login_path(self.request))
            else:
                ui.notify(in_words(str(problem), self.texts), type="negative")
        except ArtesianError as error:
            ui.notify(in_words(str(error), self.texts), type="negative")

    async def live(
        self, every_s: float, render: Callable[[Principal], Awaitable[Markup]], *, is_slow: bool = False
    ) -> None:
        """Show what ``render`` returns, now and every so many seconds. What is slow comes behind the page."""
        box = ui.html(tag("p", self.texts("loading"), class_="faint"), sanitize=False)

        async def refresh() -> None:
            try:
                content = await render(await self.principal())
            except Problem as problem:
                if problem.status == 401:
                    self.client.open(login_path(self.request))
                    return
                content = self.failure(problem)
            except ArtesianError as error:
                content = self.failure(error)
            except Exception as error:
                _log.exception("the page %s cannot be shown", self.request.url.path)
                content = self.failure(error)
            if content != box.content:
                box.set_content(content)

        if not is_slow:
            await refresh()
        ui.timer(every_s, refresh, immediate=is_slow)
