"""Progress messages: what a worker tells the control plane while it trains.

One message is one JSON object on one line; ``type`` names the class in snake case. Times are
seconds since the Unix epoch (see ``AnchoredClock``). A reader skips types that it does not know,
so that a newer worker can talk to an older control plane.
"""

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, get_args, get_origin, get_type_hints


class Phase(StrEnum):
    """What a worker's time outside of steps went into."""

    START_UP = "start_up"
    """From the start of the process to the first step: imports, process group, model, data."""
    RESTORE = "restore"
    """Reading a checkpoint back."""
    DATA_WAIT = "data_wait"
    """Waiting for the next batch."""
    CHECKPOINT_STALL = "checkpoint_stall"
    """Training held up by a save."""
    EVALUATION = "evaluation"
    """Validation between steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted:
    """A worker's process runs: ``device`` is what it computes on, such as ``cpu`` or ``cuda:0``.

    ``dtype`` is what its matrix products are computed in, ``bf16`` or ``fp32``: the ceiling of MFU
    depends on it. None where the script does not tell. ``seeks_stragglers`` is whether the ranks look for those among
    them that are slower, ``checks_replicas`` whether they compare their parameters; None: an older worker, which did
    not say.
    """

    rank: int
    at_s: float
    world_size: int
    pid: int
    device: str
    dtype: str | None = None
    seeks_stragglers: bool | None = None
    checks_replicas: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEnded:
    """The worker spent ``start_s`` to ``end_s`` in ``phase``."""

    rank: int
    phase: Phase
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """State was restored; ``step`` is the last step that it contains."""

    rank: int
    at_s: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCommitted:
    """Step ``step`` (from 1) is applied to the model.

    ``loss`` is this rank's own, ``tokens`` the tokens that this rank trained on in the step, and
    ``model_flops`` their forward and backward FLOPs by the formula (causal attention counted half);
    ``None`` where the script does not tell.
    """

    rank: int
    step: int
    start_s: float
    end_s: float
    loss: float | None
    tokens: int | None
    model_flops: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCommitted:
    """The checkpoint of ``step`` is durable: from here on a restart loses nothing before it."""

    rank: int
    at_s: float
    step: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailed:
    """Said by the launch agent: this worker was the first of the gang to fail.

    Exactly one of ``exit_code`` and ``signal`` is set; ``is_oom_kill`` says that the kernel's
    out-of-memory killer ended it. Neither is, and ``rank`` is -1, where it was no worker's failure but a node's,
    which was lost. ``restarts`` is how often the agent had restarted the gang before, after failures.
    """

    rank: int
    at_s: float
    exit_code: int | None
    signal: int | None
    is_oom_kill: bool
    message: str
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StragglerFound:
    """Said by rank 0: ``rank`` has computed ``ratio`` times as long as the middle rank, ``steps`` steps long.

    So long the gang went at its pace. ``step`` is the last of them. Over the last ``window`` of them, of which no word
    was said before, it has computed ``excess_s`` seconds longer than the middle rank, which the others have waited;
    both are None from an older worker, which did not say.
    """

    rank: int
    at_s: float
    step: int
    ratio: float
    steps: int
    window: int | None = None
    excess_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicasDiverged:
    """Said by ``rank`` 0, once: after ``step`` the parameters of ``ranks`` were not those of the others.

    Where no majority says who is right, as of two ranks, ``ranks`` are all, and ``is_certain`` is False. It is said
    again when other ranks differ, or when they differ again after all were alike.
    """

    rank: int
    at_s: float
    step: int
    ranks: tuple[int, ...]
    is_certain: bool


class Layer(StrEnum):
    """By what a gang came back after a failure, the cheapest first. Each falls to the next."""

    IN_PROCESS = "in_process"
    """The survivors formed the gang again within their processes; only the failed worker is new."""
    FORK = "fork"
    """All workers were started anew on their nodes, forked from the warm template where there is one."""
    SPARE = "spare"
    """A spare node took the place of one that was lost."""
    SHRINK = "shrink"
    """The gang went on with fewer nodes."""
    GROW = "grow"
    """A node joined, and the gang was formed anew with it. No failure, but a restart all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Said by the launch agent: the gang has committed its first step after a failure.

    ``rank`` is the worker that failed, -1 where it was not one alone; ``restart`` counts the gang's
    restarts within the attempt, from 1. ``detect_s`` is the time from the last sign of life to the
    verdict (None for a death, which is seen at once), ``restart_s`` from the verdict to the first step that was
    committed, without ``load_s``, the reading of the state. ``recomputed_steps`` were committed before and trained
    again; from the first step that was committed to the first new one, as many, it took ``recompute_s``. None where it
    is not known, as for a script that does not use ``Run``, whose first step is taken for new; an older agent had
    ``recompute_s`` in ``restart_s``. ``exit_code``, ``signal`` and ``is_oom_kill`` are the failed worker's, as in
    ``WorkerFailed``; both numbers None where no worker had failed.
    ``is_straggler``: it had not failed, but was slower than the others, and was replaced. ``failures`` is how many of
    the restarts up to this one were for a failure, and so count as retries; None from an older agent, which counted all.
    """

    rank: int
    at_s: float
    restart: int
    cause: str
    layer: Layer
    detect_s: float | None
    restart_s: float
    load_s: float | None
    recomputed_steps: int | None
    exit_code: int | None = None
    signal: int | None = None
    is_oom_kill: bool = False
    recompute_s: float | None = None
    is_straggler: bool = False
    failures: int | None = None

    @property
    def verdict_s(self) -> float:
        """When the failure was seen, on the clock of ``at_s``."""
        return self.at_s - self.restart_s - (self.load_s or 0.0) - (self.recompute_s or 0.0)


Message = (
    WorkerStarted
    | PhaseEnded
    | Restored
    | StepCommitted
    | CheckpointCommitted
    | WorkerFailed
    | StragglerFound
    | ReplicasDiverged
    | Recovered
)


def _classes(cls: type[Any]) -> dict[str, frozenset[type]]:
    """Return which classes each field's value may have; a whole number is a float in JSON, too."""
    classes = {}
    for name, hint in get_type_hints(cls).items():
        own = frozenset({tuple} if get_origin(hint) is tuple else get_args(hint) or (hint,))
        classes[name] = own | {int} if float in own else own
    return classes


