"""The last save of a node that is about to be lost: by the launch agent, of what the workers have in memory.

A preemption leaves seconds. Workers finish their step and save it, if their step is shorter than that, and if they do
not hang. So a process beside the agent brings the newest state in shared memory to storage: a quarter of the
grace after the notice, while the workers still have a chance, and again when they are gone, if they have left a newer one.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artesian.train.segment import JobFolder

NOTE = "storage.json"
_LEAST_WAIT_S = 30.0


def leave_note(folder: JobFolder, settings: Mapping[str, Any]) -> None:
    """Write down in a job's shared memory where its state goes to; for ``last_save``.

    What is in there may hold credentials: it is for the user alone, and gone with the folder.
    """
    if str(settings["where"]).startswith("memory://"):  # of that process alone
        return
    where = str(settings["where"])
    where = where if "://" in where else str(Path(where).absolute())
    file, name = tempfile.mkstemp(dir=folder.path)  # mode 0600
    with os.fdopen(file, "w") as text:
        json.dump({**settings, "where": where}, text)
    os.replace(name, folder.path / NOTE)


@contextmanager
def last_save(memory: str | None, grace_s: float) -> Iterator[Callable[[], None]]:
    """Yield what to call when the node has notice that it will be lost; at the end the save is waited for.

    ``memory`` names the shared memory of the node's workers; None: there is none, and nothing is done.
    """
    started: list[subprocess.Popen[bytes]] = []

    def notice() -> None:
        if memory is not None and not started:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "artesian.train.last_save_process", memory, str(grace_s)],
                    stdin=subprocess.PIPE,
                    process_group=0,  # a signal for the agent's group is not meant for it
                )
            )

    try:
        yield notice
    finally:
        for process in started:
            assert process.stdin is not None
            process.stdin.close()  # the workers are gone
            try:
                process.wait(max(_LEAST_WAIT_S, grace_s))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
