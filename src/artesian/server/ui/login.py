"""Logging in and out, and the choice of the language: plain forms and links, which need no script."""

import asyncio
from urllib.parse import parse_qs, urlencode, urlsplit

from fastapi import FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response

from artesian.server.auth import SESSION_COOKIE, Auth
from artesian.server.gate import too_large
from artesian.server.problems import Problem
from artesian.server.ui.markup import Markup, join, tag
from artesian.server.ui.plain import language_links, plain_page
from artesian.server.ui.texts import LANGUAGES, Texts, language_of

LANGUAGE_COOKIE = "artesian_language"
HOME = "/ui/"
LOGIN = "/ui/login"
_FORM_BYTES = 4096
"""More than a token needs: strangers send it, and all other requests wait while it is read."""
_YEAR_S = 365 * 86_400


def texts_of(connection: HTTPConnection) -> Texts:
    """Return the texts in the language of whoever calls."""
    chosen = connection.cookies.get(LANGUAGE_COOKIE)
    return Texts(language_of(chosen, connection.headers.get("accept-language")))


def login_path(connection: HTTPConnection) -> str:
    """Return where somebody is sent who has to log in first, and who then comes back."""
    return f"{LOGIN}?{urlencode({'to': connection.url.path})}"


def add_login(app: FastAPI, auth: Auth) -> None:
    """Add the routes."""

    async def show(request: Request) -> Response:
        return _form(request, None, 200)

    async def log_in(request: Request) -> Response:
        if len(body := await request.body()) > _FORM_BYTES:
            raise too_large(_FORM_BYTES)
        fields = parse_qs(body.decode(errors="replace"))
        token = fields.get("token", [""])[0].strip()
        texts = texts_of(request)
        try:
            await auth.bearer(token, request.client.host if request.client is not None else "?")
        except Problem as problem:
            said = "login_often" if problem.status == 429 else "login_wrong"
            return _form(request, texts(said), problem.status)
        response = RedirectResponse(_within(request.query_params.get("to")), 303)
        cookie = await asyncio.to_thread(auth.tokens.begin_session, token)
        _set(response, request, SESSION_COOKIE, cookie, max_age=None)
        return response

    async def log_out(request: Request) -> Response:
        if (cookie := request.cookies.get(SESSION_COOKIE)) is not None:
            await asyncio.to_thread(auth.tokens.end_session, cookie)
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(SESSION_COOKIE, path="/")
        return response

    async def choose(request: Request) -> Response:
        response = RedirectResponse(_within(request.query_params.get("to")), 303)
        if (language := request.path_params["language"]) in LANGUAGES:
            _set(response, request, LANGUAGE_COOKIE, language, max_age=_YEAR_S)
        return response

    async def home(request: Request) -> Response:
        del request
        return RedirectResponse(HOME, 303)

    for path, method, route in (
        ("/", "GET", home),
        ("/ui", "GET", home),
        (LOGIN, "GET", show),
        (LOGIN, "POST", log_in),
        ("/ui/logout", "POST", log_out),
        ("/ui/language/{language}", "GET", choose),
    ):
        app.add_api_route(path, route, methods=[method], include_in_schema=False)


def _set(response: Response, request: Request, name: str, value: str, *, max_age: int | None) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        path="/",
        httponly=True,
        samesite="strict",
        secure=_is_https(request),
    )


def _is_https(request: Request) -> bool:
    """Return whether the browser came by https, be it to a proxy: a form's origin, which the gate has seen, tells."""
    origin = request.headers.get("origin", "")
    return request.url.scheme == "https" or urlsplit(origin).scheme == "https"


def _within(to: str | None) -> str:
    """Return where to go on to: only within the dashboard, whatever the link said."""
    parts = urlsplit(to or HOME)
    is_ours = not parts.scheme and not parts.netloc and parts.path.startswith(HOME) and "\\" not in parts.path
    return parts.path if is_ours else HOME


def _single_sign_on(request: Request, texts: Texts) -> Markup | None:
    """Return the link to the provider, where the server has one."""
    if getattr(request.app.state, "oidc", None) is None:
        return None
    query = urlencode({"goal": _within(request.query_params.get("to"))})
    return tag("p", tag("a", texts("single_sign_on"), href=f"/login?{query}"))


def _form(request: Request, wrong: str | None, status: int) -> Response:
    texts = texts_of(request)
    form = tag(
        "form",
        tag("label", texts("token"), for_="token"),
        tag(
            "input",
            id="token",
            name="token",
            type="password",
            autocomplete="current-password",
            required=True,
            autofocus=True,
            aria_describedby="wrong how" if wrong else "how",
            aria_invalid="true" if wrong else None,
        ),
        tag("p", wrong, id="wrong", class_="wrong", role="alert") if wrong else None,
        tag("button", texts("login"), type="submit", class_="act"),
        tag("p", texts("login_how"), id="how", class_="faint"),
        _single_sign_on(request, texts),
        method="post",
        class_="login",
    )
    return plain_page(texts, texts("login"), join((form, language_links())), status=status)
