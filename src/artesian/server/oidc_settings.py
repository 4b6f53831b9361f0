"""What is set for single sign-on, and what its sessions are signed with. Apart from ``oidc``: only who has it on loads that.

20 MB of libraries come with it.
"""

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from artesian.server.settings import SettingsError
from artesian.server.tokens import Role

SESSION = "artesian_sign_on"
"""The session's cookie."""
_EXAMPLE = (
    '[oidc]\nissuer = "https://id.example"\nclient_id = "artesian"\npublic_url = "https://artesian.example"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """The keys of ``[oidc]``.

    ``issuer``: the provider's address; ``client_id``, and the file (mode 0600) with the client's secret, where
    it has one. ``public_url``: what browsers call this server; the provider must know
    ``public_url/login/callback``. ``user_claim`` names the user; ``role_claim`` has groups, which ``roles`` maps
    to roles; who is in none of them has ``default_role``, or does not get in. ``team_claim``: the only team that
    somebody sees, where it is there. ``session_hours``: how long a login lasts.
    """

    issuer: str
    client_id: str
    public_url: str
    client_secret_file: str = ""
    user_claim: str = "preferred_username"
    role_claim: str = "groups"
    team_claim: str = ""
    default_role: str = ""
    session_hours: float = 12.0
    roles: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "OidcSettings":
        """Return the settings of the table. Raises SettingsError."""
        known = {one.name: one for one in fields(cls)}
        for key in table:
            if key not in known:
                raise SettingsError(
                    f"settings: oidc.{key} is no key of theirs", hint=f"known keys: {', '.join(known)}"
                )
        for key in ("issuer", "client_id", "public_url"):
            if not isinstance(table.get(key), str) or not table[key]:
                raise SettingsError(
                    f"settings: oidc.{key}: expected a text, got {table.get(key)!r}", hint=_EXAMPLE
                )
        found = cls(**table)
        for url in (found.issuer, found.public_url):
            if urlsplit(url).scheme != "https" and urlsplit(url).hostname not in ("localhost", "127.0.0.1"):
                raise SettingsError(f"settings: oidc: expected an address with https, got {url!r}")
        for role in (*found.roles.values(), *filter(None, [found.default_role])):
            if role not in tuple(Role):
                raise SettingsError(f"settings: oidc: expected one of {', '.join(Role)}, got {role!r}")
        return found

    def secret(self) -> str | None:
        """Return the client's secret; None where it has none. Raises SettingsError."""
        if not self.client_secret_file:
            return None
        path = Path(self.client_secret_file).expanduser()
        try:
            if path.stat().st_mode & 0o077:
                raise SettingsError(
                    f"settings: oidc.client_secret_file {path}: expected mode 0600: others could read it",
                    hint=f"chmod 600 {path}",
                )
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"settings: oidc.client_secret_file {path}: {error.strerror}") from error


def session_key(path: Path) -> str:
    """Return the key that signs sessions, made where there is none; removing the file ends all sessions."""
    with suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text(encoding="ascii")
