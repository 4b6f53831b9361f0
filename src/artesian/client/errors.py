"""Errors of the client.

::

    ArtesianError
    ├── ClientError
    │   ├── Unreachable   nobody answers, or what answers is no artesian
    │   └── Refused       the server says no: ``status``, and ``problem`` as it said it
    └── UnknownJob, AttemptUnknown, AlreadyOver, JobImpossible, UnknownNode, NotExcluded, UnitError,
            JobFileError (model) as without a server
"""

from collections.abc import Mapping
from typing import Any

from artesian.model.errors import (
    AlreadyOver,
    ArtesianError,
    AttemptUnknown,
    JobImpossible,
    NotExcluded,
    UnitError,
    UnknownJob,
    UnknownNode,
)

_OWN: dict[str, type[ArtesianError]] = {
    "unknown-job": UnknownJob,
    "unknown-attempt": AttemptUnknown,
    "already-over": AlreadyOver,
    "job-impossible": JobImpossible,
    "unknown-node": UnknownNode,
    "not-excluded": NotExcluded,
    "invalid-count": UnitError,
}
_PREFIX = "urn:artesian:problem:"


class ClientError(ArtesianError):
    """Base of the client's errors."""


class Unreachable(ClientError):  # noqa: N818 - reads as what it is
    """Nobody answers there, or what answers is no artesian."""


class Refused(ClientError):  # noqa: N818 - reads as what it is
    """The server says no. ``problem`` is its RFC 9457 document."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail", f"HTTP status {status}")), hint=problem.get("hint"))
        self.status = status
        self.problem = problem


def error_of(status: int, problem: Mapping[str, Any], source: str) -> ArtesianError:
    """Return the error that the server's problem stands for. ``source`` names the job file in question."""
    kind = str(problem.get("type", "")).removeprefix(_PREFIX)
    if (own := _OWN.get(kind)) is not None:
        return own(str(problem["detail"]), hint=problem.get("hint"))
    if kind == "invalid-document" and problem.get("mistakes"):
        from artesian.model.document import Mistake, Position
        from artesian.model.jobfile import JobFileError

        return JobFileError(
            source,
            [
                Mistake(
                    at=Position(one["line"], one["column"]),
                    subject=one["subject"],
                    text=one["text"],
                    hint=one["hint"],
                )
                for one in problem["mistakes"]
            ],
        )
    return Refused(status, problem)
