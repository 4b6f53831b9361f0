"""Policies by name: the built-in ones, then the entry points of group ``artesian.policies``."""

from collections.abc import Callable
from importlib.metadata import entry_points

from artesian.model.errors import ArtesianError
from artesian.policy.base import Policy
from artesian.policy.order import PriorityFifo
from artesian.policy.pipeline import InOrder
from artesian.policy.place import Pack

DEFAULT = "fifo"

BUILT_IN: dict[str, Callable[[], Policy]] = {
    "fifo": lambda: InOrder(order=PriorityFifo(), place=Pack()),
}


class UnknownPolicy(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """No policy has this name."""


class BrokenPolicy(ArtesianError):  # noqa: N818 - reads as what it is
    """A plugin was chosen, and does not load."""


def policy(name: str) -> Policy:
    """Return a new policy by its name.

    Raises UnknownPolicy, which lists the known ones; a plugin that does not load is fatal, with its
    cause, for a scheduler that quietly uses another policy is worse than none.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    plugins = {entry.name: entry for entry in entry_points(group="artesian.policies")}
    if name not in plugins:
        known = ", ".join(sorted([*BUILT_IN, *plugins]))
        raise UnknownPolicy(f"policy {name!r} is not known", hint=f"known policies: {known}")
    try:
        made: Policy = plugins[name].load()()
    except Exception as error:
        raise BrokenPolicy(
            f"policy {name!r} from {plugins[name].value} does not load: {type(error).__name__}: {error}",
            hint="mend or uninstall the package that provides it, or choose another policy",
        ) from error
    return made
