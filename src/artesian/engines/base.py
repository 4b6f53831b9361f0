"""The seam of an engine.

What every engine promises, and the contract suite checks:

- **Once.** A Start carried out twice starts the attempt once, whoever was killed in between. The
  attempt's number fences: nothing of an attempt runs once its end is reported.
- **Late, never lost.** What became of a command arrives as an event, sooner or later, also when the
  driver was away meanwhile: after ``open`` and the repeated commands the engine reports all that
  happened to them.
- **Devices are its word.** ``open`` returns the nodes that the engine has; later changes are
  NodeJoined and NodeLost. What others occupy of a node is said with it (``Node.occupied``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from artesian.model.events import Event
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.plan import Start, Stop

Report = Callable[[Event], None]
"""Takes an event; called on the event loop's thread."""

Clock = Callable[[], float]
"""Returns seconds since the Unix epoch; never less than before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNode:
    """This machine, or the part of it with one kind of device, and what its runtime calls each device."""

    node: Node
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where an engine is at work: all that it is made of.

    ``name`` is what its user calls it, and ``options`` the rest of its table in ``artesian.toml``. Files go
    below ``root``, an attempt's into ``root/JOB/attempt-N``. ``hosts`` are the nodes of this machine.
    """

    name: str
    root: Path
    hosts: Sequence[HostNode]
    clock: Clock
    options: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Carries out commands with something that runs processes.

    All methods are called on one event loop, and none blocks it for long.
    """

    name: str

    async def open(self, report: Report) -> Sequence[Node]:
        """Begin: return the engine's nodes; events go to ``report`` from now on."""
        ...

    def start(self, command: Start, job: Job) -> None:
        """Start an attempt, or go on watching one that this command started before.

        It ends in AttemptStarted and AttemptEnded, or AttemptEnded alone where it could not start.
        """
        ...

    def stop(self, command: Stop) -> None:
        """Stop an attempt that ``start`` was called for: SIGTERM, SIGKILL after the grace. It ends in AttemptEnded."""
        ...

    async def close(self) -> None:
        """Stop watching. Attempts run on, for the next one who opens the engine."""
        ...
