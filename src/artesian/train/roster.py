"""Which nodes train, in which order: the leader's decision, and nothing else. No clock, no socket."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from artesian.train.budget import Budget
from artesian.train.recovery import Failure
from artesian.train.terms import Address
from artesian.wire.messages import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """The nodes that train, in the order of their node ranks, and by what layer they came together.

    ``layer`` None says that these are the nodes from before.
    """

    nodes: tuple[str, ...]
    layer: Layer | None


def line_up(
    before: Sequence[str], present: Sequence[str], *, min_nodes: int, max_nodes: int
) -> Lineup | None:
    """Return who trains next, None where too few are ``present`` (in the order of their coming).

    A node that trained before keeps its place, so that its data and its random numbers stay its own; a spare
    takes the place of a node that was lost; what cannot be filled is closed up. Beyond that, nodes are added
    until there are ``max_nodes``.
    """
    spares = [node for node in present if node not in before]
    nodes: list[str] = []
    is_filled = is_closed_up = False
    for node in before:
        if node in present:
            nodes.append(node)
        elif spares:
            nodes.append(spares.pop(0))
            is_filled = True
        else:
            is_closed_up = True
    room = max(0, max_nodes - len(nodes))
    added = spares[:room]
    nodes = (nodes + added)[:max_nodes]
    if len(nodes) < min_nodes:
        return None
    if not before:
        return Lineup(nodes=tuple(nodes), layer=None)
    layer = None
    if is_closed_up:
        layer = Layer.SHRINK
    elif is_filled:
        layer = Layer.SPARE
    elif added:
        layer = Layer.GROW
    return Lineup(nodes=tuple(nodes), layer=layer)


def can_grow(before: Sequence[str], present: Collection[str], max_nodes: int) -> bool:
    """Return whether a node is present that could train, too."""
    return len(before) < max_nodes and any(node not in before for node in present)


def form_message(
    lineup: Lineup,
    number: int,
    budget: Budget,
    master: Address,
    cause: Failure | None,
    *,
    is_served: bool,
) -> dict[str, Any]:
    """Return what the leader tells everybody of formation ``number``."""
    return {
        "number": number,
        "restarts": budget.restarts,
        "replacements": budget.replacements,
        "nodes": list(lineup.nodes),
        "master": list(master),
        "is_served": is_served,
        "layer": lineup.layer,
        "cause": None if cause is None else asdict(cause),
    }


def read_form(form: dict[str, Any]) -> tuple[Address, Layer | None, Failure | None]:
    """Return master, layer and cause of a ``form_message``."""
    host, port = form["master"]
    return (
        (str(host), int(port)),
        None if form["layer"] is None else Layer(form["layer"]),
        None if form["cause"] is None else Failure(**form["cause"]),
    )
