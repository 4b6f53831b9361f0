"""How a driver says how its attempt ended. Without Ray's library, which takes seconds to load."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from artesian.engines.local.records import AttemptFolder
from artesian.engines.ray.files import VERDICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the gang ended. ``cause`` is None where the commands decide: node ``first`` ended it."""

    at_s: float
    cause: str | None = None
    message: str = ""
    first: int = 0


def early() -> Verdict:
    """Return the verdict on an attempt that was stopped before it started."""
    return Verdict(at_s=time.time(), cause="cancelled", message="stopped before it started")


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Leave the verdict where the engine finds it, whole or not at all. Raises OSError."""
    private = folder / f"{VERDICT}.part"
    with open(private, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(asdict(verdict), file)
        file.flush()
        os.fsync(file.fileno())
    private.rename(folder / VERDICT)


def stop_grace_s(folder: AttemptFolder, request: Mapping[str, Any]) -> float:
    """Return the grace of the stop that was asked for, else the job's own."""
    grace_s = folder.stop_grace_s()
    return float(request["grace_s"]) if grace_s is None else grace_s


def exit_code(folder: Path, verdict: Verdict) -> int:
    """Return the code with which the driver leaves: 0 where the attempt ended well."""
    ended = AttemptFolder(folder).ended()
    return 0 if verdict.cause is None and ended is not None and ended.exit_code == 0 else 1
