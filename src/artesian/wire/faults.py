"""Faults as data: what to break, in which worker, at which step.

A job file lists them under ``faults:``; the worker that recognises itself carries the fault out
just before it commits the step. A fault fires in one attempt only, so that the job can recover.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """Ways for a worker to go wrong."""

    KILL = "kill"
    """SIGKILL to itself: no handler runs, nothing is flushed."""
    EXCEPTION = "exception"
    """An uncaught RuntimeError."""
    STOP = "stop"
    """SIGSTOP to itself: the process is there, and does nothing any more."""
    SEGFAULT = "segfault"
    """A read of address 0."""
    GIL = "gil"
    """A call that holds the interpreter's lock and never returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: ``kind`` happens in the worker of rank ``worker`` when it is about to commit ``step``.

    ``epoch`` is the attempt in which it happens, the first by default; ``restart`` is how often the launch
    agent has restarted the gang in that attempt by then.
    """

    kind: FaultKind
    worker: int
    step: int
    epoch: int = 1
    restart: int = 0


def encode_faults(faults: Iterable[Fault]) -> str:
    """Return the JSON text that goes into the worker's environment."""
    return json.dumps([asdict(fault) for fault in faults])


def decode_faults(text: str) -> tuple[Fault, ...]:
    """Return the faults in ``text``. Raises ValueError when it is not a list of faults."""
    try:
        items = json.loads(text)
        faults = tuple(Fault(**{**item, "kind": FaultKind(item["kind"])}) for item in items)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a list of faults: {text!r}") from error
    numbers = (
        number for fault in faults for number in (fault.worker, fault.step, fault.epoch, fault.restart)
    )
    if not isinstance(items, list) or any(type(number) is not int for number in numbers):
        raise ValueError(f"not a list of faults: {text!r}")
    return faults
