"""Moves in a simulation: listed as they are made, or, in a dry run, as they could have been."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from artesian.model.plan import Plan, Reason
from artesian.model.snapshot import Snapshot
from artesian.policy.base import Policy, Timed
from artesian.policy.moves import Move, moves_of, possible_moves, without_moves


class Watched:
    """A policy, and the ``moves`` that its plans have made. In a dry run it makes none, and ``moves`` are those with
    which a waiting job could have started; each such job is listed once.
    """

    def __init__(self, policy: Policy, *, is_dry: bool = False) -> None:
        self._policy = without_moves(policy) if is_dry else policy
        self._is_dry = is_dry
        self._seen: set[str] = set()
        self.moves: list[Move] = []

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return what the policy plans."""
        plan = self._policy.plan(snapshot)
        if not self._is_dry:
            self.moves += moves_of(plan, snapshot)
        elif snapshot.running and plan.holds:
            news = [hold for hold in plan.holds if hold.job_id not in self._seen]
            asked = replace(plan, holds=tuple(news))
            for job_id, moves in possible_moves(asked, snapshot, policy=self._policy):
                self._seen.add(job_id)
                self.moves += moves
        return plan

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return the policy's reason."""
        return self._policy.explain(snapshot, job_id)


class WatchedTimed(Watched):
    """The same of a policy that wants cycles by itself."""

    def __init__(self, policy: Policy, *, is_dry: bool = False) -> None:
        super().__init__(policy, is_dry=is_dry)
        assert isinstance(self._policy, Timed)
        self._timed = self._policy

    def next_wake_s(self, snapshot: Snapshot) -> float | None:
        """Return when the policy wants a cycle."""
        return self._timed.next_wake_s(snapshot)


def watched(policy: Policy, *, is_dry: bool = False) -> Watched:
    """Return the policy, watched."""
    return (WatchedTimed if isinstance(policy, Timed) else Watched)(policy, is_dry=is_dry)


def moves_dict(moves: list[Move]) -> Mapping[str, Any]:
    """Return the JSON form: how many, at what cost, whom they let start, and each."""
    return {
        "count": len(moves),
        "cost_device_s": sum(move.cost_device_s for move in moves),
        "let_start": sorted({move.lets_start for move in moves if move.lets_start is not None}),
        "moves": [
            {
                "at_s": move.at_s,
                "job": move.job_id,
                "kind": move.kind,
                "now": str(move.now),
                "to": str(move.to),
                "cost_device_s": move.cost_device_s,
                "lets_start": move.lets_start,
            }
            for move in moves
        ],
    }
