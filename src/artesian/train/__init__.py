"""Training that survives: a stand-alone library for any loop in torch, with or without a server.

``launch``          the launch agent's command line; ``agent`` does the work, on what ``gang`` describes
``crew``            the workers of a node, each a ``worker_process``; ``starter`` starts them, ``standby`` and
                    ``template`` fork them with their imports done
``python_command``  which command lines can be forked, too
``council``         the agents of several nodes: ``terms``, ``peer`` connections, and a ``roster`` of who trains
``heartbeat``       signs of life, and ``watchdog`` that judges them; ``link`` is the worker's end
``recovery``        what is said about a recovery; ``resilient`` has a function survive one in its process
``membership``      who takes part: ``join`` meets the other workers
``run``             ``Run`` makes a loop restartable and measurable; ``from_env`` is what the environment says of it
``signals``         SIGTERM as a stop that all ranks agree on
``vote``            a few numbers that all ranks combine
``injection``       faults that a worker does to itself
``reporter``        what a worker says on the wire
``saver``           what a loop saves with: ``memory`` every step, storage when ``interval`` says so, a ``peer``
``memory``          a rank's state in shared memory: ``segment`` has its buffers, ``device_copy`` fills them from CUDA
``image``           the bytes of a state, the same everywhere; ``plain`` is the part that is no tensors
``persist``         brings snapshots to storage or a peer, through the helper ``persist_process``
``checkpoint``      atomic, verified checkpoints in a ``storage``: a ``directory`` or an ``object_store``
``fence``           keeps an earlier attempt of a job from saving where a later one does; in an object store with
                    the help of ``object_names``
``sharded``         the same for sharded state, in the format of ``torch.distributed.checkpoint``
``data``            text as bytes, in an order that the job owns
``loader``          global batches, dealt to the ranks: exactly once; from ``sources``, by a ``cursor``
``guards``          losses that leap or are no numbers; ``stragglers``, ``divergence`` watch the ranks
``preflight``       a check of every node before a job; ``faults`` is what a device says against itself
``integrations``    callbacks for the trainers of Hugging Face and Lightning
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
    from artesian.train.errors import CheckpointError, DataError, SupersededError, TrainError
    from artesian.train.interval import BestInterval, EverySteps
    from artesian.train.membership import Membership, alone, join
    from artesian.train.memory import Memory
    from artesian.train.peer import Holder, Peer
    from artesian.train.resilient import resilient
    from artesian.train.run import Run
    from artesian.train.saver import Saver
    from artesian.train.sharded import ShardedCheckpointer
    from artesian.train.signals import Preempted

__all__ = [
    "BestInterval",
    "ByteText",
    "CheckpointError",
    "Checkpointer",
    "DataError",
    "EverySteps",
    "Holder",
    "Membership",
    "Memory",
    "Peer",
    "Preempted",
    "Run",
    "SampleOrder",
    "Saver",
    "ShardedCheckpointer",
    "SupersededError",
    "TrainError",
    "alone",
    "join",
    "resilient",
]

_HOME = {
    "BestInterval": "interval",
    "ByteText": "data",
    "CheckpointError": "errors",
    "Checkpointer": "checkpoint",
    "DataError": "errors",
    "EverySteps": "interval",
    "Holder": "peer",
    "Membership": "membership",
    "Memory": "memory",
    "Peer": "peer",
    "Preempted": "signals",
    "Run": "run",
    "SampleOrder": "data",
    "Saver": "saver",
    "ShardedCheckpointer": "sharded",
    "SupersededError": "errors",
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
