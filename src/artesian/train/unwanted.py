"""Workers that the others would do better without: one that is slow, or whose node is unfit, by their own word."""

from collections.abc import Mapping
from typing import Any

from artesian.train.budget import Budget
from artesian.train.council import Council
from artesian.train.gang import Formation
from artesian.train.recovery import Failure
from artesian.train.saying import say

_TURN_S = 2.0


class Unwanted:
    """Decides what comes of such a word. What it has said of a node that stays, it does not say again."""

    def __init__(self, council: Council | None, budget: Budget) -> None:
        self._council = council
        self._budget = budget
        self._said: set[str] = set()
        self._against: dict[str, set[str]] = {}
        """By device, what is known against it: what a worker found that took it into use is no fault found in use."""
        self._stays: str | None = None
        """What is wrong with this node, where it stays all the same."""
        self._turn: tuple[int, float] | None = None
        """In which formation a spare one has come, and when it is this node's turn to go for it."""

    def judge(self, worker: object, rank: int, told: Mapping[str, Any]) -> tuple[Failure, bool] | None:
        """Return the cause to form the gang anew for, and whether this node leaves; None where all goes on as it is.

        ``told`` is the worker's word, in the form that ``Link`` has.
        """
        if "slow" in told:
            return self._judge_slow(f"{worker} is slow: {told['slow']}", rank)
        if "against" in told:
            before = self._against.setdefault(told.get("device", ""), set(told["against"]))
            since = [reason for reason in told["against"] if reason not in before]
            before.update(since)
            return self._judge_unfit(f"{worker} is unfit: {'; '.join(since)}", None) if since else None
        return self._judge_unfit(f"{worker} is unfit: {told['unfit']}", told.get("ahead"))

    def again(self, formation: Formation, now_s: float) -> tuple[Failure, bool] | None:
        """Return as ``judge`` does what comes of a node that has stayed for want of a spare one, once one has come.

        Of several such nodes one goes at a time: each leaves time to those before it, whose going forms the gang anew.
        """
        if self._stays is None or self._council is None or not self._council.at_hand[0]:
            self._turn = None
            return None
        if self._turn is None or self._turn[0] != formation.number:
            self._turn = formation.number, now_s + _TURN_S * formation.node_rank
        return self._judge_unfit(self._stays, None) if now_s >= self._turn[1] else None

    def _judge_slow(self, text: str, rank: int) -> tuple[Failure, bool] | None:
        cause = Failure(rank=rank, text=text, is_suspect=False, is_straggler=True)
        if (why_not := self._budget.why_no_replacement) is not None:
            say(f"{text}; it is not replaced: {why_not}")
            return None
        if self._council is None:
            return cause, False
        if not self._council.at_hand[0]:
            return None
        say(f"{text}; this node makes room for a spare one")
        return cause, True

    def _judge_unfit(self, text: str, ahead: int | None) -> tuple[Failure, bool] | None:
        """``ahead`` nodes are to leave before this one; None: only where a spare takes its place."""
        spares, extra = (0, 0) if self._council is None else self._council.at_hand
        if self._council is None:
            stays = "it is the only node"
        elif not self._budget.has_restarts:
            stays = "no restart is left"
        elif ahead is None and not spares:
            stays = "no spare node is there"
        elif ahead is not None and extra <= ahead:
            stays = "no spare node is there, and without it there would be too few"
        else:
            whither = (
                "makes room for a spare one"
                if spares > (ahead or 0)
                else "is left out, and no other takes its place"
            )
            say(f"{text}; this node {whither}")
            return Failure(rank=-1, text=text, is_suspect=False, exit_code=1), True
        self._stays = text
        if text not in self._said:
            self._said.add(text)
            say(f"{text}; training goes on with it: {stays}")
        return None
