"""Agents that are told their places, as those of an engine are: node 0 leads, and nobody takes another's place.

A lost connection is no lost node here: whether a node is gone the engine knows, and ends the attempt. Until then
workers go on as long as they can, and the agent that was cut off comes back. And all leave together, for an
engine that sees one agent leave ends the others, who may still be saving: who has no workers left waits for the rest.

member → leader  introduction, with its ``place``, and ``said``: what the leader may not have heard
                 ``{"left": N}``: told to stop or to end, and nobody is left on this node
                 ``{"heard": 0}``: it knows that all have ended well, and leaves; the leader stays until all do
leader → member  ``{"bye": 1}``: nobody is left on any
"""

import selectors
import time
from collections.abc import Callable

from artesian.train.council import BEAT_S, Council
from artesian.train.elected import Elected
from artesian.train.farewell import Farewell
from artesian.train.recovery import NOBODY_THERE, PREEMPTED, Failure
from artesian.train.terms import Address, Node, Terms
from artesian.train.words import Message

_AGAIN_S = 4 * BEAT_S
"""How often an agent that was cut off tries to come back."""


def council_of(
    terms: Terms, node: Node, selector: selectors.BaseSelector, say: Callable[[str], None]
) -> Council:
    """Return this node's part among the agents that meet on such terms."""
    return (Elected if terms.place is None else Placed)(terms, node, selector, say)


