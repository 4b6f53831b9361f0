"""What a launch agent is asked to run, where its workers stand in the gang, and what they are told of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artesian.train.budget import MAX_REPLACEMENTS, Budget
from artesian.train.listening import listen
from artesian.train.recovery import CAUSES
from artesian.train.worker_process import usable_cpus
from artesian.wire import environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """The workers to start on this node, and where they stand among those of the other nodes.

    ``command`` is the whole command line; ``script`` its part behind the interpreter where it is Python's,
    the name of a module where ``is_module``. ``preload`` are the modules that the template imports; without
    any there is no template. ``max_replacements`` is how often stragglers are replaced, ``restart_on`` are the causes that a restart is for. ``start_limit_s`` is how long a
    worker may take to its first step (None: what ``Run`` says, without it any time). ``master_port`` None takes a
    free port. Without a ``log_dir`` all workers share the agent's output; without a ``progress_dir`` failures are
    reported on stderr only. From SIGTERM to SIGKILL workers have ``stop_grace_s`` seconds where the job was told to
    stop, and may save; ``grace_s`` where another worker has failed.

    Where nodes have different numbers of workers, ``first_rank`` is that of this node's first one, and
    ``world_size`` counts those of all nodes; both are None where each node has as many.
    """

    command: tuple[str, ...]
    local_workers: int
    script: tuple[str, ...] = ()
    is_module: bool = False
    preload: tuple[str, ...] = ()
    max_restarts: int = 0
    max_replacements: int = MAX_REPLACEMENTS
    restart_on: frozenset[str] = frozenset(CAUSES)
    nodes: int = 1
    node_rank: int = 0
    master_host: str = "127.0.0.1"
    master_port: int | None = None
    start_limit_s: float | None = None
    grace_s: float = 2.0
    stop_grace_s: float = 30.0
    progress_dir: Path | None = None
    log_dir: Path | None = None
    first_rank: int | None = None
    world_size: int | None = None
    role: str = "default"
    run_id: str | None = None
    logs_first: bool = False
    """Whether the node's first worker, too, writes into ``log_dir``."""

    def budget(self) -> Budget:
        """Return how often this node, alone, may start its workers anew."""
        return Budget(
            max_restarts=self.max_restarts,
            max_replacements=self.max_replacements,
            restart_on=self.restart_on,
        )

    def rank_of(self, node_rank: int, local_rank: int) -> int:
        """Return the rank of a worker of this node, which stands at ``node_rank``."""
        first = node_rank * self.local_workers if self.first_rank is None else self.first_rank
        return first + local_rank

    def local_rank_of(self, rank: int) -> int:
        """Return which of this node's workers has the rank."""
        return rank % self.local_workers if self.first_rank is None else rank - self.first_rank

    def workers_on(self, nodes: int) -> int:
        """Return how many workers the gang has on so many nodes."""
        return nodes * self.local_workers if self.world_size is None else self.world_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Formation:
    """One forming of the gang: who stands where, and where they meet.

    ``number`` counts the restarts within the attempt. ``is_store_served`` says that somebody else than rank
    0 serves the store at the master's address; every formation has a store of its own.
    """

    number: int
    node_rank: int
    nodes: int
    master_host: str
    master_port: int
    is_store_served: bool


def worker_environment(
    gang: Gang, formation: Formation, local_rank: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of one worker: ``environ`` and torchrun's variables on top."""
    return {**shared_environment(gang, environ), **place_environment(gang, formation, local_rank, environ)}


def shared_environment(gang: Gang, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what is the same for all workers of the node, in every formation."""
    defaults = {
        "OMP_NUM_THREADS": max(1, usable_cpus() // gang.local_workers),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": 1,
    }
    return {**{name: str(value) for name, value in defaults.items()}, **environ}


def place_environment(
    gang: Gang, formation: Formation, local_rank: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that tell a worker its place."""
    rank = gang.rank_of(formation.node_rank, local_rank)
    world_size = gang.workers_on(formation.nodes)
    attempts_before = max(0, int(environ.get(environment.EPOCH, "1")) - 1)
    ours = {
        "RANK": rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": gang.local_workers,
        "GROUP_RANK": formation.node_rank,
        "GROUP_WORLD_SIZE": formation.nodes,
        "ROLE_RANK": rank,
        "ROLE_NAME": gang.role,
        "ROLE_WORLD_SIZE": world_size,
        "MASTER_ADDR": formation.master_host,
        "MASTER_PORT": formation.master_port,
        "TORCHELASTIC_RUN_ID": gang.run_id or environ.get(environment.JOB_ID, "none"),
        "TORCHELASTIC_RESTART_COUNT": attempts_before + formation.number,
        "TORCHELASTIC_MAX_RESTARTS": gang.max_restarts,
        "TORCHELASTIC_USE_AGENT_STORE": formation.is_store_served,
        environment.RESTART: formation.number,
    }
    return {name: str(value) for name, value in ours.items()}


def free_port(host: str) -> int:
    """Return a TCP port that nobody listens on now, on this machine's address ``host``."""
    with listen((host, 0), backlog=1) as server:
        port: int = server.getsockname()[1]
    return port
