"""HTML made of pieces: whatever is not ``Markup`` already is escaped, so that no job's name can be a script."""

import html
from collections.abc import Iterable

Piece = str | int | float | None
_VOID = frozenset({"br", "input", "meta", "link"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(piece: Piece) -> Markup:
    """Return the piece as HTML; None is nothing."""
    if isinstance(piece, Markup):
        return piece
    return Markup("" if piece is None else html.escape(str(piece)))


def join(pieces: Iterable[Piece]) -> Markup:
    """Return the pieces one behind the other."""
    return Markup("".join(map(text, pieces)))


def tag(name: str, /, *pieces: Piece, **attributes: str | int | bool | None) -> Markup:
    """Return an element: ``tag("a", "Jobs", href="/ui")``.

    ``class_`` is the attribute class, ``data_job`` is data-job; True gives an attribute without a value, None
    and False none at all.
    """
    told = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        told.append(f" {key}" if value is True else f' {key}="{html.escape(str(value))}"')
    begin = f"<{name}{''.join(told)}>"
    return Markup(begin if name in _VOID else f"{begin}{join(pieces)}</{name}>")


def table(
    heads: Iterable[Piece], rows: Iterable[Iterable[Piece]], *, caption: str, is_titled: bool = False
) -> Markup:
    """Return a table whose cells name their column: on a narrow screen each row is shown as a card.

    ``is_titled``: a heading above says the same, so that the caption is only for those who hear the page.
    """
    heads = [text(head) for head in heads]
    body = join(
        tag(
            "tr",
            *(
                tag("td", cell, data_label=str(head), role="cell")
                for head, cell in zip(heads, row, strict=True)
            ),
            role="row",
        )
        for row in rows
    )
    head = tag("tr", *(tag("th", head, scope="col", role="columnheader") for head in heads), role="row")
    return tag(
        "table",
        tag("caption", caption, class_="quiet" if is_titled else None),
        tag("thead", head, role="rowgroup"),
        tag("tbody", body, role="rowgroup"),
        role="table",
    )
