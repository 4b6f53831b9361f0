"""Every policy, with teams and pools, and the seeds of the worlds that they are asked about."""

from collections.abc import Callable
from functools import partial

from artesian.model.quota import Team, Teams
from artesian.policy.base import Policy
from artesian.policy.registry import BUILT_IN, fair_share, in_rounds, pooled
from artesian.policy.registry import policy as registered

TEAMS = Teams(
    (
        Team(name="lab"),
        Team(name="vision", parent="lab", guaranteed=(("cpu", 4), ("H100", 2))),
        Team(name="speech", parent="lab", guaranteed=(("any", 3),), borrow_limit=4),
        Team(name="archive", guaranteed=(("cpu", 2),), lends=False),
    )
)
POLICIES: dict[str, Callable[[], Policy]] = {
    **BUILT_IN,
    **{name: partial(registered, name) for name in ("easy+fgd", "fair-share+topology", "priority+best-fit")},
    "fair-share with teams": lambda: fair_share(TEAMS),
    "max-min with teams": lambda: in_rounds("max-min", teams=TEAMS),
    "max-goodput with teams": lambda: in_rounds("max-goodput", teams=TEAMS),
    "pools": lambda: pooled("fair-share", {"lab": "easy"}, TEAMS),
}
SEEDS = (0, 1, 2, 3, 12)  # in the last one a job starts by a claim, and holds what others wait for
