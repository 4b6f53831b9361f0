"""Engines by kind: the built-in ones, then the entry points of group ``artesian.engines``.

The user names engines in ``artesian.toml``, each a table ``[engines.NAME]`` with its kind and options.
Without any table there is one of kind ``local``.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from artesian.engines.base import Clock, Engine, HostNode, Site
from artesian.engines.listening import Listening
from artesian.engines.local.engine import LocalEngine
from artesian.engines.options import Options
from artesian.engines.several import Several
from artesian.model.errors import ArtesianError

Factory = Callable[[Site], Engine]
"""Makes an engine. Raises OptionsError where its options cannot be; it does nothing else yet."""

Tables = Mapping[str, Mapping[str, Any]]
"""Engines by name: the tables of ``artesian.toml``."""


def _local(site: Site) -> Engine:
    Options(site.options, "an engine of kind local").end()
    return LocalEngine(site.root, site.hosts, site.clock)


def _slurm(site: Site) -> Engine:
    from artesian.engines.slurm.site import make

    return make(site)


def _ray(site: Site) -> Engine:
    from artesian.engines.ray.site import make

    return make(site)


BUILT_IN: dict[str, Factory] = {"local": _local, "ray": _ray, "slurm": _slurm}


class UnknownEngine(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """No engine is of this kind."""


class BrokenEngine(ArtesianError):  # noqa: N818 - reads as what it is
    """A plugin was chosen, and does not load."""


def engine(kind: str) -> Factory:
    """Return what makes engines of this kind.

    Raises UnknownEngine, which lists the known ones; a plugin that does not load is fatal, with its cause.
    """
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    plugins = {entry.name: entry for entry in entry_points(group="artesian.engines")}
    if kind not in plugins:
        known = ", ".join(sorted([*BUILT_IN, *plugins]))
        raise UnknownEngine(f"engine {kind!r} is not known", hint=f"known engines: {known}")
    try:
        made: Factory = plugins[kind].load()
    except Exception as error:
        raise BrokenEngine(
            f"engine {kind!r} from {plugins[kind].value} does not load: {type(error).__name__}: {error}",
            hint="mend or uninstall the package that provides it, or choose another engine",
        ) from error
    return made


def engine_of(tables: Tables, root: Path, hosts: Sequence[HostNode], clock: Clock) -> Engine:
    """Return the engine of the tables, made of several where there are several.

    Raises UnknownEngine, BrokenEngine and OptionsError.
    """
    made = {
        name: engine(table["kind"])(
            Site(
                name=name,
                root=root,
                hosts=hosts,
                clock=clock,
                options={key: value for key, value in table.items() if key != "kind"},
            )
        )
        for name, table in (tables or {"local": {"kind": "local"}}).items()
    }
    one = next(iter(made.values())) if len(made) == 1 else Several(made, clock)
    return Listening(one, root, clock)
