"""Training that survives: a stand-alone library for any loop in torch, with or without a server.

``launch``          the launch agent's command line; ``agent`` does the work, on what ``gang`` describes
``crew``            the workers of a node, each a ``worker_process``; ``starter`` starts them, ``standby`` and
                    ``template`` fork them with their imports done
``council``         the agents of several nodes: ``terms``, ``peer`` connections, and a ``roster`` of who trains
``heartbeat``       signs of life, and ``watchdog`` that judges them; ``link`` is the worker's end
``recovery``        what is said about a recovery; ``resilient`` has a function survive one in its process
``membership``      who takes part: ``join`` meets the other workers
``run``             ``Run`` makes a loop restartable and measurable
``signals``         SIGTERM as a stop that all ranks agree on
``vote``            a few numbers that all ranks combine
``injection``       faults that a worker does to itself
``reporter``        what a worker says on the wire
``checkpoint``      atomic, verified checkpoints in a folder
``data``            text as bytes, in an order that the job owns
``models``          a small decoder with DeepSeek's mixture of experts
``errors``          the tree of errors

Names are imported when they are first used: the launch agent lives in this package, and must not wait
for torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from artesian.train.checkpoint import Checkpointer
    from artesian.train.data import ByteText, SampleOrder
    from artesian.train.errors import CheckpointError, DataError, TrainError
    from artesian.train.membership import Membership, alone, join
    from artesian.train.resilient import resilient
    from artesian.train.run import Preempted, Run

__all__ = [
    "ByteText",
    "CheckpointError",
    "Checkpointer",
    "DataError",
    "Membership",
    "Preempted",
    "Run",
    "SampleOrder",
    "TrainError",
    "alone",
    "join",
    "resilient",
]

_HOME = {
    "ByteText": "data",
    "CheckpointError": "errors",
    "Checkpointer": "checkpoint",
    "DataError": "errors",
    "Membership": "membership",
    "Preempted": "run",
    "Run": "run",
    "SampleOrder": "data",
    "TrainError": "errors",
    "alone": "membership",
    "join": "membership",
    "resilient": "resilient",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
