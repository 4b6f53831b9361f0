"""SIGTERM and SIGUSR1, the notices of a preemption, as a request that all ranks grant at the same step."""

import signal
import threading
from types import FrameType

import torch.distributed as dist

from artesian.train.vote import Vote

_NOTICES = (signal.SIGTERM, signal.SIGUSR1)


PREEMPTED = 128 + signal.SIGTERM
"""Exit code of a worker that was asked to stop, and has saved its state: 143."""


class Preempted(SystemExit):
    """The job was asked to stop; ``step`` is saved. Leaves the process with code 143 unless caught."""

    def __init__(self, step: int) -> None:
        super().__init__(PREEMPTED)
        self.step = step


class StopRequest:
    """Remembers the signal, and lets the gang agree on the step to stop after.

    The signal reaches the ranks at different moments, some of them a step apart; a rank that left alone
    would leave the others waiting in a collective. So each step's requests are summed over the ranks, in
    the background, and acted on one step later, when the sum has long been there.
    """

    def __init__(self, control: dist.ProcessGroup | None) -> None:
        """``control`` is the group of CPUs that agrees; None for a worker that is alone."""
        self._vote = None if control is None else Vote(control, dist.ReduceOp.SUM)
        self._is_requested = False
        self._old_handlers: dict[signal.Signals, signal._HANDLER] = {}

    def install(self) -> None:
        """Take the signals over. Outside of the main thread Python cannot: there, they stay as they are."""
        if threading.current_thread() is threading.main_thread():
            self._old_handlers = {number: signal.signal(number, self._note) for number in _NOTICES}

    def remove(self) -> None:
        """Give the signals back to who had them before. Calling it again does nothing."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._old_handlers.clear()

    def is_granted(self) -> bool:
        """Return whether to stop after this step, the same on all ranks. Each calls it once a step."""
        if self._vote is None:
            return self._is_requested
        is_granted = self.settle()
        self._vote.start(int(self._is_requested))
        return is_granted

    def settle(self) -> bool:
        """Wait for the last step's sum, if it is still under way, and return whether any rank asked."""
        requests = None if self._vote is None else self._vote.settle()
        return requests is not None and requests[0] > 0

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._is_requested = True
