"""A few whole numbers that all ranks combine over the control group.

gloo's threads hold the tensors of a collective a little longer than the caller waits for it, and where a
tensor is known to Python, letting go of it takes the interpreter's lock. A thread that asks for the lock
of an interpreter that is being finalised is ended by it (Python < 3.14), in the middle of C++ code that
must not be unwound: a worker that has done all its work would die of SIGABRT, "terminate called without
an active exception". So the tensors of our own collectives never come to where a thread of gloo's gives
back the last reference but Python's.
"""

import ctypes

import torch
import torch.distributed as dist


class Vote:
    """``count`` whole numbers of each rank, combined by ``op``, again and again.

    All ranks of ``group`` call the same methods in the same order. Between ``start`` and ``settle`` the
    vote is under way in the background.
    """

    def __init__(self, group: dist.ProcessGroup, op: dist.ReduceOp.RedOpType, count: int = 1) -> None:
        self._group = group
        # By the group itself, and by NumPy's view of the tensor: that takes half as long as `dist.all_reduce` and the
        # tensor's own items, at every step.
        self._options = dist.AllreduceOptions()
        self._options.reduceOp = dist.ReduceOp(op)
        self._tensors = [_kept_tensor(count)]
        self._numbers = self._tensors[0].numpy()
        self._work: dist.Work | None = None

    def start(self, *numbers: int) -> None:
        """Give this rank's numbers. The vote before must be settled."""
        assert self._work is None
        self._numbers[:] = numbers
        self._work = self._group.allreduce(self._tensors, self._options)

    def settle(self) -> tuple[int, ...] | None:
        """Wait for the vote under way, and return its outcome; None where there is none."""
        if self._work is None:
            return None
        self._work.wait()
        self._work = None
        return tuple(self._numbers.tolist())

    def hold(self, *numbers: int) -> tuple[int, ...]:
        """Start a vote and settle it."""
        self.start(*numbers)
        outcome = self.settle()
        assert outcome is not None
        return outcome


def _kept_tensor(count: int) -> torch.Tensor:
    """Return a tensor that is never freed: a view of it, itself kept for good, holds it below Python."""
    with torch.inference_mode(mode=False):  # inside of it views do not hold what they show
        tensor = torch.zeros(count, dtype=torch.int64)
        view = tensor.view(count)
    assert view._base is tensor
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(view))
    return tensor
