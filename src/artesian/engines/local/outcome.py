"""Exit codes and signals as causes."""

import signal
from collections.abc import Iterator
from pathlib import Path

from artesian.engines.local.records import Ended, read_regular
from artesian.model.job import Cause, Outcome
from artesian.wire import Message, Recovered, WorkerFailed, decode

_SHELL_SIGNAL_BASE = 128


def first_failure(progress: Path) -> WorkerFailed | None:
    """Return which worker failed first, where the launch agents, one on each node, said it."""
    failures = [
        message
        for path in sorted(progress.glob("agent*.jsonl"))
        for message in _messages(path)
        if isinstance(message, WorkerFailed)
    ]
    return min(failures, key=lambda failure: failure.at_s, default=None)


def restarts(progress: Path) -> int:
    """Return how often the launch agents have restarted the gang after a failure, as far as they said it."""
    said = [message for path in sorted(progress.glob("agent*.jsonl")) for message in _messages(path)]
    counts = [message.restarts for message in said if isinstance(message, WorkerFailed)]
    counts += [
        message.restart if message.failures is None else message.failures
        for message in said
        if isinstance(message, Recovered)
    ]
    return max(counts, default=0)


def _messages(path: Path) -> Iterator[Message | None]:
    try:
        lines = read_regular(path).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield decode(line)
        except ValueError:
            continue  # torn: the agent was killed while it wrote


def outcome_of(ended: Ended, failure: WorkerFailed | None) -> Outcome:
    """Return why the attempt ended.

    The launch agent knows which worker failed and how, so its word goes before the agent's own exit.
    """
    if ended.start_error is not None:
        return Outcome(cause=Cause.START_FAILED, message=ended.start_error)
    if failure is not None and ended.exit_code != 0:
        if failure.rank < 0 and failure.exit_code is None and failure.signal is None:
            # No worker's failure, and no program's.
            return Outcome(cause=Cause.NODE_LOST, message=failure.message)
        return _of(failure.exit_code, failure.signal, failure.is_oom_kill, failure.rank, failure.message)
    if ended.was_stopped and ended.exit_code == 0:
        # Told to stop, it saved its state and left: that is not the end of its work.
        return Outcome(
            cause=Cause.SIGNAL, exit_code=0, signal=signal.SIGTERM, message="it was told to stop, and did"
        )
    return _of(ended.exit_code, ended.signal, ended.is_oom_kill, None, "")


def _of(code: int | None, number: int | None, is_oom: bool, worker: int | None, message: str) -> Outcome:
    if (
        number is None
        and code is not None
        and code > _SHELL_SIGNAL_BASE
        and _signal_name(code - _SHELL_SIGNAL_BASE)
    ):
        number = code - _SHELL_SIGNAL_BASE  # a shell's way to pass on that its command was killed
    worker = None if worker is not None and worker < 0 else worker
    who = "the command" if worker is None else f"worker {worker}"
    if is_oom:
        return Outcome(
            cause=Cause.OOM_KILL,
            exit_code=code,
            signal=number,
            worker=worker,
            message=f"{who} was ended by the out-of-memory killer",
        )
    if number is not None:
        return Outcome(
            cause=Cause.SIGNAL,
            exit_code=code,
            signal=number,
            worker=worker,
            message=message or f"{who} was ended by {_signal_name(number) or f'signal {number}'}",
        )
    if code == 0:
        return Outcome(cause=Cause.COMPLETED, exit_code=0)
    return Outcome(
        cause=Cause.USER_ERROR,
        exit_code=code,
        worker=worker,
        message=message or f"{who} ended with exit code {code}",
    )


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
