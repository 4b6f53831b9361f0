"""What is submitted over HTTP: job files as YAML or JSON, one or many, as Jobs. Same rules, same errors.

JSON is YAML, and is read here a hundred times as fast. Where anything is wrong with it, the document is read
once more as YAML: so that what is told of a mistake, and its place, is the same.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from artesian.model.document import MAX_BYTES, MAX_DEPTH, MAX_NODES, List, Node, Position, Scalar
from artesian.model.document import Mapping as Pairs
from artesian.model.job import Job
from artesian.model.jobfile import JobFileError, job_of, parse_job

_NOWHERE = Position(1, 1)


class Context(Struct, frozen=True, kw_only=True):
    """What a job file does not say itself: what its paths are relative to, and the environment."""

    source: str = "job"
    base_dir: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    home: str | None = None

    def __post_init__(self) -> None:
        if not self.base_dir.startswith("/"):
            raise ValueError(f"base_dir: expected an absolute path, got {self.base_dir!r}")
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"env: expected the name of a variable and a text, got {name!r}")
        if "\0" in f"{self.base_dir}{self.home}{self.source}":
            raise ValueError("expected paths, got a null character in one")


class Submission(Context, frozen=True, kw_only=True):
    """A job file's text with its context: what the command line sends."""

    file: str


SUBMISSION_TYPE = "application/vnd.artesian.submission+json"
_SUBMISSION = msgspec.json.Decoder(Submission)


def submission(body: bytes) -> Submission:
    """Return the decoded body. Raises msgspec.ValidationError or DecodeError."""
    return _SUBMISSION.decode(body)


def job_from_text(text: str, context: Context, *, user: str, job_id: str = "new") -> Job:
    """Return the job in a job file. Raises JobFileError."""
    if (job := _quickly(text, context, user=user, job_id=job_id)) is not None:
        return job
    return parse_job(
        text,
        source=context.source,
        job_id=job_id,
        base_dir=context.base_dir,
        user=user,
        env=context.env,
        home=context.home,
    )


def _quickly(text: str, context: Context, *, user: str, job_id: str) -> Job | None:
    """Return the job where ``text`` is JSON without a mistake, else None."""
    if len(text) > MAX_BYTES or text.lstrip(" \r\n")[:1] != "{":
        return None
    try:
        root = _Composer().node(_DECODER.decode(text), depth=1)
        return job_of(
            root,
            [],
            source=context.source,
            job_id=job_id,
            base_dir=context.base_dir,
            user=user,
            env=context.env,
            home=context.home,
        )
    except (ValueError, RecursionError, JobFileError):
        return None


class _Plain(str):
    """A number, as it was written."""

    __slots__ = ()


_DECODER = json.JSONDecoder(
    object_pairs_hook=tuple, parse_int=_Plain, parse_float=_Plain, parse_constant=_Plain
)


class _Composer:
    """Builds what ``document.compose`` builds, without places. Raises ValueError where that would refuse."""

    def __init__(self) -> None:
        self._nodes = 0

    def node(self, value: Any, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError("too much")
        match value:
            case tuple():
                return Pairs(
                    at=_NOWHERE,
                    entries=tuple(
                        (self.node(key, depth + 1), self.node(item, depth + 1)) for key, item in value
                    ),
                )
            case list():
                return List(at=_NOWHERE, items=tuple(self.node(item, depth + 1) for item in value))
            case None:
                return Scalar(at=_NOWHERE, text="null", is_plain=True)
            case bool():
                return Scalar(at=_NOWHERE, text="true" if value else "false", is_plain=True)
            case _Plain():
                return Scalar(at=_NOWHERE, text=str(value), is_plain=True)
            case str():
                if not value.isprintable():  # YAML takes some of these, and not others
                    raise ValueError("for YAML to say")
                return Scalar(at=_NOWHERE, text=value, is_plain=False)
        raise AssertionError(value)


def documents_of(body: bytes) -> tuple[Sequence[str], Context]:
    """Return the job files in the body of a bulk submit, each as JSON, and their context.

    Raises msgspec.ValidationError or DecodeError.
    """
    bulk = _BULK.decode(body)
    context = Context(base_dir=bulk.base_dir, env=bulk.env, home=bulk.home)
    return [bytes(one).decode() for one in bulk.jobs], context


class Bulk(Struct, frozen=True, kw_only=True):
    """Many job files with one context."""

    jobs: list[msgspec.Raw]
    base_dir: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    home: str | None = None


_BULK = msgspec.json.Decoder(Bulk)
