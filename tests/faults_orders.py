"""The folder of orders, by which a disturbed job and those who disturb it know what has happened: each thing once."""

import json
import os
import time
from pathlib import Path

BATCH = 8
"""Samples of a global batch."""
CALLS_OF_A_SAVE = 16
"""Of the file system, some more or less."""


def begins(folder: Path, number: int) -> bool:
    """Say that a fault happens now; False where it has happened already."""
    part = folder / f"part-{number}-{os.getpid()}"
    part.write_text(str(time.time()))
    try:
        os.link(part, folder / f"{number}.begun")
    except FileExistsError:
        return False
    finally:
        part.unlink()
    return True


def tear(folder: Path, number: int, *, calls: int, takes: str) -> None:
    """Have the process that saves to storage next die on the way, after so many calls of the file system.

    It takes along its ``worker``, or all of its ``node``.
    """
    part = folder / f"part-{number}"
    part.write_text(json.dumps({"number": number, "calls": calls, "takes": takes}))
    part.rename(folder / f"torn-{number}")
