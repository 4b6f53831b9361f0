"""A job file on disk: reads the file, and what the submitter's environment contributes."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from artesian.cli import exits
from artesian.cli.output import Failure
from artesian.model.errors import ArtesianError
from artesian.model.jobfile import JobFileError
from artesian.model.views import JobFile

_MAX_BYTES = 2**20

_KEPT = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
        "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "LD_LIBRARY_PATH", "PYTHONPATH",
    }
)  # fmt: skip
"""What a job gets of the submitter's environment. All of it would bring secrets into the journal."""


class JobFileUnreadable(ArtesianError):  # noqa: N818 - reads as what it is
    """The job file cannot be read."""


def load_job(path: Path) -> JobFile:
    """Return the job file, not yet read as one. Fails with 2 where there is no text in it."""
    try:
        text = _text(path)
    except JobFileUnreadable as error:
        raise Failure(str(error), hint=error.hint, exit_code=exits.USAGE) from error
    return JobFile(
        text=text,
        source=str(path),
        base_dir=str(path.absolute().parent),
        env=submitters_environment(os.environ),
        home=_home(),
    )


@contextmanager
def no_mistakes(path: Path) -> Iterator[None]:
    """Fail with 2 where the file turns out to have mistakes."""
    try:
        yield
    except JobFileError as error:
        count = len(error.mistakes)
        said = str(error) if count == 1 else f"{path} has {count} mistakes\n{error}"
        raise Failure(said, hint=error.hint, exit_code=exits.USAGE) from error


def _home() -> str | None:
    try:
        return str(Path.home())
    except RuntimeError:  # a user whom the machine does not know
        return None


def submitters_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a job gets of ``environ``.

    Where no virtual environment is active, the folder of this interpreter goes before all others in
    PATH: ``.venv/bin/artesian run`` is to find the ``python`` of ``.venv``.
    """
    kept = {name: value for name, value in environ.items() if name in _KEPT or name.startswith("LC_")}
    if not {"VIRTUAL_ENV", "CONDA_PREFIX"} & kept.keys():
        own = str(Path(sys.executable).parent)
        kept["PATH"] = os.pathsep.join([own, kept.get("PATH") or os.defpath])
    return kept


def _text(path: Path) -> str:
    hint = "artesian run FILE takes a job file, such as examples/first-run.yaml"
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise JobFileUnreadable(f"job file {path}: {error.strerror}", hint=hint) from error
    if len(data) > _MAX_BYTES:
        raise JobFileUnreadable(f"job file {path}: expected at most 1 MiB, got more", hint=hint)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JobFileUnreadable(
            f"job file {path}: expected UTF-8 text, got byte {data[error.start]:#04x} at offset {error.start}",
            hint=hint,
        ) from error
