"""Gives the scripts of a page their nonce, so that its Content-Security-Policy can refuse all others.

NiceGUI knows no nonces: its template is changed as it is loaded. What is in the template then are its own scripts;
what a page's data could bring comes later, and gets none.
"""

import re
import secrets
from collections.abc import Callable

from jinja2 import BaseLoader, Environment
from nicegui import client
from starlette.requests import HTTPConnection

_SCRIPT = re.compile(r"<script(?=[\s>])")
_BYTES = 16


def new_nonce(connection: HTTPConnection) -> str:
    """Return a nonce for the answer to this request, which the page's template and frame will find."""
    connection.state.nonce = nonce = secrets.token_urlsafe(_BYTES)
    return nonce


def nonce_of(connection: HTTPConnection) -> str:
    """Return the nonce of the answer to this request."""
    found: str = connection.state.nonce
    return found


class _Loader(BaseLoader):
    """Loads templates as another loader does, with a nonce at each script."""

    def __init__(self, loader: BaseLoader) -> None:
        self._loader = loader

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        """Return the template's text."""
        source, path, is_current = self._loader.get_source(environment, template)
        return _SCRIPT.sub('<script nonce="{{ request.state.nonce }}"', source), path, is_current


def add_nonces() -> None:
    """Have NiceGUI's pages name a nonce at each of their scripts. Calling it again does nothing."""
    environment = client.templates.env
    assert environment.loader is not None, "NiceGUI's template is a file"
    if not isinstance(environment.loader, _Loader):
        environment.loader = _Loader(environment.loader)
