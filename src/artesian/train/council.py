"""The agents of several nodes: who leads, who is there, and what the leader tells them.

One leads. The others connect to it and stay connected: the connection and a beat every half second are how a
node is known to be there. Everybody knows the list of members in the order of their coming, and each listens on
an address of its own. Who leads, and what a lost connection means, is for ``elected`` and ``placed`` to say.

member → leader  introduction (``id``, ``address``, ``number`` and ``nodes`` of the formation it is in)
                 ``{"failed": {…}, "number": N, "is_again": BOOL}``, ``{"hangs": N}``, ``{"done": N}``,
                 ``{"yielded": N}``, ``{"warm": 1}``, ``{"beat": 1}``
leader → member  ``{"members": [[id, host, port], …]}``, ``{"form": {…}}``, ``{"stacks": N}``, ``{"yield": N}``,
                 ``{"end": CODE}``, ``{"beat": 1}``
either           ``{"aside": {…}}``: it leaves, of this failure, and makes room for a spare
"""

import contextlib
import secrets
import selectors
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial

from artesian.train.doors import Doors
from artesian.train.neighbour import Guest, Neighbour, admit, introduce, tell_all
from artesian.train.recovery import NOBODY_THERE, PREEMPTED, Failure, cause_of
from artesian.train.roster import can_grow, form_message, line_up, read_form
from artesian.train.succession import Shortage
from artesian.train.terms import Address, Node, Terms
from artesian.train.words import Message, is_introduction

BEAT_S = 0.5
_LAST_CALL_S = 5.0
_YIELD_S = 30.0
_SETTLE_S = 0.1


