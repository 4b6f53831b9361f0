"""The local engine: commands in, processes started and watched, events out.

The state of an attempt is in its folder, not here: a new engine on the same folder, told the same
commands, goes on where the last one was killed. Deaths are heard through pidfds, so nothing is polled
while attempts run.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from artesian.engines.base import Clock, HostNode, Report
from artesian.engines.ended import Ended
from artesian.engines.local import supervisor
from artesian.engines.local.environment import command_line, environment_of
from artesian.engines.local.outcome import first_failure, outcome_of, restarts
from artesian.engines.local.records import AttemptFolder, Claim
from artesian.model.events import AttemptEnded, AttemptStarted
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.placement import NodeShare
from artesian.model.plan import Start, Stop

_LOOK_S = 0.02
"""How often to look for the claim and the start of an attempt that is about to start."""

_Key = tuple[str, int]


@dataclass(slots=True, kw_only=True)
class _Watch:
    """An attempt under way. ``child_pid`` is a supervisor that is this process's own child, to be reaped."""

    job_id: str
    epoch: int
    folder: AttemptFolder
    child_pid: int | None = None
    pidfd: int | None = None
    claim: Claim | None = None
    is_started: bool = False
    stop_grace_s: float | None = None
    is_stop_sent: bool = False
    timer: asyncio.TimerHandle | None = None

    @property
    def key(self) -> _Key:
        return (self.job_id, self.epoch)


