"""The driver of the Ray job of an attempt on one node: ``python -m artesian.engines.ray.alone FOLDER``.

Ray starts it on that node, with what the attempt takes of it: the job's own entrypoint has a place, as an actor
has. So there is nothing to ask Ray for: no placement group, no actor, and not even Ray's library, which takes longer
to load than all the rest.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from artesian.engines.local.records import AttemptFolder
from artesian.engines.ray.files import read_request
from artesian.engines.ray.part import NodePart
from artesian.engines.ray.verdict import Verdict, early, exit_code, stop_grace_s, write_verdict
from artesian.wire import environment as names

_LOOK_S = 0.1


class Alone:
    """One attempt on this node, to the verdict."""

    def __init__(self, folder: Path) -> None:
        self._folder = AttemptFolder(folder)
        self._request = read_request(folder)
        self._part = NodePart(str(folder), 0, granted)
        self._ended: dict[str, Any] | None = None
        self._failure: OSError | None = None
        self._stopping = threading.Event()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: what to do about it is for the next look."""
        del number, frame
        self._stopping.set()

    def run(self) -> Verdict | None:
        """Return the verdict; None where the attempt is not for this driver to run. Raises OSError."""
        if self._folder.claim() is not None:
            return None  # fenced off, or run by a driver that an earlier head of this Ray had
        if self._stopping.is_set():
            return early()
        runs = threading.Thread(target=self._run_part)
        runs.start()
        is_told = False
        while runs.is_alive():
            runs.join(_LOOK_S)
            if self._stopping.is_set() and not is_told:
                is_told = True
                self._part.stop(stop_grace_s(self._folder, self._request))
        if self._failure is not None:
            raise self._failure
        if self._ended is None:
            text = "what looked after the attempt is gone, and left no word of how it ended"
            return Verdict(at_s=time.time(), cause="node_lost", message=text)
        return Verdict(at_s=self._ended["at_s"])

    def _run_part(self) -> None:
        try:
            self._ended = self._part.run(None)
        except OSError as error:
            self._failure = error


def granted(own: Mapping[str, Any]) -> dict[str, str]:
    """Return what tells the attempt its devices, where Ray has chosen them: it has told this process."""
    ids = "" if own["granted"] is None else os.environ.get(own["granted"], "")
    return {own["visible"]: ids, names.DEVICES: ids} if ids else {}


def main(folder: Path) -> int:
    """Run the attempt, and return 0 where it ended well."""
    alone = Alone(folder)
    signal.signal(signal.SIGTERM, alone.stop)
    verdict = alone.run()
    if verdict is None:
        return 0
    write_verdict(folder, verdict)
    return exit_code(folder, verdict)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
