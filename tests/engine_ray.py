"""What the Ray engine stands on in tests: one cluster of four emulated nodes for all of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artesian.engines.ray.client import RayClient
from artesian.engines.ray.engine import RayEngine
from artesian.engines.ray.settings import RaySettings
from engines_harness import Ground, Session
from ray_cluster import RayCluster, ray_cluster


def ray_engine(root: Path, cluster: RayCluster, settings: RaySettings | None = None) -> RayEngine:
    """An engine on a cluster, which it asks often."""
    chosen = settings or RaySettings(address=cluster.address, poll_interval_s=0.3)
    return RayEngine(root, chosen, RayClient(chosen), time.time)


@contextmanager
def ground(root: Path, session: Session) -> Iterator[Ground]:
    cluster = session.once("ray", ray_cluster)
    yield Ground(make=lambda: ray_engine(root, cluster), lose_node=cluster.kill_node)
    cluster.revive()
