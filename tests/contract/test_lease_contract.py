"""Leadership: one leads at a time, whoever was replaced writes nothing more, and nobody waits for the dead."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from artesian.store import LeaseLost, StoreUnavailable
from artesian.store.postgres_journal import PostgresJournal
from artesian.store.postgres_lease import PostgresLease
from builders import ticked
from postgres_server import PostgresServer

LONG_S = 600.0
"""Longer than any test may take."""
Claim = Callable[..., PostgresLease]


@pytest.fixture
def claim(postgres_url: str) -> Iterator[Claim]:
    with ExitStack() as stack:

        def claim(holder: str, duration_s: float = LONG_S) -> PostgresLease:
            return stack.enter_context(closing(PostgresLease(postgres_url, holder, duration_s=duration_s)))

        yield claim


def expire(url: str) -> None:
    """Let the time of the lease be over, with its session alive: as it is for a process that is paused."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE artesian.lease SET expires_at = clock_timestamp()")


def test_the_first_leads_and_the_second_follows(claim: Claim) -> None:
    first, second = claim("first"), claim("second")
    assert first.leader() is None
    assert first.acquire() == 1
    assert first.is_held
    assert second.acquire() is None
    assert not second.is_held
    leader = second.leader()
    assert leader is not None
    assert (leader.epoch, leader.holder) == (1, "first")
    first.renew()


def test_what_was_given_back_is_taken_at_once(claim: Claim) -> None:
    first, second = claim("first"), claim("second")
    first.acquire()
    first.release()
    first.release()
    assert not first.is_held
    assert second.acquire() == 2
    assert first.acquire() is None


def test_a_leader_whose_session_is_gone_is_replaced_before_its_time_is_over(claim: Claim) -> None:
    first, second = claim("first"), claim("second")
    first.acquire()
    first._connection._drop()  # as the kernel does for a process that is killed
    deadline_s = time.monotonic() + LONG_S / 4
    while (epoch := second.acquire()) is None:
        assert time.monotonic() < deadline_s
    assert epoch == 2
    with pytest.raises(LeaseLost):
        first.renew()


def test_a_leader_whose_time_is_over_is_replaced_although_its_session_lives(
    claim: Claim, postgres_url: str
) -> None:
    first, second, third = claim("first"), claim("second"), claim("third")
    first.acquire()
    expire(postgres_url)
    assert second.acquire() == 2
    with pytest.raises(LeaseLost, match="epoch 1 is over") as caught:
        first.renew()
    assert caught.value.hint
    assert first.epoch is None
    assert not first.is_held
    first.close()  # the lock of its epoch is free now, and says nothing of the second's
    assert third.acquire() is None
    second.renew()


def test_a_lease_whose_time_is_over_goes_on_where_nobody_took_it(claim: Claim, postgres_url: str) -> None:
    first, second = claim("first"), claim("second")
    first.acquire()
    expire(postgres_url)
    first.renew()
    assert second.acquire() is None


def test_by_its_own_clock_a_leader_stops_to_trust_its_lease(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = claim("first", 3.0)
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    first.acquire()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 2.9)
    assert first.is_held
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 3.1)
    assert not first.is_held


def test_a_connection_made_anew_keeps_the_leadership(claim: Claim) -> None:
    first, second = claim("first"), claim("second")
    first.acquire()
    first._connection._drop()
    first.renew()
    assert second.acquire() is None


# -- the fence ----------------------------------------------------------------------------------------


def test_only_the_leader_writes_behind_its_fence(claim: Claim, postgres_url: str) -> None:
    first, second = claim("first"), claim("second")
    epoch = first.acquire()
    with closing(PostgresJournal.open(postgres_url, fence=epoch)) as old:
        assert old.append([ticked(1.0)]) == 1
        expire(postgres_url)
        assert old.append([ticked(2.0)]) == 2, "nobody else leads yet: it harms nobody"
        epoch = second.acquire()
        with pytest.raises(LeaseLost):
            old.append([ticked(3.0)])
        assert old.last_seq == 2, "it can still read"
        with closing(PostgresJournal.open(postgres_url, fence=epoch)) as new:
            assert new.append([ticked(4.0)]) == 3
        with closing(PostgresJournal.open(postgres_url)) as anybody:
            assert anybody.append([ticked(5.0)]) == 4


def test_nobody_takes_over_in_the_middle_of_the_leaders_transaction(claim: Claim, postgres_url: str) -> None:
    first, second = claim("first"), claim("second", 0.05)
    epoch = first.acquire()
    with closing(PostgresJournal.open(postgres_url, fence=epoch)) as journal:
        with journal.transaction() as transaction:
            first.renew()  # its own renewals need not wait
            expire(postgres_url)
            with pytest.raises(StoreUnavailable):
                second.acquire()
            transaction.append([ticked()])
        assert journal.last_seq == 1
    assert second.acquire() == 2


# -- any order of events ------------------------------------------------------------------------------


PROCESSES = 3
processes = st.integers(0, PROCESSES - 1)


class Leadership(RuleBasedStateMachine):
    """Processes that lead, are paused, killed, cut off, and write whenever they believe that they lead."""

    server: PostgresServer
    template: str

    def __init__(self) -> None:
        super().__init__()
        self.url = self.server.url(self.server.new_database(self.template))
        self.claims = [
            PostgresLease(self.url, str(process), duration_s=LONG_S) for process in range(PROCESSES)
        ]
        self.journal = PostgresJournal.open(self.url)
        self.writers: dict[int, PostgresJournal] = {}
        self.latest = 0
        self.written = 0

    @rule(process=processes)
    def try_to_lead(self, process: int) -> None:
        epoch = self.claims[process].acquire() if self.claims[process].epoch is None else None
        if epoch is not None:
            assert epoch == self.latest + 1, "epochs only grow, by one"
            self.latest = epoch
            if process in self.writers:
                self.writers.pop(process).close()
            self.writers[process] = PostgresJournal.open(self.url, fence=epoch)

    @rule(process=processes)
    def renew(self, process: int) -> None:
        lease = self.claims[process]
        if (epoch := lease.epoch) is None:
            return
        with suppress(LeaseLost):
            lease.renew()
            assert epoch == self.latest
            return
        assert epoch < self.latest

    @rule(process=processes)
    def write(self, process: int) -> None:
        """It writes however long ago it led: what a process does that was paused and goes on."""
        if (writer := self.writers.get(process)) is None:
            return
        epoch = writer._fence
        try:
            writer.append([ticked()])
        except LeaseLost:
            assert epoch != self.latest
        else:
            assert epoch == self.latest, "an old leader wrote"
            self.written += 1

    @rule()
    def submit(self) -> None:
        self.journal.append([ticked()])
        self.written += 1

    @rule(process=processes)
    def give_back(self, process: int) -> None:
        self.claims[process].release()

    @rule()
    def time_goes_by(self) -> None:
        expire(self.url)

    @rule(process=processes)
    def be_cut_off(self, process: int) -> None:
        self.claims[process]._connection._drop()

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.journal.last_seq == self.written

    def teardown(self) -> None:
        for lease in self.claims:
            lease.close()
        for writer in self.writers.values():
            writer.close()
        self.journal.verify()
        self.journal.close()


def test_in_any_order_of_events_only_the_latest_leader_writes(
    postgres: PostgresServer, postgres_template: str
) -> None:
    machine = type("Here", (Leadership,), {"server": postgres, "template": postgres_template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
