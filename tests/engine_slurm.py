"""What the Slurm engine stands on in tests: one cluster of four nodes for all of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artesian.engines.slurm.client import SlurmClient
from artesian.engines.slurm.engine import SlurmEngine
from artesian.engines.slurm.runner import LocalRunner
from artesian.engines.slurm.settings import SlurmSettings
from engines_harness import Ground, Session
from slurm_cluster import SlurmCluster, slurm_cluster


def slurm_engine(root: Path, cluster: SlurmCluster, settings: SlurmSettings | None = None) -> SlurmEngine:
    """An engine on a cluster, which it asks often."""
    runner = LocalRunner(extra_env={"SLURM_CONF": str(cluster.conf)})
    chosen = settings or SlurmSettings(poll_interval_s=0.5)
    return SlurmEngine(root, chosen, SlurmClient(runner), time.time)


@contextmanager
def ground(root: Path, session: Session) -> Iterator[Ground]:
    cluster = session.once("slurm", slurm_cluster)
    yield Ground(make=lambda: slurm_engine(root, cluster), lose_node=cluster.kill_node)
    cluster.revive()
