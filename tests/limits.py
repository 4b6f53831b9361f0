"""Limits of the system that a test puts on its own process."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_file_larger_than(limit_bytes: int) -> Iterator[None]:
    """Let the kernel refuse writes beyond the limit, as it does when a disk is full.

    It holds for every file of the process, also for the one that the test runner prints into: so it is a
    block inside a test, and never a fixture, whose end comes after the result is printed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
