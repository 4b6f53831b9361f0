"""What is around every page: its head, the way to the others, the language, and who is logged in."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from nicegui import ui

from artesian.server.auth import SESSION_COOKIE
from artesian.server.ui.markup import Markup, join, tag
from artesian.server.ui.nonces import nonce_of
from artesian.server.ui.plain import STYLE
from artesian.server.ui.texts import LANGUAGES, LOCALES
from artesian.server.ui.visit import Visit

PAGES = {"overview": "/ui/", "fleet": "/ui/fleet", "queue": "/ui/queue", "simulate": "/ui/simulate"}
_FOCUS = (Path(__file__).parent / "static" / "focus.js").read_text(encoding="utf-8")


@contextmanager
def framed(visit: Visit, here: str) -> Iterator[None]:
    """Build a page; the block adds its content. ``here`` is the name of one of PAGES, or of a page below."""
    texts = visit.texts
    # A page is registered once, for all languages; this visit's copy has its own.
    visit.client.page = copy.copy(visit.client.page)
    visit.client.page.language = "zh-CN" if texts.language == "zh" else "en-US"
    ui.page_title(f"{texts(here)} · artesian")
    ui.add_head_html(f'<style>{STYLE}</style><script nonce="{nonce_of(visit.request)}">{_FOCUS}</script>')
    ui.html(_header(visit, here), sanitize=False).classes("head")
    with ui.element("div").props("id=content tabindex=-1").classes("page"):
        yield


def _header(visit: Visit, here: str) -> Markup:
    texts = visit.texts
    path = quote(visit.request.url.path)
    pages = join(
        tag("a", texts(name), href=to, aria_current="page" if name == here else None)
        for name, to in PAGES.items()
    )
    languages = join(
        tag(
            "a",
            name,
            href=f"/ui/language/{code}?to={path}",
            lang=LOCALES[code],
            aria_current="true" if code == texts.language else None,
        )
        for code, name in LANGUAGES.items()
    )
    has_session = SESSION_COOKIE in visit.request.cookies
    log_out = tag(
        "form",
        tag("button", texts("log_out"), type="submit", class_="plain"),
        method="post",
        action="/ui/logout",
    )
    who = tag(
        "span",
        texts("logged_in", user=visit.who.user, role=texts(f"role.{visit.who.role.value}")),
        class_="who",
    )
    return tag(
        "header",
        tag("a", texts("skip"), href="#content", class_="skip"),
        tag("a", "artesian", href="/ui/", class_="brand"),
        tag("nav", pages, aria_label=texts("pages")),
        tag("nav", languages, aria_label=texts("language"), class_="languages"),
        who,
        log_out if has_session else None,
    )
