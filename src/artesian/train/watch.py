"""The agent's watch over its workers: who hangs, and how long that takes to be sure.

Four silences. A worker that has made steps is judged by ``watchdog``, from its heartbeat. One that is stopped is
found whatever it was doing, when its thread that says "alive" is silent. And a gang that is formed anew has to come to
its first step: the first time that may take as long as it takes, and after that not many times longer. And a worker that
has failed, and says so, has to end: it, and not those who hang because they wait for it, is the cause then.
"""

import signal
from collections.abc import Sequence
from dataclasses import replace

from artesian.train.crew import Crew
from artesian.train.heartbeat import Activity, Beat
from artesian.train.recovery import Failure
from artesian.train.watchdog import Hang, verdict
from artesian.train.worker_process import WorkerProcess

_MOST_PATIENCE = 16.0
_LEAVE_S = 600.0
"""How long a worker may take to end that has failed by its own word: what it writes and sends at its end is its affair."""
_START_FLOOR_S = 30.0
_START_TIMES = 5.0


class Watch:
    """Finds hangs. ``patience`` is what limits are multiplied with: it grows with verdicts that may be wrong.

    ``start_limit_s`` is how long a worker may take to its first step at most, None: what it says itself.
    """

    def __init__(self, crew: Crew, *, start_limit_s: float | None = None) -> None:
        self._crew = crew
        self._most_s = start_limit_s
        self.patience = 1.0
        self._formed_s = 0.0
        self._is_starting = True
        self._longest_start_s: float | None = None
        """From a forming to the first steps of all; None before there was one."""

    def formed(self, now_s: float) -> None:
        """Note that the gang is being formed."""
        self._formed_s, self._is_starting = now_s, True

    def look(self, now_s: float) -> list[Failure]:
        """Return the workers that hang, as failures; they are asked for their stacks, which takes a moment."""
        workers = list(self._crew.running.values())
        self._note_start([worker.line.beat() for worker in workers], now_s)
        if not self._crew.is_whole:
            is_too_late = self._most_s is not None and now_s - self._formed_s > self._most_s
            if (is_too_late or self._is_late(now_s)) and self._crew.starter.owed:
                self._crew.starter.give_up_template()  # that may hang in an import
            return []
        hangs = [(worker, hang) for worker in workers if (hang := self._hang(worker, now_s)) is not None]
        told = [worker.told for worker in workers if worker.told is not None]
        if told and (hangs or any(now_s - since_s > _LEAVE_S for _, since_s in told)):
            # They cannot end, for a thread that does not, and the others wait for them.
            self._crew.show_stacks()
            return [
                replace(failure, text=f"{failure.text} (and has not ended since)", detect_s=now_s - since_s)
                for failure, since_s in told
            ]
        if not hangs:
            return []
        hangs = [(worker, hang) for worker, hang in hangs if hang.is_frozen] or hangs
        if not all(hang.is_frozen and worker.is_still for worker, hang in hangs):
            # It may have been slow, and is not to die of that twice.
            self.patience = min(_MOST_PATIENCE, self.patience * 2)
        self._crew.show_stacks()
        return [
            Failure(
                rank=worker.rank,
                text=f"{worker} {hang.what}",
                is_suspect=False,
                signal=signal.SIGKILL,
                detect_s=now_s - hang.since_s,
            )
            for worker, hang in hangs
        ]

    def _hang(self, worker: WorkerProcess, now_s: float) -> Hang | None:
        beat = worker.line.beat()
        if (found := verdict(beat, now_s, self.patience, self._most_s)) is not None:
            return found
        if (found := self._stopped(worker, beat, now_s)) is not None:
            return found
        if self._is_late(now_s) and not _has_begun(beat):
            what = f"did not come to its first step for {self._start_limit_s():.0f} s"
            return Hang(since_s=self._formed_s, what=what, is_frozen=False)
        return None

    def _stopped(self, worker: WorkerProcess, beat: Beat, now_s: float) -> Hang | None:
        """Say whether the worker is stopped in what may take any time, and may keep the interpreter's lock."""
        if beat.activity is Activity.STEPPING or beat.alive_s is None:
            return None
        as_if = replace(beat, activity=Activity.STEPPING, pace_s=beat.pace_s or 0.0, beat_s=now_s)
        found = verdict(as_if, now_s, self.patience)
        return found if found is not None and worker.is_stopped else None

    def _note_start(self, beats: Sequence[Beat], now_s: float) -> None:
        if self._is_starting and self._crew.is_whole and beats and all(map(_has_begun, beats)):
            self._is_starting = False
            self._longest_start_s = max(self._longest_start_s or 0.0, now_s - self._formed_s)

    def _start_limit_s(self) -> float | None:
        if self._longest_start_s is None:
            return None
        return (_START_FLOOR_S + _START_TIMES * self._longest_start_s) * self.patience

    def _is_late(self, now_s: float) -> bool:
        limit_s = self._start_limit_s()
        return self._is_starting and limit_s is not None and now_s - self._formed_s > limit_s


def _has_begun(beat: Beat) -> bool:
    """Say whether the worker has come to its steps, or past them. Who is called back starts again."""
    return beat.activity is not Activity.STARTING