class LocalEngine:
    """Runs attempts on this machine, below ``root``: ``root/JOB/attempt-N``."""

    name = "local"

    def __init__(self, root: Path, nodes: Sequence[HostNode], clock: Clock) -> None:
        self._root = root
        self._nodes = {entry.node.id: entry for entry in nodes}
        self._now_s = clock
        self._watched: dict[_Key, _Watch] = {}
        self._ended = Ended()
        self._report: Report | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, report: Report) -> Sequence[Node]:
        """Begin, on this event loop."""
        self._report = report
        self._loop = asyncio.get_running_loop()
        return [entry.node for entry in self._nodes.values()]

    async def close(self) -> None:
        """Stop watching; attempts run on under their supervisors."""
        for watch in self._watched.values():
            self._unwatch(watch)
        self._watched.clear()

    def folder(self, job_id: str, epoch: int) -> AttemptFolder:
        """Return the folder of an attempt."""
        return attempt_folder(self._root, job_id, epoch)

    # -- commands -----------------------------------------------------------------------------------

    def start(self, command: Start, job: Job) -> None:
        """Start the attempt, or find out what became of it."""
        key = (command.job_id, command.epoch)
        if key in self._watched or key in self._ended:
            return
        watch = _Watch(job_id=command.job_id, epoch=command.epoch, folder=self.folder(*key))
        self._watched[key] = watch
        share, *others = command.placement.shares
        if others or share.node_id not in self._nodes:
            message = f"{command.placement} is not this machine"
            self._end(watch, Outcome(cause=Cause.NODE_LOST, message=message))
            return
        try:
            watch.folder.create()
            if watch.folder.claim() is None:
                self._spawn(watch, share, job)
        except OSError as error:
            if watch.child_pid is not None:  # it runs, but there is no descriptor left to hear it die
                self._kill([watch.child_pid, *watch.folder.survivors()])
            self._end(watch, Outcome(cause=Cause.START_FAILED, message=str(error)))
            return
        self._look(watch)

    def stop(self, command: Stop) -> None:
        """Stop the attempt; one that no supervisor has claimed yet will never start."""
        watch = self._watched.get((command.job_id, command.epoch))
        if watch is None:
            return  # its end is reported already
        watch.stop_grace_s = command.grace_s
        if watch.claim is None and watch.folder.claim() is None and self._fence(watch):
            self._end(watch, Outcome(cause=command.cause, message="stopped before it started"))
            return
        self._send_stop(watch)

    # -- from the spawn to the start ----------------------------------------------------------------

    def _spawn(self, watch: _Watch, share: NodeShare, job: Job) -> None:
        checkpoints = self._root / job.id / "checkpoints"
        checkpoints.mkdir(exist_ok=True, mode=0o700)
        words = [
            sys.executable,
            *("-I", "-S", supervisor.__file__, str(watch.folder.path), job.workdir, str(job.grace_s)),
            *command_line(job, len(share.devices)),
        ]
        watch.child_pid = os.posix_spawn(
            sys.executable,
            words,
            environment_of(job, watch.epoch, share, self._nodes[share.node_id], watch.folder, checkpoints),
            file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)],
            setsid=True,  # neither Ctrl-C nor a closed terminal reaches it
        )
        self._watch_pid(watch, watch.child_pid)

    def _look(self, watch: _Watch) -> None:
        """See how far the attempt has come; look again soon while it has not started."""
        watch.timer = None
        if self._watched.get(watch.key) is not watch:
            return
        if watch.claim is None and not self._adopt(watch):
            return
        if not watch.is_started and (started_s := watch.folder.started_s()) is not None:
            watch.is_started = True
            self._say(AttemptStarted(at_s=started_s, job_id=watch.job_id, epoch=watch.epoch))
        if watch.claim is not None and watch.stop_grace_s is not None:
            self._send_stop(watch)
        if watch.claim is None or not watch.is_started:
            assert self._loop is not None
            watch.timer = self._loop.call_later(_LOOK_S, self._look, watch)

    def _adopt(self, watch: _Watch) -> bool:
        """Find the attempt's supervisor once it has claimed; False where the attempt is over."""
        claim = watch.folder.claim()
        if claim is None:
            return True
        watch.claim = claim
        if watch.child_pid == claim.pid:
            return True
        self._unwatch(watch)  # another supervisor, of a driver that was killed, was first
        _reap(watch)
        if not claim.is_alive or not self._watch_pid(watch, claim.pid) or not claim.is_alive:
            self._conclude(watch)
            return False
        return True

    def _watch_pid(self, watch: _Watch, pid: int) -> bool:
        try:
            watch.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        assert self._loop is not None
        self._loop.add_reader(watch.pidfd, self._died, watch)
        return True

    # -- the end ------------------------------------------------------------------------------------

    def _died(self, watch: _Watch) -> None:
        """The watched process is gone: the supervisor, or one that another was quicker than."""
        child_pid = watch.child_pid
        _reap(watch)
        claim = watch.folder.claim()
        if child_pid is not None and claim is not None and claim.pid not in (0, child_pid):
            self._unwatch(watch)
            self._look(watch)
        else:
            self._conclude(watch)

    def _conclude(self, watch: _Watch) -> None:
        """Nobody looks after the attempt any more: report its end, with the start if that is still untold."""
        ended = watch.folder.ended()
        if ended is None:
            self._fence(watch)
            survivors = watch.folder.survivors()
            if survivors:
                self._kill(survivors)
                assert self._loop is not None
                self._unwatch(watch)
                watch.timer = self._loop.call_later(_LOOK_S, self._conclude, watch)
                return
            message = "the process that looked after the attempt is gone, and left no word of how it ended"
            outcome = Outcome(cause=Cause.NODE_LOST, message=message)
        else:
            if not watch.is_started and (started_s := watch.folder.started_s()) is not None:
                self._say(AttemptStarted(at_s=started_s, job_id=watch.job_id, epoch=watch.epoch))
            progress = watch.folder.progress
            outcome = replace(outcome_of(ended, first_failure(progress)), restarts=restarts(progress))
        self._end(watch, outcome, None if ended is None else ended.at_s)

    def _end(self, watch: _Watch, outcome: Outcome, at_s: float | None = None) -> None:
        self._unwatch(watch)
        _reap(watch)
        del self._watched[watch.key]
        self._ended.add(watch.key)
        self._say(
            AttemptEnded(
                at_s=self._now_s() if at_s is None else at_s,
                job_id=watch.job_id,
                epoch=watch.epoch,
                outcome=outcome,
            )
        )

    def _unwatch(self, watch: _Watch) -> None:
        assert self._loop is not None
        if watch.timer is not None:
            watch.timer.cancel()
            watch.timer = None
        if watch.pidfd is not None:
            self._loop.remove_reader(watch.pidfd)
            os.close(watch.pidfd)
            watch.pidfd = None

    # -- signals ------------------------------------------------------------------------------------

    def _fence(self, watch: _Watch) -> bool:
        try:
            return watch.folder.fence()
        except OSError:
            return False  # a full disk: the supervisor's own claim decides

    def _send_stop(self, watch: _Watch) -> None:
        if watch.is_stop_sent or watch.pidfd is None or watch.claim is None:
            return  # ``_look`` sends it as soon as there is somebody to send it to
        watch.is_stop_sent = True
        assert watch.stop_grace_s is not None
        with suppress(OSError):  # without the file, the supervisor takes the job's own grace
            watch.folder.request_stop(watch.stop_grace_s)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(watch.pidfd, signal.SIGTERM)

    @staticmethod
    def _kill(pids: Sequence[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _say(self, event: AttemptStarted | AttemptEnded) -> None:
        assert self._report is not None
        self._report(event)


def _reap(watch: _Watch) -> None:
    """Wait for a supervisor of ours that has lost the claim, or has ended: a matter of milliseconds."""
    if watch.child_pid is not None:
        os.waitpid(watch.child_pid, 0)
        watch.child_pid = None


def attempt_folder(root: Path, job_id: str, epoch: int) -> AttemptFolder:
    """Return the folder of an attempt below an engine's ``root``."""
    return AttemptFolder(root / job_id / f"attempt-{epoch}")
