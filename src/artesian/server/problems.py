"""Every refusal as application/problem+json (RFC 9457): subject, expected, actual, hint beside the standard members."""

import http
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from artesian.model.document import DocumentError
from artesian.model.errors import ArtesianError

MEDIA_TYPE = "application/problem+json"
_SENTENCE = re.compile(r"(?:(?P<subject>.+?): )?expected (?P<expected>.+), got (?P<actual>.+)", re.DOTALL)


class Problem(ArtesianError):  # noqa: N818 - RFC 9457's word
    """A refusal with its HTTP status. ``kind`` names it for programs: the end of its ``type``."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    @property
    def body(self) -> bytes:
        """The document."""
        found = {
            "type": f"urn:artesian:problem:{self.kind}",
            "title": self.kind.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": str(self),
            **parts(str(self)),
            **({} if self.hint is None else {"hint": self.hint}),
            **self.more,
        }
        return msgspec.json.encode(found)

    def response(self) -> Response:
        """The answer."""
        return Response(self.body, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def parts(text: str) -> dict[str, str]:
    """Return subject, expected and actual of an error in our form; nothing of another sentence."""
    found = _SENTENCE.fullmatch(text)
    return {} if found is None else {name: value for name, value in found.groupdict().items() if value}


def of_document(error: DocumentError) -> Problem:
    """Return the problem of a document with mistakes: each with its place."""
    mistakes = [
        {
            "line": mistake.at.line,
            "column": mistake.at.column,
            "subject": mistake.subject,
            "text": mistake.text,
            "hint": mistake.hint,
        }
        for mistake in error.mistakes
    ]
    return Problem(422, "invalid-document", str(error), hint=error.hint, more={"mistakes": mistakes})


def of_validation(error: RequestValidationError) -> Problem:
    """Return the problem of parameters that FastAPI refused."""
    said = [
        f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: expected {one['msg'].lower()}, got {one.get('input')!r}"
        for one in error.errors()
    ]
    return Problem(422, "invalid-parameter", "\n".join(said), hint="see /api/v1/openapi.json")


def of_status(error: HTTPException) -> Problem:
    """Return the problem of a plain HTTP status, such as an unknown path."""
    kind = http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return Problem(error.status_code, kind, str(error.detail), headers=error.headers)


async def answer_problem(request: Request, error: Exception) -> Response:
    """Answer with the problem."""
    del request
    assert isinstance(error, Problem)
    return error.response()
