"""Slurm's states as causes, one by one.

The supervisor's own record says how the command ended; Slurm says why it had to. Where Slurm ended the
job its word goes first, otherwise the record's.
"""

from signal import SIGKILL, SIGTERM

from artesian.engines.local.outcome import outcome_of
from artesian.engines.local.records import Ended
from artesian.engines.slurm.parse import SlurmJob
from artesian.model.job import Cause, Outcome
from artesian.wire import WorkerFailed

BY_SLURM: dict[str, tuple[Cause, str]] = {
    "BOOT_FAIL": (Cause.NODE_LOST, "a node did not boot"),
    "NODE_FAIL": (Cause.NODE_LOST, "a node failed"),
    "LAUNCH_FAILED": (Cause.NODE_LOST, "a node could not launch the job"),
    "RECONFIG_FAIL": (Cause.NODE_LOST, "a node could not be configured for the job"),
    "PREEMPTED": (Cause.PREEMPTED, "Slurm preempted it for a job of higher priority"),
    "REVOKED": (Cause.PREEMPTED, "another cluster of the federation took the job"),
    # With requeueing off an administrator asked for it. The queued job is cancelled: artesian starts the next attempt.
    "REQUEUED": (Cause.PREEMPTED, "somebody requeued it in Slurm"),
    "OUT_OF_MEMORY": (Cause.OOM_KILL, "it used more memory than Slurm had granted"),
    # A signal that artesian did not send; it counts against the retries, for the next attempt meets the same limit.
    "TIMEOUT": (Cause.SIGNAL, "it reached the time limit of its partition or of its sbatch arguments"),
    "DEADLINE": (Cause.SIGNAL, "it reached the deadline of its sbatch arguments"),
    "CANCELLED": (Cause.CANCELLED, "somebody cancelled it in Slurm"),
}
"""States whose cause is Slurm's doing. COMPLETED and FAILED are the command's own: see the record."""

NODE_STATES = frozenset(state for state, (cause, _) in BY_SLURM.items() if cause is Cause.NODE_LOST)
"""States of jobs whose nodes are to blame."""

_SENT_BY_SLURM = (SIGTERM, SIGKILL)
"""What a job gets whose end Slurm wants: the second one after KillWait."""
_SHELL_CODES = tuple(128 + signal for signal in _SENT_BY_SLURM)
"""What a shell ends with whose command such a signal has ended."""


def outcome_of_job(
    state: str,
    job: SlurmJob | None,
    ended: Ended | None,
    failure: WorkerFailed | None,
    *,
    is_claimed: bool,
    log: str,
) -> Outcome:
    """Return why an attempt ended.

    ``state`` is how Slurm ended it, ``ended`` what the supervisor wrote down, ``is_claimed`` whether a
    supervisor ever ran, and ``log`` the last line that the batch script printed.
    """
    code = None if job is None else job.exit_code
    signal = None if job is None else job.signal
    if state in BY_SLURM and not _is_own_end(state, ended):
        cause, text = BY_SLURM[state]
        reason = f" ({job.reason})" if job is not None and job.reason not in ("", "None") else ""
        if state in NODE_STATES:
            return Outcome(cause=cause, message=f"Slurm: {text}{reason}")  # what it exited with, nobody knows
        told = outcome_of(ended, failure) if ended is not None and ended.start_error is None else None
        return Outcome(
            cause=cause,
            exit_code=code if told is None else told.exit_code,
            signal=signal if told is None else told.signal,
            worker=None if told is None else told.worker,
            message=f"Slurm: {text}{reason}",
        )
    if ended is not None:
        return outcome_of(ended, failure)
    if not is_claimed and state in ("FAILED", "COMPLETED"):
        message = log or f"the batch script ended with code {code} before the attempt began"
        return Outcome(cause=Cause.START_FAILED, exit_code=code, signal=signal, message=message)
    if state in ("FAILED", "COMPLETED") and signal is None and code is not None:
        # The batch script ends with the command's own code; its record has not come through the shared folder.
        return outcome_of(Ended(at_s=0.0, exit_code=code), failure)
    message = (
        f"Slurm says {state}, and the process that looked after the attempt left no word of how it ended"
    )
    return Outcome(cause=Cause.NODE_LOST, exit_code=code, signal=signal, message=message)


def _is_own_end(state: str, ended: Ended | None) -> bool:
    """Whether the command had ended by itself before Slurm's own act: a cancel that came too late.

    Slurm signals each process of the job by itself, so a command may be dead before its supervisor is told to stop
    it; a command that those signals ended did not end by itself.
    """
    return state == "CANCELLED" and ended is not None and not (ended.was_stopped or _is_killed(ended))


def _is_killed(ended: Ended) -> bool:
    was_signalled = ended.signal in _SENT_BY_SLURM or ended.exit_code in _SHELL_CODES
    return was_signalled and not ended.is_oom_kill
