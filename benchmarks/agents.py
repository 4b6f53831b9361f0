"""Launch agents that train recovery_job.py, or another script, for benchmarks that disturb them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from artesian.train.segment import sweep
from processes import kill_node

T = TypeVar("T")

SCRIPT = Path(__file__).with_name("recovery_job.py")
LAUNCH = (sys.executable, "-m", "artesian.train.launch")


def environment(folder: Path, *, every: int, is_resilient: bool, faults: str = "[]") -> dict[str, str]:
    """Return what agents and workers get: all that they write lies in ``folder``, a checkpoint every so many steps."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ARTESIAN_")}
    return {
        **clean,
        "OMP_NUM_THREADS": "1",
        "ARTESIAN_CHECKPOINT_DIR": str(folder / "checkpoints"),
        "ARTESIAN_CHECKPOINT_EVERY": str(every),
        "ARTESIAN_PROGRESS_DIR": str(folder / "progress"),
        "ARTESIAN_FAULTS": faults,
        "RECOVERY_MARK": str(folder / "fault"),
        "RECOVERY_RESILIENT": "1" if is_resilient else "",
    }


@contextmanager
def started(
    commands: Sequence[Sequence[str]], env: dict[str, str], folder: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start each command in a session of its own, as on a node of its own, and kill all of them after the block.

    What they print is in ``agent-N.log`` of ``folder``.
    """
    agents: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"agent-{len(agents)}.log").open("wb") as log:
                agents.append(
                    subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
                )
        yield agents
    finally:
        for agent in agents:
            kill_node(agent.pid)
            agent.wait()
        sweep()  # killed agents leave their shared memory to the next


def until(ask: Callable[[], T | None], limit_s: float) -> T | None:
    """Return the first answer that is not None; None where none comes within ``limit_s`` seconds."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if (answer := ask()) is not None:
            return answer
        time.sleep(0.1)
    return None


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
