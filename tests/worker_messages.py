"""What workers say, and the waterfall of it, in few words: ``step(rank, number, start_s, end_s)``."""

from collections.abc import Mapping, Sequence
from typing import Any

from artesian.kernel.accounting import waterfall
from artesian.kernel.state import State
from artesian.model.job import Job, JobKind
from artesian.model.ledger import US, Ceiling, Stage, Waterfall
from artesian.wire import (
    CheckpointCommitted,
    Layer,
    Message,
    Phase,
    PhaseEnded,
    Recovered,
    ReplicasDiverged,
    Restored,
    StepCommitted,
    StragglerFound,
    WorkerFailed,
    WorkerStarted,
)
from builders import a_job

FP32 = Ceiling(flops=1e9, basis="measured fp32")
CEILINGS = {("n1", "fp32"): FP32, ("n2", "fp32"): FP32}


def began(rank: int, at_s: float, world: int = 2, dtype: str | None = "fp32") -> WorkerStarted:
    """A worker's process runs."""
    return WorkerStarted(rank=rank, at_s=at_s, world_size=world, pid=1, device="cpu", dtype=dtype)


def step(
    rank: int, number: int, start_s: float, end_s: float, flops: float | None = 2e9, loss: float | None = 1.0
) -> StepCommitted:
    """A worker has committed a step."""
    return StepCommitted(
        rank=rank, step=number, start_s=start_s, end_s=end_s, loss=loss, tokens=8, model_flops=flops
    )


def phase(rank: int, kind: Phase, start_s: float, end_s: float) -> PhaseEnded:
    """A worker has spent time in a phase."""
    return PhaseEnded(rank=rank, phase=kind, start_s=start_s, end_s=end_s)


def saved(number: int, at_s: float) -> CheckpointCommitted:
    """Rank 0 has committed a checkpoint."""
    return CheckpointCommitted(rank=0, at_s=at_s, step=number, size_bytes=1)


def killed(rank: int, at_s: float) -> WorkerFailed:
    """The agent saw a worker killed."""
    return WorkerFailed(rank=rank, at_s=at_s, exit_code=None, signal=9, is_oom_kill=False, message="")


def recovered(
    at_s: float,
    restart_s: float,
    *,
    detect_s: float | None = None,
    load_s: float | None = None,
    recompute_s: float | None = None,
    rank: int = -1,
) -> Recovered:
    """The agent has restarted the gang within the attempt."""
    return Recovered(
        rank=rank,
        at_s=at_s,
        restart=1,
        cause="",
        layer=Layer.FORK,
        detect_s=detect_s,
        restart_s=restart_s,
        load_s=load_s,
        recomputed_steps=None,
        recompute_s=recompute_s,
    )


def slow(
    rank: int,
    number: int,
    at_s: float,
    *,
    window: int | None = 1,
    excess_s: float | None = 1.0,
    ratio: float = 2.0,
) -> StragglerFound:
    """Rank 0 has found that a worker has computed longer than the middle one, up to step ``number``."""
    return StragglerFound(
        rank=rank,
        at_s=at_s,
        step=number,
        ratio=ratio,
        steps=window or 1,
        window=window,
        excess_s=excess_s,
    )


def restored(rank: int, number: int, at_s: float) -> Restored:
    """A worker has restored a step."""
    return Restored(rank=rank, at_s=at_s, step=number)


def a_training(devices: str | float = "cpu:2", **more: Any) -> Job:
    """A training job ``j1``: one worker per device."""
    return a_job(devices=devices, kind=JobKind.TRAIN, **more)


def account(
    state: State,
    progress: Mapping[int, Sequence[Message]] | None = None,
    *,
    until: float,
    since: float = 0.0,
    ceilings: Mapping[tuple[str, str], Ceiling] = CEILINGS,
) -> Waterfall:
    """The waterfall, with the messages of job ``j1`` by epoch."""
    messages = {("j1", epoch): said for epoch, said in (progress or {}).items()}
    return waterfall(state, messages, start_s=since, end_s=until, ceilings=ceilings, is_simulated=False)


def losses(result: Waterfall, stage: Stage) -> dict[str, float]:
    """Losses in device-seconds by cause."""
    found = next(entry for entry in result.stages if entry.stage is stage)
    return {str(cause): amount / US for cause, amount in found.lost_us.items()}


def left(result: Waterfall, stage: Stage) -> float | None:
    """What is left after a stage, in device-seconds."""
    amount = result.left_us(stage)
    return None if amount is None else amount / US


def apart(ranks: tuple[int, ...], number: int, at_s: float, *, is_certain: bool = True) -> ReplicasDiverged:
    """Rank 0 has found that workers had other parameters than the others, after step ``number``."""
    return ReplicasDiverged(rank=0, at_s=at_s, step=number, ranks=ranks, is_certain=is_certain)
