"""By whose rules a driver decides, and through whom it acts: what its process is told, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from artesian.model.quota import Team, Teams
from artesian.policy.default import DEFAULT

if TYPE_CHECKING:  # policies and engines are heavy, and a command that asks a server needs neither
    from artesian.engines.base import Clock, Engine, HostNode
    from artesian.model.fleet import Node
    from artesian.policy.base import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """``policy``, ``teams``, ``pools`` and ``engines`` of ``Settings``."""

    policy: str = DEFAULT
    teams: Teams = field(default_factory=Teams)
    pools: Mapping[str, str] = field(default_factory=dict)
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def encode(self) -> str:
        """Return them as JSON."""
        told = {
            "policy": self.policy,
            "teams": self.teams.teams,
            "usage_half_life_s": self.teams.usage_half_life_s,
            "pools": self.pools,
            "engines": self.engines,
        }
        return msgspec.json.encode(told).decode()

    @classmethod
    def decode(cls, text: str) -> "Rules":
        """Return what ``encode`` made this text of."""
        told = msgspec.json.decode(text)
        teams = Teams(msgspec.convert(told["teams"], tuple[Team, ...]), told.get("usage_half_life_s"))
        return cls(policy=told["policy"], teams=teams, pools=told["pools"], engines=told["engines"])

    def make_policy(self) -> "Policy":
        """Return a new policy. Raises UnknownPolicy, BrokenPolicy."""
        from artesian.policy import registry

        return registry.pooled(self.policy, self.pools, self.teams)

    async def nodes(self, root: Path, hosts: "Sequence[HostNode]", clock: "Clock") -> "list[Node]":
        """Return the nodes that the engines have now. Raises as ``make_engine`` does, and as opening them does."""
        engine = self.make_engine(root, hosts, clock)
        try:
            return list(await engine.open(lambda _: None))
        finally:
            await engine.close()

    def make_engine(self, root: Path, hosts: "Sequence[HostNode]", clock: "Clock") -> "Engine":
        """Return a new engine that keeps its files below ``root``; ``hosts`` are this machine's nodes.

        Raises UnknownEngine, BrokenEngine, OptionsError.
        """
        from artesian.engines.registry import engine_of

        return engine_of(self.engines, root, hosts, clock)
