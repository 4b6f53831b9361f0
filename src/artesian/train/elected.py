"""Agents that find their places themselves: who comes first leads, and nodes may come and go.

When the leader is lost the next in the list of members leads, and the others come to it. Whose connection is lost
is lost itself: the gang goes on without it, with a spare in its place where there is one.
"""

import contextlib
import selectors
import time
from collections.abc import Callable

from artesian.train.council import Council
from artesian.train.neighbour import Message
from artesian.train.recovery import Failure
from artesian.train.terms import Node, Terms

_RETURN_S = 2.0


class Elected(Council):
    """This node's part among agents that are all alike."""

    def __init__(
        self, terms: Terms, node: Node, selector: selectors.BaseSelector, say: Callable[[str], None]
    ) -> None:
        super().__init__(terms, node, selector, say)
        self._is_taking_over = False
        self._comrades = 0
        """How many members a leader that has taken over waits for, itself among them."""

    def _greet(self, member: str, told: Message) -> None:
        if self._is_taking_over:
            if len(self._members) >= self._comrades:
                self._form_at_s = time.monotonic()
        elif not self._nodes:
            self._call()
        elif told.get("is_warm"):
            self._take(member, {"warm": 1})

    def _form(self) -> None:
        if self._is_taking_over:
            self._is_taking_over = False
            if self._nodes and set(self._nodes) <= set(self._members) and not self._failures:
                self._form_at_s = self._yielding = None
                return  # the leader was a spare: nobody who trains is missing
            text = "the leading node was lost"
            self._failures.append(Failure(rank=-1, text=text, is_suspect=False, exit_code=1))
        super()._form()

    def _succeed(self) -> None:
        """Find the next leader, who may be this node."""
        if self.is_over:
            return
        order = list(self._members)[1:]  # the first was leading
        self._members = {member: self._members[member] for member in order}
        for member in order:
            if member == self.id:
                self._take_over()
                return
            deadline_s = time.monotonic() + _RETURN_S
            while time.monotonic() < deadline_s:
                if self._follow(self._members[member]):
                    return
                time.sleep(0.02)
            self._members.pop(member)
        self._take_over()

    def _take_over(self) -> None:
        self._say("the leader is lost; this node leads from here on")
        self.is_leader = True
        self._comrades = len(self._members)
        self._members = {self.id: self._address}
        with contextlib.suppress(OSError):
            self._listen(self._terms.endpoints[0])  # where it is ours to bind, newcomers find us there
        self._is_taking_over = True
        self._form_at_s = time.monotonic() + (_RETURN_S if self._comrades > 1 else 0.0)
