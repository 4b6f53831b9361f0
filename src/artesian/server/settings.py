"""What a user has set: ``artesian.toml`` in the XDG folder for configuration."""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from artesian.model.errors import ArtesianError
from artesian.model.quota import QuotaError, Teams
from artesian.policy.default import DEFAULT
from artesian.server.rules import Rules
from artesian.wire import environment as names

_POOL_EXAMPLE = '[pools.NAME]\npolicy = "easy"\ncenter = "north"'
_ENGINE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class SettingsError(ArtesianError):
    """A settings file that cannot be read, or says what cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """By which ``policy`` the pool's nodes are given out, and in which ``center`` they are; None: nothing is said."""

    policy: str | None = None
    center: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the control plane goes by; each is a key of ``artesian.toml``.

    ``policy``: by whose rules jobs wait and start, a name of ``policy.registry``. ``teams``: who shares the
    fleet, a table for each team; see ``model.quota``. ``pools``: what holds for the nodes of single pools.
    ``engines``: who runs jobs, tables by name, each with its ``kind``; without any, this machine does.
    ``server``: the address of the server that commands ask; empty: they do it themselves. ``oidc``: single
    sign-on of a server's dashboard, the keys of ``server.oidc.OidcSettings``.
    """

    policy: str = DEFAULT
    teams: Teams = field(default_factory=Teams)
    pools: Mapping[str, PoolSettings] = field(default_factory=dict)
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    server: str = ""
    oidc: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rules(self) -> Rules:
        """What a driver has to know of them."""
        return Rules(
            policy=self.policy,
            teams=self.teams,
            pools={name: pool.policy for name, pool in self.pools.items() if pool.policy is not None},
            centers={name: pool.center for name, pool in self.pools.items() if pool.center is not None},
            engines=self.engines,
        )

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
        found = _read(path)
        known = [field.name for field in fields(cls)]
        for key, value in found.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
                raise SettingsError(f"settings {path}: {key} is no key of theirs", hint=hint)
            if key in ("teams", "pools", "engines") or (key == "oidc" and isinstance(value, dict)):
                continue
            if not isinstance(value, str):
                raise SettingsError(
                    f"settings {path}: {key}: expected a name in quotes, got {value!r}",
                    hint=f'{key} = "{getattr(cls(), key) or "…"}"',
                )
        _check_tables(path, found.get("engines", {}))
        try:
            settings = cls(**{**found, "teams": teams_of(found, "teams"), "pools": _pools_of(found)})
            if settings.policy != DEFAULT or settings.pools:
                settings.rules.make_policy()
            if settings.engines:
                settings.rules.make_engine(path.parent, (), lambda: 0.0)
        except ArtesianError as error:
            raise SettingsError(f"settings {path}: {error}", hint=error.hint) from error
        return settings


def load_teams(path: Path) -> Teams:
    """Return the teams in a settings file, whatever else it says. Raises SettingsError, or QuotaError."""
    return teams_of(_read(path), str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(
            f"settings {path}: {said}", hint='a settings file has lines like: policy = "easy"'
        ) from error


def teams_of(found: Mapping[str, Any], source: str) -> Teams:
    """Return the teams in what a settings file says. Raises QuotaError."""
    table = found.get("teams", {})
    if not isinstance(table, Mapping):
        raise QuotaError(f"{source}: expected tables, got {table!r}", hint="[teams.vision]\nweight = 2")
    return Teams.from_table(table, source=source)


def _check_tables(path: Path, tables: Any) -> None:
    """See to it that every engine is a table with a kind. Raises SettingsError."""
    example = '[engines.cluster]\nkind = "slurm"'
    if not isinstance(tables, dict):
        raise SettingsError(f"settings {path}: engines: expected tables, got {tables!r}", hint=example)
    for name, table in tables.items():
        if not _ENGINE_NAME.fullmatch(name):
            raise SettingsError(
                f"settings {path}: engines.{name}: expected a name of a-z, 0-9 and '-'", hint=example
            )
        if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
            raise SettingsError(
                f"settings {path}: engines.{name}: expected a table with a kind", hint=example
            )


def _pools_of(found: Mapping[str, Any]) -> dict[str, PoolSettings]:
    """Return what the pools' tables say. Raises SettingsError."""
    table = found.get("pools", {})
    if not isinstance(table, Mapping):
        raise SettingsError(f"pools: expected tables, got {table!r}", hint=_POOL_EXAMPLE)
    return {name: _pool_of(name, entry) for name, entry in table.items()}


def _pool_of(name: str, entry: Any) -> PoolSettings:
    known = [field.name for field in fields(PoolSettings)]
    if not isinstance(entry, Mapping) or not entry or set(entry) - {*known}:
        raise SettingsError(
            f"pools: {name}: expected a table with {' or '.join(known)}, or both, got {entry!r}",
            hint=_POOL_EXAMPLE,
        )
    for key, value in entry.items():
        # A center's name heads a part of the heat map: what nobody could see or tell apart is no name.
        if not (isinstance(value, str) and value == value.strip() and value.isprintable() and value):
            raise SettingsError(
                f"pools: {name}: {key}: expected a name in quotes, got {value!r}", hint=_POOL_EXAMPLE
            )
    return PoolSettings(**entry)
