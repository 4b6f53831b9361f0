"""What all commands share in printing: data on stdout, talk on stderr, ``-o json``."""

import json
import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_JOB_FAILED, EXIT_NOT_FINISHED, EXIT_NOT_FOUND, EXIT_CANCELLED = 100, 101, 102, 103


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
    """Print ``value`` as one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def stdout() -> Console:
    """Return the console for data. Without a terminal it is wide, so that nothing a program reads is cut."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def stderr() -> Console:
    """Return the console for talk."""
    return Console(stderr=True, highlight=False)