class Council(ABC):
    """This node's part among the agents; ``is_leader`` says which one it plays."""

    lost_s = 3.0
    """Who has been silent for so long is lost."""

    def __init__(
        self, terms: Terms, node: Node, selector: selectors.BaseSelector, say: Callable[[str], None]
    ) -> None:
        self._terms = terms
        self._node = node
        self._selector = selector
        self._say = say
        self.id = secrets.token_hex(8)
        self.is_leader = False
        self.is_over = False
        self._doors = Doors(selector, self._welcome)
        self._address: Address = ("127.0.0.1", 0)
        self._leader: Neighbour | None = None
        self._peers: dict[str, Neighbour] = {}
        self._members: dict[str, Address] = {}
        """In the order of their coming, this node among them."""
        self._is_list_new = False
        self._nodes: tuple[str, ...] = ()
        """Who trains, by node rank."""
        self._number = -1
        self._formed: Message = {}
        """What the leader has told of the last formation."""
        self.budget = terms.budget()
        self._done: set[str] = set()
        self._failures: list[Failure] = []
        self._asides: dict[str, Failure] = {}
        """Of what those leave who make room for a spare."""
        self._yielding: set[str] | None = None
        self._form_at_s: float | None = None
        self._beat_at_s = 0.0
        self._is_warm = False
        self._shortage = Shortage(terms.join_timeout_s)
        self._ended_with: int | None = None

    # Meeting

    def meet(self) -> None:
        """Become the leader, or connect to the one there is; where neither works in time the gang is over for this node."""
        deadline_s = time.monotonic() + self._terms.join_timeout_s
        while time.monotonic() < deadline_s:
            if self._lead_at(self._terms.endpoints[0]):
                return
            for endpoint in self._terms.endpoints:
                if self._follow(endpoint):
                    return
            if not self._node.pause(0.1):
                return
        where = " or ".join(f"{host}:{port}" for host, port in self._terms.endpoints)
        self._give_up(f"no agent answers at {where} within {self._terms.join_timeout_s:g} s")

    def _give_up(self, text: str) -> None:
        self._say(f"{text}: the gang is over, or has not begun; this node leaves")
        self._end_all(NOBODY_THERE)

    def _lead_at(self, endpoint: Address) -> bool:
        try:
            self._doors.open(self._listening(endpoint))
        except OSError:
            return False
        self.is_leader = True
        self._address = self._members[self.id] = endpoint
        self._call()
        return True

    def _listening(self, address: Address) -> Address:
        """Return where to listen, so that others reach this node at ``address``."""
        return address

    def _follow(self, endpoint: Address) -> bool:
        self._address = self._doors.open_towards(endpoint) or self._address
        return self._introduce(endpoint)

    def _introduce(self, endpoint: Address) -> bool:
        peer = introduce(endpoint, self._terms.token, self._introduction())
        if peer is None:
            return False
        self._leader = peer
        self._selector.register(peer.socket, selectors.EVENT_READ, lambda: self._hear(peer, self._obey))
        return True

    def _introduction(self) -> Message:
        said = {"id": self.id, "address": self._address, "is_warm": self._is_warm}
        return {**said, "number": self._number, "nodes": self._nodes}

    def _welcome(self, guest: Guest) -> None:
        peer = guest.peer
        if not self.is_leader:
            peer.close()  # not yet: it tries again, or goes to whom it finds leading
            return
        told = admit(guest, self._terms.token)
        if told is None:
            return
        is_one_of_us = self._is_one_of_us(told)
        if not is_one_of_us:
            self._say(
                "an agent that knows the token was started on other terms than this one; it is sent away"
            )
        if self.is_over or not is_one_of_us:
            peer.send({"end": (self._ended_with or 0) if is_one_of_us else NOBODY_THERE})
            peer.close()
            return
        if (before := self._peers.get(peer.id)) is not None:
            self._lose(before)
        self._members[peer.id] = (str(told["address"][0]), int(told["address"][1]))
        self._peers[peer.id] = peer
        take = partial(self._take, peer.id)
        self._selector.register(peer.socket, selectors.EVENT_READ, lambda: self._hear(peer, take))
        self._tell_members([peer])
        self._is_list_new = True
        self._greet(peer.id, told)

    def _is_one_of_us(self, told: Message) -> bool:
        return is_introduction(told)

    @abstractmethod
    def _greet(self, member: str, told: Message) -> None:
        """See what to do now that one more is there, who has told this."""

    # Deadlines

    def deadline_s(self) -> float:
        """Return when ``keep`` should be called next, on the monotonic clock."""
        return min(self._beat_at_s, self._form_at_s or self._beat_at_s)

    def keep(self, now_s: float, *, is_warm: bool) -> None:
        """Send and check beats, and form the gang when it is time.

        ``is_warm`` says that workers can start without a wait here: only then does a gang that trains make
        room for this node.
        """
        if self.is_over:
            return
        if is_warm and not self._is_warm:
            self._is_warm = True
            self.report({"warm": 1})
        if now_s >= self._beat_at_s:
            self._beat_at_s = now_s + BEAT_S
            self._beat(now_s)
        if self.is_leader and self._form_at_s is not None and now_s >= self._form_at_s:
            self._form()
        if self._shortage.is_over(now_s):
            self._give_up(self._missing())

    def _beat(self, now_s: float) -> None:
        if self._is_list_new:
            self._is_list_new = False
            self._tell_members(self._peers.values())
        for peer in [*self._peers.values(), *([self._leader] if self._leader else [])]:
            is_there = peer.send({"beat": 1})
            if not is_there or now_s - peer.heard_s > self.lost_s:
                self._lose(peer)

    def _missing(self) -> str:
        """Return who has not come, as a sentence."""
        missing = self._terms.min_nodes - len(self._members)
        return f"{missing} more nodes should have come within {self._terms.join_timeout_s:g} s"

    def _lose(self, peer: Neighbour) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(peer.socket)
        peer.close()
        if peer is self._leader:
            self._leader = None
            self._succeed()
        elif self._peers.pop(peer.id, None) is not None:
            self._lose_member(peer.id)

    # Leading

    def _call(self) -> None:
        """Start when all are there, or some time after enough are."""
        if len(self._members) >= self._terms.max_nodes:
            self._form_at_s = time.monotonic()
        elif len(self._members) >= self._terms.min_nodes:
            self._form_at_s = time.monotonic() + _LAST_CALL_S
        else:
            self._shortage.begin()

    def _lose_member(self, member: str) -> None:
        del self._members[member]
        self._is_list_new = True
        if member in self._nodes and member not in self._done:  # whose workers have ended well is not missed
            rank = self._nodes.index(member)
            lost = Failure(rank=-1, text=f"node {rank} was lost", is_suspect=False, exit_code=1)
            self._take_failure(self._asides.pop(member, lost))
        elif self._yielding is not None:
            self._note_yield(member)

    def _take_failure(self, failure: Failure) -> None:
        self._failures.append(failure)
        at_s = time.monotonic() + (_SETTLE_S if failure.is_suspect else 0.0)
        self._form_at_s = at_s if self._form_at_s is None else min(self._form_at_s, at_s)

    def _ask_to_yield(self, newcomer: str) -> None:
        self._say(f"node {newcomer} has come; the gang is formed anew with it after the current step")
        self._yielding = set(self._nodes)
        self._form_at_s = time.monotonic() + _YIELD_S
        for member in self._nodes:
            self._tell(member, {"yield": self._number})

    def _note_yield(self, member: str) -> None:
        if self._yielding is not None:
            self._yielding.discard(member)
            if not self._yielding:
                self._form_at_s = time.monotonic()

    def _form(self) -> None:
        """Form the gang of who is there."""
        self._form_at_s = self._yielding = None
        failures, self._failures = self._failures, []
        cause = cause_of(failures) if failures else None
        if cause is not None and not self.budget.covers(cause):
            if cause.exit_code != PREEMPTED or cause.rank >= 0:
                self._node.blame(cause, self.budget.restarts)
            self._end_all(cause.code)
            return
        least, most = self._terms.min_nodes, self._terms.max_nodes
        lineup = line_up(self._nodes, self._fit(cause), min_nodes=least, max_nodes=most)
        if lineup is None:
            missing = self._terms.min_nodes - len(self._members)
            self._say(f"{cause.text if cause else 'nodes are missing'}; waiting for {missing} more")
            self._failures = failures
            self._shortage.begin()
            return
        self._shortage.end()
        if cause is not None:
            self.budget.spend(cause)
        self._number += 1
        self._nodes, self._done = lineup.nodes, set()
        port, is_served = self._node.open_store(self._listening(self._address)[0])
        master = (self._address[0], port)
        self._formed = form_message(lineup, self._number, self.budget, master, cause, is_served=is_served)
        for member in list(self._members):
            self._tell(member, {"form": self._formed})

    def _fit(self, cause: Failure | None) -> list[str]:  # noqa: ARG002
        """Return the members that may train after a failure, in the order of their coming."""
        return list(self._members)

    def _tell(self, member: str, message: Message) -> None:
        if member == self.id:
            self._obey(message)
        elif (peer := self._peers.get(member)) is not None:
            peer.send(message)  # whether it is there the beats tell

    def _tell_members(self, peers: Iterable[Neighbour]) -> None:
        """Who comes is told at once, all others with a beat: of a thousand who come together each would be told a thousand times."""
        tell_all(peers, {"members": [[member, *address] for member, address in self._members.items()]})

    def _end_all(self, code: int) -> None:
        self._ended_with = code
        for member in [member for member in self._members if member != self.id] + [self.id]:
            self._tell(member, {"end": code})

    def _hear(self, peer: Neighbour, act: Callable[[Message], None]) -> None:
        if (messages := peer.receive()) is None:
            self._lose(peer)
        for message in messages or ():
            act(message)

    def _take(self, member: str, message: Message) -> None:
        """Take a member's word, this node's own included. What it says of an older formation is over."""
        if "failed" in message and message["number"] == self._number:
            self._take_failure(Failure(**message["failed"]))
        elif message.get("hangs") == self._number:
            for other in set(self._nodes) - {member}:
                self._tell(other, {"stacks": self._number})
        elif "aside" in message:
            self._asides[member] = Failure(**message["aside"])
            self._lose(self._peers[member])
        elif "warm" in message and self._form_at_s is None:
            if self._nodes and can_grow(self._nodes, self._members, self._terms.max_nodes):
                self._ask_to_yield(member)
        elif message.get("yielded") == self._number:
            self._note_yield(member)
        elif message.get("done") == self._number:
            self._done.add(member)
            if self._is_done():
                self._end_all(0)

    def _is_done(self) -> bool:
        """Whether the workers of all nodes have ended as they should."""
        return self._done >= set(self._nodes)

    # Following

    def _obey(self, message: Message) -> None:
        if "members" in message:
            self._members = {str(name): (str(host), int(port)) for name, host, port in message["members"]}
        elif "form" in message:
            self._enter(message["form"])
        elif message.get("stacks") == self._number:
            self._node.show_stacks()
        elif "aside" in message:
            self._asides[next(iter(self._members))] = Failure(**message["aside"])  # the first leads
        elif "yield" in message:
            self._node.give_way()
        elif "end" in message:
            self.is_over = True
            self._node.end(int(message["end"]))

    def _enter(self, form: Message) -> None:
        self._number, self._asides = int(form["number"]), {}
        self.budget.restarts, self.budget.replacements = int(form["restarts"]), int(form["replacements"])
        self._nodes = tuple(form["nodes"])
        node_rank = self._nodes.index(self.id) if self.id in self._nodes else None
        formed = read_form(form)
        self._node.form(self._number, len(self._nodes), node_rank, *formed, is_served=bool(form["is_served"]))

    @abstractmethod
    def _succeed(self) -> None:
        """Go on without the leader, who is lost."""

    # What the agent says

    def report(self, message: Message) -> None:
        """Tell the leader, with the number of the formation."""
        if self.is_leader:
            self._take(self.id, message)
        elif self._leader is not None:
            self._leader.send(message)

    def resign(self, exit_code: int) -> None:
        """Leave because this node was asked to stop, which ends the gang."""
        if self.is_over:
            return
        self.is_over = True
        if self.is_leader:
            self._end_all(exit_code)
        elif self._leader is not None:
            failure = Failure(rank=-1, text="a node was stopped", is_suspect=False, exit_code=PREEMPTED)
            self._leader.send({"failed": asdict(failure), "number": self._number})

    def is_needed(self, *, is_stopped: bool) -> bool:
        """Return whether this node, which has no workers left, is to stay; ``is_stopped``: it was told to stop."""
        return not self.is_over and not is_stopped

    @property
    def at_hand(self) -> tuple[int, int]:
        """How many nodes are there that do not train, and how many more than the gang needs."""
        return len(set(self._members) - set(self._nodes)), len(self._members) - self._terms.min_nodes

    def make_room(self, failure: Failure) -> None:
        """Leave the gang to the others, with a spare in the place of this node, whose worker is too slow."""
        for peer in [*self._peers.values(), *([self._leader] if self._leader else [])]:
            peer.send({"aside": asdict(failure)})
        self.is_over = True
        self.close()

    def close(self) -> None:
        """Close all connections. Calling it again does nothing."""
        for peer in [*self._peers.values(), *([self._leader] if self._leader else [])]:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(peer.socket)
            peer.close()
        self._doors.close()
