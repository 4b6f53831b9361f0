"""What a user has set: ``artesian.toml`` in the XDG folder for configuration."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from artesian.model.errors import ArtesianError
from artesian.policy.default import DEFAULT
from artesian.wire import environment as names


class SettingsError(ArtesianError):
    """A settings file that cannot be read, or says what cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the control plane goes by; each is a key of ``artesian.toml``.

    ``policy``: by whose rules jobs wait and start, a name of ``policy.registry``. ``server``: the address of
    the server that commands ask; empty: they do it themselves. ``oidc``: single sign-on of a server's
    dashboard, the keys of ``server.oidc.OidcSettings``.
    """

    policy: str = DEFAULT
    server: str = ""
    oidc: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Return the settings of the file that ``ARTESIAN_CONFIG`` names, else of ``artesian/artesian.toml``
        in the XDG folder; the defaults where the latter is not there. Raises SettingsError."""
        named = environ.get(names.CONFIG)
        if named:
            return cls.load(Path(named).expanduser())
        folder = Path(environ.get("XDG_CONFIG_HOME") or "~/.config")
        try:
            path = folder.expanduser() / "artesian" / "artesian.toml"
        except RuntimeError:
            return cls()  # no home folder is known, so there is none with settings in it
        return cls.load(path) if path.exists() else cls()

    @classmethod
    def load(cls, path: Path) -> "Settings":
        """Return the settings in the file. Raises SettingsError, which names the key."""
        try:
            with path.open("rb") as file:
                found = tomllib.load(file)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            raise SettingsError(
                f"settings {path}: {said}", hint='a settings file has lines like: policy = "easy"'
            ) from error
        known = [field.name for field in fields(cls)]
        for key, value in found.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
                raise SettingsError(f"settings {path}: {key} is no key of theirs", hint=hint)
            if key == "oidc" and isinstance(value, dict):
                continue
            if not isinstance(value, str):
                raise SettingsError(
                    f"settings {path}: {key}: expected a name in quotes, got {value!r}",
                    hint=f'{key} = "{getattr(cls(), key) or "…"}"',
                )
        settings = cls(**found)
        if "policy" not in found:
            return settings
        from artesian.policy import registry as policies

        try:
            policies.policy(settings.policy)
        except ArtesianError as error:
            raise SettingsError(f"settings {path}: {error}", hint=error.hint) from error
        return settings
