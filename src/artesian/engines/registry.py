"""Engines by name: the built-in ones, then the entry points of group ``artesian.engines``."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from artesian.engines.base import Clock, Engine, HostNode
from artesian.engines.local.engine import LocalEngine
from artesian.model.errors import ArtesianError

Factory = Callable[[Path, Sequence[HostNode], Clock], Engine]
"""Makes an engine that keeps its files below a folder; the nodes are this machine's own."""

BUILT_IN: dict[str, Factory] = {"local": LocalEngine}


class UnknownEngine(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """No engine has this name."""


class BrokenEngine(ArtesianError):  # noqa: N818 - reads as what it is
    """A plugin was chosen, and does not load."""


def engine(name: str) -> Factory:
    """Return what makes the engine ``name``.

    Raises UnknownEngine, which lists the known ones; a plugin that does not load is fatal, with its cause.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    plugins = {entry.name: entry for entry in entry_points(group="artesian.engines")}
    if name not in plugins:
        known = ", ".join(sorted([*BUILT_IN, *plugins]))
        raise UnknownEngine(f"engine {name!r} is not known", hint=f"known engines: {known}")
    try:
        made: Factory = plugins[name].load()
    except Exception as error:
        raise BrokenEngine(
            f"engine {name!r} from {plugins[name].value} does not load: {type(error).__name__}: {error}",
            hint="mend or uninstall the package that provides it, or choose another engine",
        ) from error
    return made
