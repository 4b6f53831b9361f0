"""What the launch agent tells: people, on stderr, and the control plane, in its progress file."""

import time

from artesian.train.crew import Crew
from artesian.train.gang import Gang
from artesian.train.recovery import Failure, Recovery, describe, report
from artesian.train.saying import say
from artesian.wire.clock import AnchoredClock
from artesian.wire.messages import Layer, Message, WorkerFailed


class Reports:
    """Tells of every failure that ends the gang, and of every recovery when it is over: one record each."""

    def __init__(self, gang: Gang, crew: Crew) -> None:
        self._gang = gang
        self._crew = crew
        self._clock = AnchoredClock()
        self._recovery: Recovery | None = None
        self._is_first_node = False
        self.last_step: int | None = None
        """What the last worker to end had committed."""

    @property
    def is_recovering(self) -> bool:
        """Whether the gang was formed after a failure, and has not come to a new step since."""
        return self._recovery is not None

    def newest_step(self) -> int | None:
        """Return the newest step that any worker of this node is known to have committed."""
        steps = [self.last_step, *(beat.step for beat in self._crew.beats())]
        if self._recovery is not None:
            steps.append(self._recovery.step_before)  # the one before failed on the way
        return max((step for step in steps if step is not None), default=None)

    def recovering(
        self,
        number: int,
        cause: Failure,
        layer: Layer,
        step_before: int | None,
        *,
        failures: int,
        is_first_node: bool,
    ) -> None:
        """Note that formation ``number`` is a recovery from ``cause``; the first node is the one to tell of it.

        ``failures`` counts the restarts up to it that were for one.
        """
        self._is_first_node = is_first_node
        self._recovery = Recovery(
            restart=number,
            failures=failures,
            cause=cause,
            layer=layer,
            detected_s=time.monotonic(),
            step_before=step_before,
        )

    def forget(self) -> None:
        """Note that a recovery under way, if there was one, has failed."""
        self._recovery = None

    def fall_to_fork(self) -> None:
        """Note that survivors did not come back in their process."""
        if self._recovery is not None and self._recovery.layer is Layer.IN_PROCESS:
            self._recovery.layer = Layer.FORK

    def look(self, now_s: float) -> None:
        """Tell of a recovery that is over."""
        if self._recovery is None or not self._crew.is_whole:
            return
        record = self._recovery.record(self._crew.beats(), now_s, self._clock.now_s())
        if record is not None:
            self._recovery = None
            if self._is_first_node:
                say(describe(record))
                self._send(record)

    def failed(self, failure: Failure, *, others: int, restarts: int) -> None:
        """Tell of the failure that ends the gang after so many restarts, and with it so many ``others``."""
        at_s = self._clock.now_s()
        text = failure.text
        if failure.is_final:
            text += "; a restart would come to the same"
        say(text + (f"; ending the other {others}" if others else ""))
        self._send(
            WorkerFailed(
                rank=failure.rank,
                at_s=at_s,
                exit_code=failure.exit_code,
                signal=failure.signal,
                is_oom_kill=failure.is_oom_kill,
                message=failure.text,
                restarts=restarts,
            )
        )

    def _send(self, message: Message) -> None:
        folder = self._gang.progress_dir
        if folder is not None and (problem := report(folder, self._gang.node_rank, message)):
            say(problem)