class Placed(Council):
    """This node's part among agents that know their places."""

    lost_s = 15.0  # a busy machine is no reason to form anew

    def __init__(
        self, terms: Terms, node: Node, selector: selectors.BaseSelector, say: Callable[[str], None]
    ) -> None:
        super().__init__(terms, node, selector, say)
        assert terms.place is not None
        self._place = terms.place
        self._places = {self.id: self._place}
        self._again_at_s = 0.0
        self._said: Message | None = None
        """What the leader must know in this formation, should the connection be lost on the way."""
        self._exit_code = 0
        """Once it is set, the gang ends with it."""
        self._has_left = False
        self._left: set[str] = set()
        self._farewell = Farewell(2 * self.lost_s)
        """Begun once all have ended well, on the node that leads."""

    # Meeting

    def _listening(self, address: Address) -> Address:
        """All addresses: the name by which others know this node may mean another one here."""
        host, port = address
        return ("127.0.0.1" if host in ("127.0.0.1", "localhost") else "", port)

    def _lead_at(self, endpoint: Address) -> bool:
        return self._place == 0 and super()._lead_at(endpoint)

    def _follow(self, endpoint: Address) -> bool:
        return self._place > 0 and self._introduce(endpoint)

    def _introduction(self) -> Message:
        return {**super()._introduction(), "place": self._place, "said": self._said}

    def _is_one_of_us(self, told: Message) -> bool:
        has_place = told.get("place") in range(self._terms.max_nodes) and "said" in told
        return has_place and super()._is_one_of_us(told)

    def _greet(self, member: str, told: Message) -> None:
        self._places[member] = int(told["place"])
        if len(self._members) == self._terms.max_nodes:
            self._shortage.end()
        if self._exit_code or self._farewell.is_on:
            self._tell(member, {"end": self._exit_code})
        elif not self._nodes:
            self._call()
        elif member not in self._nodes:
            self._take_failure(_lost(f"node {told['place']} has begun anew"))
        elif self._failures:
            self._form_at_s = time.monotonic()
        elif told["number"] != self._number:
            self._tell(member, {"form": self._formed})  # it was cut off on the way
        if told["said"] is not None:  # it may be the cause of what others have complained of meanwhile
            self._take(member, told["said"])

    # Deadlines

    def keep(self, now_s: float, *, is_warm: bool) -> None:
        super().keep(now_s, is_warm=is_warm)
        if self._farewell.is_over(now_s):
            self.is_over = True
        if self.is_over or self.is_leader or not self._shortage.is_on or now_s < self._again_at_s:
            return
        self._again_at_s = now_s + _AGAIN_S
        if self._follow(self._terms.endpoints[0]):
            self._shortage.end()

    def _missing(self) -> str:
        missing = {0}
        if self.is_leader:
            missing = set(range(self._terms.max_nodes)) - {self._places[member] for member in self._members}
        nodes = ", ".join(map(str, sorted(missing)))
        return f"node {nodes} has not answered for {self._terms.join_timeout_s:g} s"

    def _give_up(self, text: str) -> None:
        self._shortage.end()
        if self._nodes and super()._is_done():
            self._end_all(0)
        elif not self._exit_code:
            self._node.blame(_lost(text), self.budget.restarts)
            self._end_all(NOBODY_THERE)

    # Leading

    def _lose_member(self, member: str) -> None:
        del self._members[member]
        if self._farewell.is_on:
            return
        self._shortage.begin()
        if not self._exit_code:
            self._say(f"node {self._places[member]} does not answer; it may come back")
        self._dismiss()

    def _form(self) -> None:
        self._form_at_s = None
        is_final = any(not failure.is_worth_a_restart for failure in self._failures)
        if self._exit_code or (len(self._members) < self._terms.max_nodes and not is_final):
            return  # there is no gang without them
        self._members = dict(sorted(self._members.items(), key=lambda item: self._places[item[0]]))
        super()._form()

    def _take(self, member: str, message: Message) -> None:
        if self._farewell.is_on:
            if "heard" in message:
                self._farewell.note(member)
            self.is_over = self._farewell.is_over(time.monotonic())
        elif "left" in message:
            self._left.add(member)
            if not self._exit_code:
                self._end_all(PREEMPTED)  # it was told to stop, and without it nobody can go on
            self._dismiss()
        elif not self._exit_code:
            super()._take(member, message)

    def _is_done(self) -> bool:
        """Who does not answer is waited for: it would wait for the end of its gang."""
        return super()._is_done() and len(self._members) == self._terms.max_nodes

    def _dismiss(self) -> None:
        """Let all go, once nobody has workers any more."""
        if self._exit_code and self._left >= set(self._members):
            for member in self._members:
                self._tell(member, {"bye": 1})

    # Following

    def _obey(self, message: Message) -> None:
        if message.get("end"):
            self._exit_code = int(message["end"])
            self._node.end(self._exit_code)
        elif "end" in message:
            self._node.end(0)
            self._hear_of_a_good_end()
        elif "bye" in message:
            self.is_over = True
        else:
            if "form" in message:
                self._said = None
            super()._obey(message)

    def _hear_of_a_good_end(self) -> None:
        if self._leader is not None:
            self._leader.send({"heard": 0})
        if self.is_leader:
            self._farewell.begin(self._peers)
        self.is_over = not self.is_leader or self._farewell.is_over(time.monotonic())

    def _succeed(self) -> None:
        if self.is_over:
            return
        if self._has_left:
            self.is_over = True
            return
        self._shortage.begin()
        self._say("node 0, which leads, does not answer; trying to reach it again")

    # What the agent says

    def report(self, message: Message) -> None:
        if "warm" not in message:
            self._said = message
        super().report(message)

    def is_needed(self, *, is_stopped: bool) -> bool:
        if is_stopped and self._farewell.is_on:
            self.is_over = True
        if (is_stopped or self._exit_code) and not self._has_left and not self.is_over:
            self._has_left = True
            if self.is_leader or self._leader is not None:
                self.report({"left": self._number})
            else:
                self.is_over = True  # there is nobody to wait for
        return not self.is_over

    def resign(self, exit_code: int) -> None:
        """Do nothing: all have left together."""


def _lost(text: str) -> Failure:
    """Return a failure that is no worker's, and no program's."""
    return Failure(rank=-1, text=text, is_suspect=False)
