"""The process around the driver: ``python -m artesian.server.daemon STATE_DIR [IDLE_EXIT_S [RULES]]``.

Commands start it when they need it, and it leaves when there has been nothing to do for a while. It
may be killed at any instant; the next command starts another one. Only one lives per state folder:
it holds a lock for as long as it does. ENGINES are the tables of the settings, in JSON.
"""

import asyncio
import io
import logging
import logging.handlers
import os
import signal
import sys
from pathlib import Path

from artesian.census import discover
from artesian.kernel.scheduler import Scheduler
from artesian.model.errors import ArtesianError
from artesian.server.bell import Bell, lock
from artesian.server.config import IDLE_EXIT_S, StateDir, private
from artesian.server.cycles import CycleLog
from artesian.server.driver import Driver
from artesian.server.fleet import nodes_of
from artesian.server.rules import Rules
from artesian.server.snapshotting import SnapshotProcess
from artesian.store import SqliteJournal
from artesian.wire import AnchoredClock

_LOCK_WAIT_S = 5.0
_LOG_BYTES = 2**20

_log = logging.getLogger(__name__)


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """A log of which each file, a rotated one too, is for its user only."""

    def _open(self) -> io.TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=private)


async def serve(state: StateDir, idle_exit_s: float, rules: Rules) -> None:
    """Drive the scheduler of ``state`` until it is idle, or SIGTERM comes."""
    journal = SqliteJournal.open(state.journal)
    try:
        replayed, seq = journal.load()
        scheduler = Scheduler(rules.make_policy(), replayed)
        clock = AnchoredClock().now_s
        engine = rules.make_engine(state.jobs, nodes_of(discover()), clock)
        snapshots = SnapshotProcess(str(state.journal))
        driver = Driver(
            journal,
            scheduler,
            seq,
            engine,
            clock,
            save_snapshot=snapshots.save,
            cycled=CycleLog(state.cycles).observe,
        )
        await driver.open()
        await _run_with_bell(state, driver, journal, idle_exit_s)
        await driver.close()
    finally:
        journal.close()


async def _run_with_bell(state: StateDir, driver: Driver, journal: SqliteJournal, idle_exit_s: float) -> None:
    """Run the driver; when it is idle, take the bell down, and go on if somebody was quicker."""
    loop = asyncio.get_running_loop()
    running: asyncio.Task[None] | None = None
    loop.add_signal_handler(signal.SIGTERM, lambda: running.cancel() if running is not None else None)
    while True:
        bell = Bell(state.bell)

        def rung(bell: Bell = bell) -> None:
            bell.answer()
            driver.wake()

        loop.add_reader(bell.fd, rung)
        running = asyncio.create_task(driver.run(idle_exit_s=idle_exit_s))
        try:
            await running
        except asyncio.CancelledError:
            _log.info("told to stop; attempts run on")
            return
        finally:
            loop.remove_reader(bell.fd)
            bell.close()
        # Who submitted before the bell came down found it up, and starts no daemon.
        if journal.last_seq == driver.seq:
            _log.info("nothing to do for %g s", idle_exit_s)
            return


def main(argv: list[str]) -> int:
    """Become the daemon of the state folder ``argv[0]``; 0 also where there is one already."""
    state = StateDir(Path(argv[0]))
    idle_exit_s = float(argv[1]) if len(argv) > 1 else IDLE_EXIT_S
    rules = Rules.decode(argv[2]) if len(argv) > 2 else Rules()
    state.create()
    handler = _PrivateLog(state.daemon_log, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler]
    )
    if lock(state.lock, _LOCK_WAIT_S) is None:
        return 0
    _log.info("driving %s by policy %s, pid %d", state.path, rules.policy, os.getpid())
    try:
        asyncio.run(serve(state, idle_exit_s, rules))
    except ArtesianError as error:
        _log.error("%s%s", error, f" (hint: {error.hint})" if error.hint else "")
        return 1
    except Exception:
        _log.exception("the driver failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
