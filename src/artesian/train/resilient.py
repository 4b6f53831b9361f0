"""``resilient``: a training function that outlives the loss of a peer, in the same process.

::

    @resilient
    def main() -> None:
        member = join()
        model = DistributedDataParallel(...)
        with Run.from_env(model=model, optimizer=optimizer, member=member) as run:
            ...

When another worker is lost the function is left by an exception, the process groups are dropped, and it is
called again as part of the next formation; imports, the device's context and compiled kernels stay. It must
make everything that it changes, as it does when its process starts.
"""

import contextlib
import functools
import gc
import os
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch.distributed as dist

from artesian.train import reporter
from artesian.train.finality import is_final
from artesian.train.heartbeat import Activity
from artesian.train.link import PeerLost, Round, link

P = ParamSpec("P")
T = TypeVar("T")


def resilient(main: Callable[P, T]) -> Callable[P, T]:
    """Return ``main`` as a function that is called again when a peer is lost.

    An exception of its own passes through, and so does everything where no launch agent of artesian's is
    there. Call it in the main thread.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        found = link()
        if found is None:
            return main(*args, **kwargs)
        found.offer_rejoin(_abort)
        while True:
            try:
                return main(*args, **kwargs)
            except (Exception, PeerLost) as error:
                described = "".join(traceback.format_exception_only(error)).strip()
                would_come_again = is_final(error, is_first_start=found.is_first_start)
                comes = found.next_round(described, traceback.format_exc(), is_final=would_come_again)
                if comes is None:
                    raise
                # Its frames hold the model, the groups and their threads.
                traceback.clear_frames(error.__traceback__)
            _rejoin(comes)
            found.rejoined(comes.number)

    return wrapped


def _rejoin(comes: Round) -> None:
    link_ = link()
    assert link_ is not None
    link_.heart.set(Activity.STARTING)
    reporter.start_up_again()
    _abort()
    gc.collect()
    os.environ.update(comes.env)


def _abort() -> None:
    """Drop all process groups, with whatever is under way in them."""
    if not dist.is_initialized():
        return
    with contextlib.suppress(Exception):  # of a gang that is lost anyway
        if dist.get_backend() == "nccl":
            dist.distributed_c10d._abort_process_group()
        else:
            dist.destroy_process_group()
