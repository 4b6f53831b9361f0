"""Pages without a script: for who is not logged in, and for what is not there."""

from pathlib import Path

from starlette.responses import HTMLResponse, Response

from artesian.server.ui.markup import Markup, join, tag, text
from artesian.server.ui.texts import LANGUAGES, LOCALES, Texts

STYLE = (Path(__file__).parent / "static" / "style.css").read_text(encoding="utf-8")


_CONTENT = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""All that a page without a script needs: its own style, and its own form."""


def plain_page(texts: Texts, title: str, body: Markup, *, status: int) -> Response:
    """Return a small page."""
    head = join(
        (
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", f"{title} · artesian"),
            tag("style", Markup(STYLE)),
        )
    )
    main = tag("main", tag("h1", "artesian"), body, class_="page narrow")
    document = tag("html", tag("head", head), tag("body", main), lang=LOCALES[texts.language])
    return HTMLResponse(
        f"<!doctype html>{text(document)}", status, headers={"Content-Security-Policy": _CONTENT}
    )


def language_links() -> Markup:
    """Return the choice of the language, from where one comes back to the overview or to the login."""
    links = (
        tag("a", name, href=f"/ui/language/{code}", lang=LOCALES[code]) for code, name in LANGUAGES.items()
    )
    return tag("p", *links, class_="languages")


def missing(texts: Texts) -> Response:
    """Return that there is no such page."""
    back = tag("p", tag("a", texts("to_overview"), href="/ui/"))
    return plain_page(texts, "404", join((tag("p", texts("no_page")), back)), status=404)
