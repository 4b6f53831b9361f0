"""What all commands share in printing: data on stdout, talk on stderr, ``-o json``, failures."""

import json
import math
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from artesian.cli import exits

Command = TypeVar("Command", bound=Callable[..., Any])

_UNLIMITED = 100_000
"""Columns. Rich needs a number."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Failure(click.ClickException):
    """A command cannot do what it was asked for: says why and what to do, and leaves with ``exit_code``."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = exits.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code  # type: ignore[misc]  # of this failure, not of the class


def output_option(command: Command) -> Command:
    """Give a command ``-o text|json``, as its argument ``output``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Form of what is printed on stdout.",
    )(command)


def plain(value: Any) -> Any:
    """Return a dataclass as plain JSON types; a number that JSON has no form for (NaN) becomes its text."""
    import msgspec

    return _finite(msgspec.to_builtins(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def print_json(value: Any) -> None:
    """Print ``value`` as one JSON document, which is valid in whatever encoding stdout has."""
    is_ascii = not sys.stdout.encoding.lower().startswith("utf")
    click.echo(json.dumps(value, indent=2, ensure_ascii=is_ascii, allow_nan=False))


def print_columns(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> None:
    """Print rows of texts below the names of their columns; those named in ``right`` end at the right.

    Nothing is cut or wrapped: an id that is cut short is of no use. Ten times as quick as a table of Rich's.
    """
    told = [[visible(text) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(names, *told, strict=True)]

    def line(row: Sequence[str]) -> str:
        parts = []
        for name, text, width in zip(names, row, widths, strict=True):
            gap = " " * (width - cell_len(text))
            parts.append(gap + text if name in right else text + gap)
        return "  ".join(parts).rstrip()

    stdout(is_wide=True).print(Text(line(names), style="bold"))
    click.echo("\n".join(map(line, told)))


def stdout(*, is_wide: bool = False) -> Console:
    """Return the console for data.

    Without a terminal it is endlessly wide, so that nothing a program reads is cut; ``is_wide`` makes it
    so for a terminal, too, which then wraps long lines by itself.
    """
    return _console(is_err=False, is_wide=is_wide or not sys.stdout.isatty())


def stderr() -> Console:
    """Return the console for talk."""
    return _console(is_err=True, is_wide=not sys.stderr.isatty())


def _console(*, is_err: bool, is_wide: bool) -> Console:
    # Neither markup nor emoji codes: what users wrote is printed as they wrote it.
    width = _UNLIMITED if is_wide else None
    return Console(stderr=is_err, width=width, highlight=False, markup=False, emoji=False)


def visible(text: str) -> str:
    """Return ``text`` with control characters but newline and tab shown as escapes: a terminal obeys none."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
