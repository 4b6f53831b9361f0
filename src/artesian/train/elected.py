"""Agents that find their places themselves: who comes first leads, and nodes may come and go.

When the leader is lost the next in the list of members leads, and the others come to it. Whose connection is lost
is lost itself: the gang goes on without it, with a spare in its place where there is one. So it does when the workers
of a node have failed twice in a row, without a new step in between: what is wrong there a new process does not mend.

A leader that is gone when there is no work left here may be gone because all have ended well. So it stays until the
others know, and one that has missed it looks for the leader first. Where nobody is left who knows, the workers of this
node have the last word.

member → leader  introduction, with ``done``: the formation in which all workers of its node have ended well
                 ``{"heard": 0}``: it knows that all have ended well, and leaves; the leader stays until all do
"""

import contextlib
import selectors
import time
from collections.abc import Callable

from artesian.train.council import Council
from artesian.train.farewell import Farewell
from artesian.train.recovery import Failure
from artesian.train.succession import RETURN_S, seek_leader
from artesian.train.terms import Address, Node, Terms
from artesian.train.words import Message


class Elected(Council):
    """This node's part among agents that are all alike."""

    def __init__(
        self, terms: Terms, node: Node, selector: selectors.BaseSelector, say: Callable[[str], None]
    ) -> None:
        super().__init__(terms, node, selector, say)
        self._is_taking_over = False
        self._led_before = ""
        self._comrades = 0
        """How many members a leader that has taken over waits for, itself among them."""
        self._accused: dict[int, tuple[str, bool]] = {}
        """Whose worker has failed, by its rank, and whether the gang had come to no new step since the failure before."""
        self._failed_last: str | None = None
        """Whose worker was the cause of the last forming."""
        self._unfit: set[str] = set()
        """Whose place a spare has taken."""
        self._passed_over: list[Address] = []
        """Who should have led before this node, and did not answer: slow, perhaps, and not lost."""
        self._done_in: int | None = None
        """The last formation in which all workers of this node have ended well."""
        self._farewell = Farewell(2 * self.lost_s)
        """Begun once all have ended well, on the node that leads."""

    @property
    def _is_done_here(self) -> bool:
        return self._done_in == self._number

    def _introduction(self) -> Message:
        return {**super()._introduction(), "done": self._done_in}

    def _greet(self, member: str, told: Message) -> None:
        if told.get("done") == self._number:  # who has heard it may be lost
            self._done.add(member)
        if self._farewell.is_on:
            self._tell(member, {"end": 0})
        elif self._is_taking_over:
            if len(self._members) >= self._comrades:
                self._form_at_s = time.monotonic()
        elif not self._nodes:
            self._call()
        elif self._shortage.is_on:
            self._form_at_s = time.monotonic()
        elif told.get("is_warm"):
            self._take(member, {"warm": 1})

    def keep(self, now_s: float, *, is_warm: bool) -> None:
        super().keep(now_s, is_warm=is_warm)
        if self._farewell.is_over(now_s):
            self.is_over = True

    def _beat(self, now_s: float) -> None:
        is_short = self._shortage.is_on
        if (is_short or (self._is_taking_over and self._is_done_here)) and self._has_turned_back():
            return
        if is_short:
            self._open_endpoint()  # it may be ours to bind, and free by now
        super()._beat(now_s)

    def _has_turned_back(self) -> bool:
        """Find whether somebody leads who should, where this node leads a gang that is too small without them."""
        others = (address for address in self._passed_over if not self._doors.is_open(address))
        if self._peers or not any(map(self._follow, others)):
            return False
        self._say("another node leads, and was only slow; this node comes to it")
        self.is_leader, self._is_taking_over, self._form_at_s = False, False, None
        self._shortage.end()
        self._failures.clear()
        self._doors.shut(self._terms.endpoints[0])  # newcomers are to find who leads
        return True

    def _form(self) -> None:
        if self._is_taking_over:
            self._is_taking_over = False
            if self._nodes and set(self._nodes) <= set(self._members) and not self._failures:
                self._form_at_s = self._yielding = None
                if self._is_done():
                    self._end_all(0)
                return  # the leader was a spare: nobody who trains is missing
            if set(self._members) <= self._done and not self._failures:
                self._say("the workers here have ended well, and who led is gone: the gang is over")
                self._end_all(0)
                return
            text = "the leading node was lost"
            lost = Failure(rank=-1, text=text, is_suspect=False, exit_code=1)
            self._failures.append(self._asides.pop(self._led_before, lost))
        super()._form()

    def _lose_member(self, member: str) -> None:
        if self._farewell.is_on:
            del self._members[member]
        else:
            super()._lose_member(member)

    def _take(self, member: str, message: Message) -> None:
        if self._farewell.is_on:
            if "heard" in message:
                self._farewell.note(member)
            self.is_over = self._farewell.is_over(time.monotonic())
            return
        if "failed" in message and message["number"] == self._number:
            self._accused[message["failed"]["rank"]] = member, bool(message.get("is_again"))
        super()._take(member, message)

    def _fit(self, cause: Failure | None) -> list[str]:
        """Return all, but who has failed again: where there is a spare, it is a spare itself from here on."""
        failed, is_again = (None, False) if cause is None else self._accused.get(cause.rank, (None, False))
        is_unfit = failed is not None and failed == self._failed_last and is_again and self.at_hand[0] > 0
        self._accused.clear()
        self._failed_last = failed
        if is_unfit:
            rank = self._nodes.index(str(failed))
            self._say(f"the workers of node {rank} fail again; a spare takes its place")
            self._unfit.add(str(failed))
        fit = [member for member in self._members if not (is_unfit and member == failed)]
        return sorted(fit, key=lambda member: member in self._unfit)  # as spares they come last

    def _obey(self, message: Message) -> None:
        if "end" not in message or message["end"]:
            super()._obey(message)
            return
        if self._leader is not None:
            self._leader.send({"heard": 0})
        self._node.end(0)
        if self.is_leader:
            self._form_at_s = None
            self._farewell.begin({*self._members, *self._done} - {self.id})
        self.is_over = not self.is_leader or self._farewell.is_over(time.monotonic())

    def report(self, message: Message) -> None:
        self._done_in = message.get("done", self._done_in)
        super().report(message)

    def resign(self, exit_code: int) -> None:
        """Leave, as ``Council`` has it; after a good end there is nothing left to end."""
        if self._farewell.is_on:
            self.is_over = True
        super().resign(exit_code)

    def _succeed(self) -> None:
        """Find the next leader, who may be this node."""
        if self.is_over:
            return
        if not self._members:  # it went before it had told who is there
            if self._node.pause(0.1):
                self.meet()
            return
        self._led_before, *_ = self._members
        led_at = self._members[self._led_before]
        is_idle = self._is_done_here or self.id not in self._nodes
        if is_idle and self._follow(led_at):  # nobody waits here: there is time to ask
            return
        del self._members[self._led_before]
        passed_over = seek_leader(self._members, self.id, self._follow)
        if passed_over is not None:
            self._passed_over = [self._members.pop(member) for member in passed_over]
            self._passed_over += [led_at] if is_idle else []
            self._take_over()

    def _take_over(self) -> None:
        self._say("the leader is lost; this node leads from here on")
        self.is_leader = True
        self._comrades = len(self._members)
        self._members = {self.id: self._address}
        self._done = {self.id} if self._is_done_here else set()
        self._open_endpoint()
        self._is_taking_over = True
        wait_s = RETURN_S if self._comrades > 1 else 0.0
        self._form_at_s = time.monotonic() + (2 * self.lost_s if self._is_done_here else wait_s)

    def _open_endpoint(self) -> None:
        with contextlib.suppress(OSError):  # where it is ours to bind, newcomers find us there
            self._doors.open(self._terms.endpoints[0])
