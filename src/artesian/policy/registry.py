"""Policies by name: the built-in ones, then the entry points of group ``artesian.policies``."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points

from artesian.model.errors import ArtesianError
from artesian.model.quota import Teams
from artesian.policy.backfill import EasyBackfill
from artesian.policy.base import Order, Place, Policy
from artesian.policy.configurations import Configurations
from artesian.policy.conservative import Conservative
from artesian.policy.default import DEFAULT as DEFAULT
from artesian.policy.fairshare import FairShare
from artesian.policy.fragmentation import Gradient
from artesian.policy.learning import Learning
from artesian.policy.matching import AlloX, ShortestRemaining
from artesian.policy.order import (
    AgedPriority,
    EarliestDeadline,
    LeastAttained,
    PriorityFifo,
    ShortestAged,
    ShortestFirst,
)
from artesian.policy.pipeline import InOrder
from artesian.policy.place import Pack
from artesian.policy.pools import Pools
from artesian.policy.preemptive import Preemptive
from artesian.policy.ranking import Ranking, Turns
from artesian.policy.rights import ByDeadline, ByPriority, ByService, Reclaim, Right
from artesian.policy.rounds import ROUND_S, Rounds
from artesian.policy.scored import Anywhere, Fit, Scored, best_fit, clustering, dot_product, packing, spread
from artesian.policy.shares import FinishTimeFairness, Makespan, MaxMin
from artesian.policy.throughput import Throughputs
from artesian.policy.topology import Topology
from artesian.policy.worth import LeastWaste

PLACES: dict[str, Callable[[], Place]] = {
    "pack": Pack,
    "best-fit": lambda: Scored(Fit(best_fit)),
    "dot-product": lambda: Scored(Fit(dot_product)),
    "packing": lambda: Scored(Fit(packing)),
    "clustering": lambda: Scored(Fit(clustering)),
    "spread": lambda: Scored(Fit(spread)),
    "topology": Topology,
    "random": Anywhere,
    "fgd": lambda: Learning(Gradient, covered=0.95),
    "least-waste": lambda: Learning(LeastWaste),
}
"""Placements by name. Those that need to know what jobs are like learn it from what runs."""


RANKINGS: dict[str, Callable[[], Ranking]] = {
    "max-min": lambda: Turns(MaxMin()),
    "max-min-agnostic": lambda: Turns(MaxMin(is_aware=False)),
    "min-makespan": lambda: Turns(Makespan()),
    "finish-time-fairness": lambda: Turns(FinishTimeFairness()),
    "min-jct": ShortestRemaining,
    "allox": AlloX,
    "max-goodput": Configurations,
}
"""For fleets of several models of device: who goes first where. They need the extra ``solver``."""


def in_rounds(
    ranking: str,
    throughputs: Throughputs | None = None,
    *,
    round_s: float = ROUND_S,
    teams: Teams | None = None,
) -> Policy:
    """Return a policy that gives devices out in rounds, by the name of its ranking and what is known of speeds.

    A job of which nothing is known runs on any model of device as if it made no difference. ``teams`` have what they
    are guaranteed, and no more than they may (None: nobody is bound).
    """
    return Rounds(RANKINGS[ranking](), Pack(), throughputs or Throughputs(), round_s, teams or Teams())


def _first_come(name: str) -> Policy:
    return InOrder(order=PriorityFifo(), place=PLACES[name]())


def _preemptive(place: Place, order: Order, *rights: Right) -> Policy:
    return Preemptive(EasyBackfill(order=order, place=place), place, rights, order=order)


def fair_share(teams: Teams, place: Place | None = None) -> Policy:
    """Return the policy that shares the fleet between teams; ``place`` says where jobs go (None: packed)."""
    return _preemptive(place or Pack(), FairShare(teams), Reclaim(teams), ByPriority(within_team=True))


def _rounds_of(ranking: str, teams: Teams) -> Policy:
    return in_rounds(ranking, teams=teams)


TEAM_POLICIES: dict[str, Callable[[Teams], Policy]] = {
    "fair-share": fair_share,
    **{name: partial(_rounds_of, name) for name in RANKINGS},
}
"""Policies that go by teams; the others do not look at them."""

WITH_PLACE: dict[str, Callable[[Place, Teams], Policy]] = {
    "fifo": lambda place, _: InOrder(order=PriorityFifo(), place=place),
    "easy": lambda place, _: EasyBackfill(order=PriorityFifo(), place=place),
    "conservative": lambda place, _: Conservative(order=PriorityFifo(), place=place),
    "srtf": lambda place, _: EasyBackfill(order=ShortestFirst(), place=place),
    "shortest-aged": lambda place, _: EasyBackfill(order=ShortestAged(), place=place),
    "priority": lambda place, _: _preemptive(place, AgedPriority(), ByPriority()),
    "deadline": lambda place, _: _preemptive(place, EarliestDeadline(), ByDeadline()),
    "fair-share": lambda place, teams: fair_share(teams, place),
    "least-attained": lambda place, _: _preemptive(place, LeastAttained(), ByService(LeastAttained())),
}
"""Policies that any placement goes with: ``easy+topology``. By themselves they pack."""

BUILT_IN: dict[str, Callable[[], Policy]] = {
    **{name: partial(lambda made: made(Pack(), Teams()), made) for name, made in WITH_PLACE.items()},
    **{
        name: partial(_first_come, name)
        for name in PLACES
        if name != "pack"  # that is what fifo is
    },
    **{name: partial(in_rounds, name) for name in RANKINGS},
}


class UnknownPolicy(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """No policy has this name."""


class BrokenPolicy(ArtesianError):  # noqa: N818 - reads as what it is
    """A plugin was chosen, and does not load."""


def policy(name: str, teams: Teams | None = None) -> Policy:
    """Return a new policy by its name; ``teams`` are for those that go by them. ``NAME+PLACEMENT`` has jobs go elsewhere.

    Raises UnknownPolicy, which lists the known ones; a plugin that does not load is fatal, with its
    cause, for a scheduler that quietly uses another policy is worse than none.
    """
    if teams is not None and name in TEAM_POLICIES:
        return TEAM_POLICIES[name](teams)
    if name in BUILT_IN:
        return BUILT_IN[name]()
    base, plus, placement = name.partition("+")
    if plus:
        return _combined(name, base, placement, teams)
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


def _combined(name: str, base: str, placement: str, teams: Teams | None) -> Policy:
    if base not in WITH_PLACE:
        raise UnknownPolicy(
            f"policy {name!r}: {base!r} goes with no placement of one's choice",
            hint=f"policies that do: {', '.join(sorted(WITH_PLACE))}",
        )
    if placement not in PLACES:
        raise UnknownPolicy(
            f"policy {name!r}: placement {placement!r} is not known",
            hint=f"known placements: {', '.join(sorted(PLACES))}",
        )
    return WITH_PLACE[base](PLACES[placement](), teams or Teams())


def pooled(name: str, by_pool: Mapping[str, str], teams: Teams | None = None) -> Policy:
    """Return the policy ``name``, with another one for the nodes of each pool in ``by_pool``. Raises as ``policy`` does."""
    if not by_pool:
        return policy(name, teams)
    return Pools({pool: policy(other, teams) for pool, other in by_pool.items()}, policy(name, teams))
