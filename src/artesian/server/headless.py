"""A replica without an API: ``python -m artesian.server.headless URL STATE_DIR [RULES]``.

Any number may run on one database; one of them leads. URL ``-`` is the one in ARTESIAN_DATABASE. RULES are a JSON
object (``server.rules``); without them those of ``artesian.toml`` hold. What the engines keep of attempts lies below
STATE_DIR. SIGTERM and SIGINT give the lease back; what runs goes on.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from artesian.census import discover
from artesian.model.errors import ArtesianError
from artesian.server.config import StateDir, database_of
from artesian.server.cycles import CycleLog
from artesian.server.fleet import nodes_of
from artesian.server.replica import Replica
from artesian.server.rules import Rules
from artesian.server.settings import Settings
from artesian.server.snapshotting import SnapshotProcess
from artesian.server.storage import PostgresStorage
from artesian.wire import AnchoredClock

_log = logging.getLogger(__name__)


async def serve(url: str, state: StateDir, rules: Rules) -> None:
    """Follow and lead until SIGTERM or SIGINT comes."""
    clock = AnchoredClock().now_s
    nodes = nodes_of(discover())
    replica = Replica(
        PostgresStorage(url),
        lambda: rules.make_engine(state.jobs, nodes, clock),
        rules.make_policy,
        clock,
        name=f"{socket.gethostname()}:{os.getpid()}",
        save_snapshot=SnapshotProcess(url).save,
        cycled=CycleLog(state.cycles).observe,
    )
    running = asyncio.create_task(replica.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        _log.info("told to stop; attempts run on")
    finally:
        replica.close()


def main(argv: list[str]) -> int:
    """Become a replica on the database ``argv[0]``."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    state = StateDir(Path(argv[1]))
    try:
        state.create()
        rules = Rules.decode(argv[2]) if len(argv) > 2 else Settings.from_env().rules
        asyncio.run(serve(database_of(argv[0]), state, rules))
    except ArtesianError as error:
        _log.error("%s%s", error, f" (hint: {error.hint})" if error.hint else "")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
