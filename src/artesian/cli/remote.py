"""Which server the commands ask, and the token that it is shown."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from artesian.cli.output import Failure
from artesian.wire import environment as names

if TYPE_CHECKING:
    from artesian.client import Client

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def client(server: str, environ: Mapping[str, str] = os.environ) -> "Client":
    """Return the client of ``server``. Fails where the token's file may be read by others."""
    try:
        from artesian.client import Client
    except ImportError as error:
        raise Failure(
            f"server {server}: expected artesian with its client, got: {error}",
            hint="pip install 'artesian[client]'",
        ) from error
    token = token_of(environ)
    parts = urlsplit(server)
    if token is not None and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        click.echo(f"warning: the token goes to {server} in the clear: use https", err=True)
    return Client(server, token=token)


def token_of(environ: Mapping[str, str]) -> str | None:
    """Return the token of the environment, else that in its file, else None."""
    if token := environ.get(names.TOKEN, "").strip():
        return token
    if (path := _token_file(environ)) is None:
        return None
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Failure(
                f"token file {path}: expected mode 0600, got {stat.S_IMODE(mode):04o}: others could read it",
                hint=f"chmod 600 {path}, and a new token, if others had the time to",
            )
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"token file {path}: {error}") from error


def _token_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file that the environment names, else the one in the XDG folder if it is there."""
    if named := environ.get(names.TOKEN_FILE):
        return Path(named)
    try:
        folder = Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    except RuntimeError:
        return None  # no home folder is known, so there is none with a token in it
    path = folder / "artesian" / "token"
    return path if path.exists() else None
