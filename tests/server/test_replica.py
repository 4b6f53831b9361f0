"""A replica and its parts in one process, on a state folder; several as real processes are in test_replicas.py."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from artesian.kernel.lifecycle import JobState
from artesian.model.plan import Plan
from artesian.model.snapshot import Snapshot
from artesian.policy.base import Policy
from artesian.server import replica as module
from artesian.server.bell import lock, ring
from artesian.server.config import StateDir
from artesian.server.lease import FileLease, Renewal
from artesian.server.replica import Replica
from artesian.server.storage import PostgresStorage, SqliteStorage, Storage
from artesian.store import LeaseLost, StoreUnavailable
from builders import a_job, a_node, fifo, submitted
from driver_harness import PretendEngine, now_s


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "postgres":
        return PostgresStorage(request.getfixturevalue("postgres_url"))
    state = StateDir(tmp_path / "state")
    state.create()
    return SqliteStorage(state)


@asynccontextmanager
async def running(replica: Replica) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(replica.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, RuntimeError):
            await task
        replica.close()


def a_replica(storage: Storage, engine: PretendEngine, policy: Callable[[], Policy] = fifo) -> Replica:
    return Replica(storage, lambda: engine, policy, now_s, name="here")


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.005)


async def until_succeeded(replica: Replica, job_id: str) -> None:
    await until(lambda: replica.view.state().jobs[job_id].state is JobState.SUCCEEDED)


def test_one_leads_and_another_follows_and_goes_on(storage: Storage) -> None:
    async def test() -> None:
        engine = PretendEngine(a_node(), lasts_s=0.01)
        first, second = a_replica(storage, engine), a_replica(storage, engine)
        async with running(second) as waiting:
            async with running(first):
                await until(lambda: first.epoch or second.epoch)
                leader, follower = (first, second) if first.epoch else (second, first)
                seq = follower.append([submitted(a_job("j1"))])
                await follower.view.reached(seq)
                await leader.view.reached(seq)
                assert "j1" in follower.view.state().jobs
                await until_succeeded(leader, "j1")
                await until_succeeded(follower, "j1")
                assert follower.epoch is None
                assert not follower.view.is_lent
            await until(lambda: second.epoch)
            await second.view.reached(second.append([submitted(a_job("j2"))]))
            await until_succeeded(second, "j2")
            second.view.state().validate()
            assert not waiting.done()
        assert sorted(engine.ran) == ["start/j1/1", "start/j2/1"]

    asyncio.run(test())


def test_a_replica_that_is_told_to_stop_leaves_a_snapshot_and_gives_the_lease_back(storage: Storage) -> None:
    async def test() -> None:
        engine = PretendEngine(a_node(), lasts_s=0.01)
        replica = a_replica(storage, engine)
        async with running(replica):
            await replica.view.reached(replica.append([submitted()]))
            await until_succeeded(replica, "j1")
        journal, lease = storage.journal(), storage.lease("next")
        assert journal._snapshot_places() == [journal.last_seq]  # type: ignore[attr-defined]
        assert lease.acquire() is not None
        lease.close()
        journal.close()

    asyncio.run(test())


def test_a_policy_that_fails_ends_the_replica_which_leads_no_more(storage: Storage) -> None:
    class Broken:
        name = "broken"

        def plan(self, snapshot: Snapshot) -> Plan:
            raise RuntimeError("no idea")

        def __getattr__(self, name: str) -> Any:
            return getattr(fifo(), name)

    async def test() -> None:
        replica = a_replica(storage, PretendEngine(a_node()), Broken)
        async with running(replica) as task:
            with pytest.raises(RuntimeError, match="no idea"):
                await asyncio.wait_for(asyncio.shield(task), 60)
        lease = storage.lease("next")
        assert lease.acquire() is not None
        lease.close()

    asyncio.run(test())


def test_a_missed_ring_is_made_up_for(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PULSE_S", 0.01)
    monkeypatch.setattr(Replica, "_listen", lambda self: None)

    async def test() -> None:
        replica = a_replica(storage, PretendEngine(a_node(), lasts_s=0.01))
        async with running(replica):
            await until(lambda: replica.epoch)
            other = storage.journal()
            seq = other.append([submitted()])
            other.close()
            await replica.view.reached(seq)

    asyncio.run(test())


# -- on one machine -----------------------------------------------------------------------------------


def test_the_lock_of_the_folder_is_the_lease_and_the_fifo_the_bell(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    daemons = lock(state.lock, 0.0)
    assert daemons is not None
    lease = FileLease(state.lock)
    assert lease.acquire() is None
    os.close(daemons)
    assert lease.acquire() == 1
    lease.renew()
    assert lease.is_held
    assert not ring(state.bell)
    bell = SqliteStorage(state).bell(is_leader=True)
    assert bell is not None
    assert ring(state.bell)
    assert not bell.answer()
    bell.close()
    assert SqliteStorage(state).bell(is_leader=False) is None
    lease.close()
    lease.close()
    assert lease.epoch is None


# -- the thread that renews ---------------------------------------------------------------------------


class ScriptedLease:
    """Answers renewals as told, and then as the last time."""

    epoch = 1

    def __init__(self, answers: Sequence[Exception | None], *, is_held: bool = True) -> None:
        self._answers = list(answers)
        self.is_held = is_held
        self.renewals = 0
        self.was_renewed_often = threading.Event()

    def renew(self) -> None:
        self.renewals += 1
        if self.renewals > len(self._answers) + 2:
            self.was_renewed_often.set()
        answer = self._answers[min(self.renewals, len(self._answers)) - 1]
        if answer is not None:
            raise answer

    def acquire(self) -> int | None:
        raise AssertionError

    def release(self) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


def test_a_lease_that_is_lost_is_told_once_and_renewed_no_more() -> None:
    lost = threading.Event()
    lease = ScriptedLease([None, LeaseLost("here", "epoch 1 is over")])
    renewal = Renewal(lease, lost.set, every_s=0.001)
    assert lost.wait(60)
    renewal.stop()
    assert lease.renewals == 2


def test_a_database_that_is_away_is_no_loss_until_the_lease_has_run_out() -> None:
    lost = threading.Event()
    lease = ScriptedLease([StoreUnavailable("away"), None])
    renewal = Renewal(lease, lost.set, every_s=0.001)
    assert lease.was_renewed_often.wait(60)
    assert not lost.is_set()
    lease.is_held = False
    assert lost.wait(60)
    renewal.stop()
