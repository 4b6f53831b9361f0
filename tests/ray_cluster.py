"""A real Ray on this machine: a head that runs no work, and emulated nodes, each a raylet of its own.

The cluster lives in a process of its own, ``python tests/ray_cluster.py FOLDER``: Ray's threads and
warnings stay there, and its end, which comes with that of its stdin, takes everything along that it
started, and nothing else. It answers each line on stdin by one on stdout.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limits import needs

NODES: dict[str, dict[str, Any]] = {
    "c1": {"num_cpus": 4},
    "c2": {"num_cpus": 4},
    "h1": {"num_cpus": 4, "num_gpus": 8, "labels": {"ray.io/accelerator-type": "H100"}},
    "b1": {"num_cpus": 4, "resources": {"910B": 8}},
}
_STORE_BYTES = 80 * 2**20
"""The least that Ray takes for its object store."""
_QUICK_HEALTH_CHECKS = {  # one that is dead refuses at once; one that lives may take long to answer on a busy machine
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}
_END_S = 240


@dataclass(slots=True, kw_only=True)
class RayCluster:
    """A cluster that runs; ``address`` is its dashboard's URL."""

    process: subprocess.Popen[str]
    address: str = ""

    def kill_node(self, name: str) -> None:
        """Kill a raylet; what it had started goes with it."""
        self.ask("kill", name)

    def add_node(self, name: str) -> None:
        """Have the node of this name, one of ``NODES``, again."""
        self.ask("add", name)

    def revive(self) -> None:
        """Have all nodes that there were in the beginning."""
        self.ask("revive")

    def ask(self, *words: str) -> str:
        """Have the cluster's process do something, and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer.startswith("ok"), f"the Ray cluster died or failed: {answer or 'no answer'}"
        return answer.removeprefix("ok").strip()


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster with the nodes of ``NODES``, for as long as the block."""
    has_ray = subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode == 0
    needs(has_ray, "ray: pip install 'artesian[ray]'")
    folder = Path(tempfile.mkdtemp(prefix="art-ray-"))  # short: it has sockets below it
    log = folder / "cluster.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)},
            start_new_session=True,
        )
    try:
        cluster = RayCluster(process=process)
        try:
            cluster.address = cluster.ask("address")
        except AssertionError:
            raise AssertionError(f"the Ray cluster did not start:\n{log.read_text()[-3000:]}") from None
        yield cluster
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=_END_S)
        assert process.stdout is not None
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def serve(folder: str) -> None:
    """Be the cluster, until stdin ends."""
    from ray import cluster_utils

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints
    cluster: Any = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "num_gpus": 0,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": 0,
            "dashboard_agent_listen_port": 0,
            "object_store_memory": _STORE_BYTES,
            "_system_config": _QUICK_HEALTH_CHECKS,
            "temp_dir": str(Path(folder, "ray")),
        },
    )
    running = {name: _add(cluster, name) for name in NODES}
    for line in sys.stdin:
        verb, *names = line.split()
        said = ""
        if verb == "address":
            said = f"http://{cluster.head_node.webui_url}"
        elif verb == "kill":
            cluster.remove_node(running.pop(names[0]), allow_graceful=False)
        else:
            for name in names or NODES:
                if name not in running:
                    running[name] = _add(cluster, name)
        answers.write(f"ok {said}\n")
        answers.flush()
    cluster.shutdown()


def _add(cluster: Any, name: str) -> Any:
    given = {"num_gpus": 0, **NODES[name]}
    return cluster.add_node(
        node_name=name, dashboard_agent_listen_port=0, object_store_memory=_STORE_BYTES, **given
    )


if __name__ == "__main__":
    serve(sys.argv[1])
