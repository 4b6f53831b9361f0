"""Errors of the nouns.

::

    ArtesianError
    ├── UnitError       a duration, size, count or resource string that does not parse
    └── JobError        a job that cannot be what it says

Every error carries a ``hint``: what to do about it. The command line prints both.
"""


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
