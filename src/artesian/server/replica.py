"""A replica of the control plane: follows until it may lead, leads until it loses that, and follows again.

Every replica takes submits (they are appends to the journal, which anybody may do) and answers reads from
its own state. The one that leads also drives the scheduler and the engine. When it is gone, another one has
the state already: it has only to claim the lease, read to the end, and open the engine.
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Iterable
from contextlib import closing, suppress

from artesian.engines.base import Clock, Engine
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.events import Event
from artesian.policy.base import Policy
from artesian.server.driver import Driver
from artesian.server.lease import Renewal
from artesian.server.storage import Ears, Storage
from artesian.server.view import StateView
from artesian.store import Journal, LeaseLost, StoreError, StoreUnavailable

_PULSE_S = 0.5
"""How often a follower asks whether the leader is gone, and everybody whether a ring was missed."""

_RETRY_S = 1.0

_log = logging.getLogger(__name__)


class Replica:
    """One process's part in the control plane. All of it lives on one event loop.

    ::

        replica = Replica(storage, lambda: engine, lambda: policy("fifo"), clock, name="http://host:port")
        running = asyncio.create_task(replica.run())
        seq = replica.append([JobSubmitted(...)]); await replica.view.reached(seq)
        replica.view.state().jobs
        running.cancel()                                    # gives the lease back

    ``engines`` and ``policies`` are called at the start of each term. ``save_snapshot`` and ``cycled`` are the driver's.
    """

    def __init__(
        self,
        storage: Storage,
        engines: Callable[[], Engine],
        policies: Callable[[], Policy],
        clock: Clock,
        *,
        name: str,
        save_snapshot: Callable[[State, int], None] | None = None,
        cycled: Callable[[float, bool], object] = lambda *_: None,
    ) -> None:
        self._storage = storage
        self._engines = engines
        self._policies = policies
        self._clock = clock
        self._save_snapshot = save_snapshot
        self._cycled = cycled
        self.journal: Journal = storage.journal()
        """Unfenced, for reads and for what anybody may append. For the event loop's thread."""
        try:
            self.view = StateView.open(self.journal)
            self._lease = storage.lease(name)
        except BaseException:
            self.journal.close()
            raise
        # What was loaded lives for long. Left to the collector, each full collection would walk through
        # a million objects, and everything would stand still for half a second.
        gc.collect()
        gc.freeze()
        self._driver: Driver | None = None
        self._ears: Ears | None = None
        self._news = asyncio.Event()
        self._may_be_free = True

    @property
    def epoch(self) -> int | None:
        """The epoch in which this replica leads; None while it follows."""
        return self._lease.epoch if self._driver is not None else None

    def append(self, records: Iterable[Event]) -> int:
        """Append what a user asks for, durably; return the last record's number. Raises StoreError.

        It is accepted then, whoever leads.
        """
        seq = self.journal.append(records)
        self.wake()
        return seq

    def wake(self) -> None:
        """Look at the journal soon. On the event loop's thread."""
        self._news.set()
        if self._driver is not None:
            self._driver.wake()

    async def run(self) -> None:
        """Follow and lead, for ever. Cancelled, it gives the lease back; what runs goes on.

        A database that cannot be reached is waited for. Raises other errors, such as those of a policy.
        """
        _log.info("following %s", self._storage.place)
        pulse = asyncio.create_task(self._beat())
        try:
            while True:
                try:
                    await self._follow()
                    await self._lead()
                except LeaseLost as error:
                    _log.warning("%s", error)
                except StoreUnavailable as error:
                    _log.warning("%s; trying again", error)
                    await asyncio.sleep(_RETRY_S)
        finally:
            pulse.cancel()
            self._hang_up()
            self._lease.close()

    def close(self) -> None:
        """Let go of the journal, when ``run`` is over."""
        self.journal.close()

    # -- following ----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Keep the view current; return when this replica leads."""
        while True:
            self._news.clear()
            while self.view.refresh():
                await asyncio.sleep(0)
            if self._may_be_free:
                self._may_be_free = False
                if self._lease.acquire() is not None:
                    return
            await self._news.wait()

    async def _beat(self) -> None:
        """Mend the bell, and ring it every now and then."""
        while True:
            if self._ears is None:
                with suppress(StoreError):
                    self._listen()
            self._may_be_free = True
            self._pass_on()
            await asyncio.sleep(_PULSE_S)

    def _listen(self) -> None:
        self._ears = self._storage.bell(is_leader=self._lease.epoch is not None)
        if self._ears is not None:
            asyncio.get_running_loop().add_reader(self._ears.fd, self._rung)

    def _rung(self) -> None:
        assert self._ears is not None
        try:
            self._may_be_free |= bool(self._ears.answer())
        except StoreError as error:
            _log.warning("%s", error)
            self._hang_up()
        self._pass_on()

    def _pass_on(self) -> None:
        """Wake whoever waits. A driver hears its own commits, too: these are no news to it."""
        self._news.set()
        if self._driver is not None:
            with suppress(StoreError):  # the driver meets it as well, and says so
                if self.journal.last_seq > self._driver.seq:
                    self._driver.wake()

    def _hang_up(self) -> None:
        if self._ears is not None:
            asyncio.get_running_loop().remove_reader(self._ears.fd)
            self._ears.close()
            self._ears = None

    # -- leading ------------------------------------------------------------------------------------

    async def _lead(self) -> None:
        """Drive until the lease is lost. Raises LeaseLost, StoreUnavailable, and whatever ends a driver."""
        loop, epoch, is_lost = asyncio.get_running_loop(), self._lease.epoch, asyncio.Event()
        _log.info("leading %s, epoch %s", self._storage.place, epoch)

        def lost() -> None:
            loop.call_soon_threadsafe(is_lost.set)

        renewal = Renewal(self._lease, lost)
        driver: Driver | None = None
        try:
            while self.view.refresh():  # all that the leader before this one committed
                await asyncio.sleep(0)
            if self._ears is None:  # a leader may listen where a follower may not
                self._listen()
            with closing(self._storage.journal(fence=epoch)) as fenced:
                engine = self._engines()
                driver = self._driver_on(fenced, engine)
                await self._drive(driver, engine, is_lost)
        finally:
            renewal.stop()
            with suppress(StoreError):  # then it runs out by itself
                self._lease.release()
            self._hang_up()
            _log.info("leading no more, epoch %s", epoch)
            if driver is not None:
                driver.leave_snapshot()  # last: nobody is to wait for it

    def _driver_on(self, fenced: Journal, engine: Engine) -> Driver:
        return Driver(
            fenced,
            Scheduler(self._policies(), self.view.lend()),
            self.view.seq,
            engine,
            self._clock,
            leads=lambda: self._lease.is_held,
            advanced=self.view.advanced,
            save_snapshot=self._save_snapshot or self.journal.save_snapshot,
            cycled=self._cycled,
        )

    async def _drive(self, driver: Driver, engine: Engine, is_lost: asyncio.Event) -> None:
        self._driver = driver
        running = asyncio.create_task(_run(driver))
        lost = asyncio.create_task(is_lost.wait())
        try:
            await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            running.cancel()
            with suppress(asyncio.CancelledError):
                try:
                    await running
                finally:
                    self._driver = None
                    self.view.take_back(is_whole=driver.is_in_order)
                    await engine.close()


async def _run(driver: Driver) -> None:
    await driver.open()
    await driver.run(idle_exit_s=None)
