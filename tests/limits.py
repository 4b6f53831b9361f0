"""What a test needs of the machine, and what limits it puts on its own process."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def needs(holds: bool, what: str) -> None:
    """Skip where the machine lacks something; in CI that is a failure."""
    if not holds:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {what}")
        pytest.skip(f"needs {what}")


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
