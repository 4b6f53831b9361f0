"""The files of an attempt on Ray beside those of every attempt. Driver and agents import it: it imports little."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REQUEST = "attempt.json"
"""What the control plane wants of the driver and the agents; for its user only."""
VERDICT = "gang.json"
"""How the gang as a whole ended, as its driver saw it."""


def node_folder(folder: Path, index: int) -> Path:
    """Return where the supervisor of a node keeps its records: the first one's are those of the attempt."""
    return folder if index == 0 else folder / f"node-{index}"


def words(amounts: Mapping[str, float]) -> str:
    """Return amounts of Ray's resources for people."""
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())


def read_request(folder: Path) -> dict[str, Any]:
    """Return what the control plane wrote down for the driver and the agents."""
    request: dict[str, Any] = json.loads((folder / REQUEST).read_bytes())
    return request
