"""How the workers of a node come to be: forked from the template while there is one, else executed."""

import contextlib
import selectors
import socket
from collections.abc import Callable, Mapping, Sequence

from artesian.train.gang import Formation, Gang, free_port, place_environment, shared_environment
from artesian.train.listening import listen
from artesian.train.standby import Standby, Store
from artesian.train.worker_process import WorkerProcess, adopt_orphans, execute, reap_orphans
from artesian.wire import environment
from artesian.wire.oom import oom_counts


class Starter:
    """Starts workers, and hands each to ``on_worker`` when it runs.

    ``on_loss`` gets the local ranks of the workers that a template which has ended has left unborn, and whether it has
    left the store unborn where they were to meet.
    """

    def __init__(
        self,
        gang: Gang,
        environ: Mapping[str, str],
        selector: selectors.BaseSelector,
        *,
        on_worker: Callable[[WorkerProcess], None],
        on_loss: Callable[[Sequence[int], bool], None],
    ) -> None:
        self._gang = gang
        self._environ = environ
        self._selector = selector
        self._on_worker = on_worker
        self._on_loss = on_loss
        self._shared = shared_environment(gang, environ)
        self._kills_before = oom_counts()
        self._standby: Standby | None = None
        self._adopts = False
        """Whether what loses its parent is this process': for good, also when there is no template any more."""
        self.is_warm = False
        """Whether the template has done its imports."""
        self.without_memory: set[int] = set()
        """Local ranks whose shared memory another process still has: they do without it."""
        self._listener: socket.socket | None = None
        self._stores: list[Store] = []

    def warm_up(self) -> None:
        """Start the template, where there is anything to import. Raises OSError when that fails."""
        if self._gang.preload:
            adopt_orphans()
            self._adopts = True
            self._standby = Standby(self._gang.preload, self._shared)
            self._selector.register(self._standby.control, selectors.EVENT_READ, self._hear_template)

    @property
    def has_template(self) -> bool:
        """Whether there is a template, be it one that still does its imports."""
        return self._standby is not None

    @property
    def can_serve(self) -> bool:
        """Whether it can serve a store outside of the workers, which takes torch."""
        return self._standby is not None and "torch" in self._gang.preload

    def open_store(self, host: str, port: int | None) -> int:
        """Return the port at which a new formation meets; what served the one before is ended.

        Without a template nobody listens there yet: that is rank 0's part then.
        """
        self.end_stores()
        if self._standby is None or not self.can_serve:
            return free_port(host) if port is None else port
        self._listener = listen((host, port or 0), backlog=1024)
        self._standby.fork_store(self._listener)
        return int(self._listener.getsockname()[1])

    def start(self, formation: Formation, local_rank: int) -> None:
        """Start a worker, now or when the template is ready. Raises OSError when it cannot be started."""
        gang = self._gang
        env = {**self._shared, **place_environment(gang, formation, local_rank, self._environ)}
        if local_rank in self.without_memory:
            env[environment.MEMORY] = ""
        rank = int(env["RANK"])
        log = (
            gang.log_dir / f"rank-{rank}.out"
            if gang.log_dir is not None and (local_rank or gang.logs_first)
            else None
        )
        if self._standby is not None:
            self._standby.fork_worker(
                rank, gang.script, is_module=gang.is_module, env=env, log=log, kills_before=self._kills_before
            )
        else:
            self._on_worker(execute(rank, gang.command, env, log, self._kills_before))

    @property
    def owed(self) -> int:
        """How many workers were asked for that do not run yet."""
        return 0 if self._standby is None else len(self._standby.owed_ranks())

    def forget(self) -> None:
        """Give up the workers that do not run yet."""
        if self._standby is not None:
            self._standby.forget()

    def give_up_template(self) -> None:
        """Go on without the template, which does not answer."""
        if self._standby is not None:
            self._lose_template()

    def reap_orphans(self, workers: Sequence[WorkerProcess]) -> None:
        """Reap adopted processes that have ended, but none of ``workers``."""
        template = self._standby
        if self._adopts and (template is None or not template.is_owing):
            own = [*(store.pid for store in self._stores), *([] if template is None else [template.pid])]
            reap_orphans([worker.pid for worker in workers] + own)

    def end_stores(self) -> None:
        """End what serves a store."""
        for store in self._stores:
            store.end()
        self._stores.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """End the template and the stores. The workers do not notice."""
        if self._standby is not None:
            self._standby.close()
        self.end_stores()

    def _hear_template(self) -> None:
        assert self._standby is not None
        taken = self._standby.take()
        if isinstance(taken, WorkerProcess):
            self._on_worker(taken)
        elif isinstance(taken, Store):
            self._stores.append(taken)
        elif not self._standby.is_alive:
            self._lose_template()
        else:
            self.is_warm = True

    def _lose_template(self) -> None:
        standby, self._standby = self._standby, None
        assert standby is not None
        owed = [self._gang.local_rank_of(rank) for rank in standby.owed_ranks()]
        self._selector.unregister(standby.control)
        is_store_lost = standby.owes_store
        standby.close()
        is_another_better, self.is_warm = standby.has_served or (self.is_warm and not owed), False
        if is_another_better:  # one whose imports, or whose forks, have failed would fail again
            with contextlib.suppress(OSError):
                self.warm_up()
        self._on_loss(owed, is_store_lost)