_TYPES: dict[str, type[Any]] = {
    "worker_started": WorkerStarted,
    "phase_ended": PhaseEnded,
    "restored": Restored,
    "step_committed": StepCommitted,
    "checkpoint_committed": CheckpointCommitted,
    "worker_failed": WorkerFailed,
    "straggler_found": StragglerFound,
    "replicas_diverged": ReplicasDiverged,
    "recovered": Recovered,
}
_NAMES = {cls: name for name, cls in _TYPES.items()}
_FIELDS = {name: _classes(cls) for name, cls in _TYPES.items()}
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def encode(message: Message) -> bytes:
    """Return ``message`` as one line of JSON, newline included.

    A loss that is NaN or infinite is kept, as a string: JSON has no number for it.
    """
    name = _NAMES[type(message)]
    body: dict[str, Any] = {"type": name}
    for field in _FIELDS[name]:  # `asdict` takes as long as all the rest: a worker encodes at every step
        body[field] = getattr(message, field)
    loss = body.get("loss")
    if loss is not None and not math.isfinite(loss):
        body["loss"] = str(loss)
    return _ENCODER.encode(body).encode() + b"\n"


def decode(line: bytes) -> Message | None:
    """Return the message in ``line``, or None for a type that this version does not know.

    Fields that this version does not know are ignored. Raises ValueError when the line is not a
    message at all.
    """
    try:
        body = json.loads(line)
        name = body.pop("type")
        cls = _TYPES.get(name)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"not a progress message: {line[:80]!r}") from error
    if cls is None:
        return None
    classes = _FIELDS[name]
    known = {key: value for key, value in body.items() if key in classes}
    try:
        if cls is PhaseEnded:
            known["phase"] = Phase(known["phase"])
        elif cls is Recovered:
            known["layer"] = Layer(known["layer"])
        elif cls is ReplicasDiverged:
            known["ranks"] = _whole_numbers(known["ranks"])
        if isinstance(known.get("loss"), str):
            known["loss"] = float(known["loss"])
        for key, value in known.items():
            is_finite = key == "loss" or type(value) is not float or math.isfinite(value)
            if type(value) not in classes[key] or not is_finite:
                raise TypeError(f"{key} is {value!r}")  # noqa: TRY301 - one place says what is wrong
        message: Message = cls(**known)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"a {name} message with the wrong fields: {line[:80]!r}") from error
    return message


def _whole_numbers(listed: Any) -> tuple[int, ...]:
    if type(listed) is not list or any(type(each) is not int for each in listed):
        raise TypeError(f"expected a list of whole numbers, got {listed!r}")
    return tuple(listed)
