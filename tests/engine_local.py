"""What the local engine stands on in tests: a folder, and two CPU cores of this machine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artesian.engines.base import HostNode
from artesian.engines.local.engine import LocalEngine
from builders import a_node
from engines_harness import Ground, Session


@contextmanager
def ground(root: Path, session: Session) -> Iterator[Ground]:
    host = HostNode(node=a_node("here", devices=2, cpus=2), device_ids=("0", "1"))
    yield Ground(make=lambda: LocalEngine(root, [host], time.time))
