"""The folder of orders, by which a disturbed job and those who disturb it know what has happened: each thing once."""

import json
import os
import time
from pathlib import Path

BATCH = 8
"""Samples of a global batch."""
_CALLS_OF_A_SAVE = 15


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


def tear(folder: Path, number: int, *, takes: str) -> None:
    """Have the process that saves to storage next die on the way, with its ``worker`` or with all of its ``node``."""
    part = folder / f"part-{number}"
    part.write_text(json.dumps({"number": number, "calls": number * 7 % _CALLS_OF_A_SAVE, "takes": takes}))
    part.rename(folder / f"torn-{number}")
