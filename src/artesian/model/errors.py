"""Errors of the nouns.

::

    ArtesianError
    ├── UnitError       a duration, size, count or resource string that does not parse
    ├── JobError        a job that cannot be what it says
    ├── UnknownJob      no job is called so, or more than one
    ├── AttemptUnknown  the job has no such attempt
    ├── UnknownNode     no node is called so
    ├── NotExcluded     the node is in use, so that it cannot be returned
    ├── AlreadyOver     the job is over, so that it cannot be cancelled
    └── JobImpossible   the whole fleet could not hold the job

Every error carries a ``hint``: what to do about it. The command line prints both.
"""

from collections.abc import Iterable


class ArtesianError(Exception):
    """Base of every error that artesian raises on purpose.

    ``str(error)`` names the subject, what was expected and what came; ``hint`` says what to do.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UnitError(ArtesianError, ValueError):
    """A text that should be a duration, a size, a count or a resource string, and is not."""


class JobError(ArtesianError, ValueError):
    """A job whose parts contradict each other."""


class UnknownJob(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """No job is called so, or more than one."""


class AttemptUnknown(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """The job has no such attempt, or none yet."""


class UnknownNode(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """No node is called so."""

    @classmethod
    def among(cls, node: str, known: Iterable[str]) -> "UnknownNode":
        """Return the error for ``node``, with the nearest of the ``known`` ids as a hint."""
        from difflib import get_close_matches  # which nobody needs who makes no mistake

        near = get_close_matches(node, list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else "artesian nodes lists the nodes"
        return cls(f"node {node!r} is not known here", hint=hint)


class NotExcluded(ArtesianError):  # noqa: N818 - reads as what it is
    """The node is not excluded, so that it cannot be returned."""


class AlreadyOver(ArtesianError):  # noqa: N818 - reads as what it is
    """The job is over, so that it cannot be cancelled."""


class JobImpossible(ArtesianError):  # noqa: N818 - reads as what it is
    """The whole fleet could not hold the job."""
