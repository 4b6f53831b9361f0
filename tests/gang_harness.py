"""A gang of real processes over gloo, forked from the test: ``in_gang(3, work)`` runs ``work(rank)`` in each."""

import multiprocessing
import tempfile
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT_S = 120.0
"""A gang that takes so long has failed."""


def in_gang(world_size: int, work: Callable[[int], Any]) -> list[Any]:
    """Return what ``work`` returned, by rank; fails with the tracebacks of those that raised."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        ends, processes = [], []
        for rank in range(world_size):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_member, args=(rank, world_size, f"{folder}/store", work, theirs)
            )
            with warnings.catch_warnings():
                # Newer Pythons warn of forking next to threads; the children only use gloo and one thread.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        try:
            answers = [_answer(end) for end in ends]
        finally:
            for process in processes:
                process.join(5)
                process.kill()
                process.join()
    errors = [value for said, value in answers if said == "raised"]
    assert not errors, "\n".join(errors)
    return [value for _, value in answers]


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process, and return its exit code; minus the signal that ended it."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(work,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    process.join(TIMEOUT_S)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _child(work: Callable[[], None]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("default")  # what other libraries warn of is not ours to fail on
    work()


def _answer(end: Connection) -> tuple[str, Any]:
    if not end.poll(TIMEOUT_S):
        return "raised", "it did not answer in time"
    try:
        said: tuple[str, Any] = end.recv()
    except EOFError:
        return "raised", "it died without a word"
    return said


def _member(rank: int, world_size: int, store: str, work: Callable[[int], Any], end: Connection) -> None:
    torch.set_num_threads(1)  # more of them do not survive a fork
    try:
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(store, world_size),  # type: ignore[attr-defined]  # exported, but not in __all__
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=TIMEOUT_S / 2),
        )
        value = work(rank)
        dist.barrier()  # nobody leaves while another still talks to it
        end.send(("returned", value))
        dist.destroy_process_group()
    except BaseException:
        end.send(("raised", traceback.format_exc()))
