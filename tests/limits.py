"""What a test needs of the machine, and what limits it puts on its own process."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def small_file_system(mount: Path, *, size: str) -> Iterator[Path]:
    """Mount a tmpfs of ``size`` at the new folder ``mount``: a disk, or a /dev/shm, that can be full."""
    needs(os.getuid() == 0, "root, to mount a small file system")
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
