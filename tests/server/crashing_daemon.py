"""The daemon, killed at a chosen instant: ``crashing_daemon.py STATE_DIR IDLE_EXIT_S INSTANT COUNT_FILE``.

Instants are the calls that artesian's own code makes, built-in functions included, counted from the
start of the control plane: each database statement, each file, each signal is one. At instant
number INSTANT the process sends itself SIGKILL. With INSTANT 0 it lives, and writes into COUNT_FILE
how many there were.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from artesian.server import daemon


def main() -> int:
    """Run the daemon under the counter."""
    instant = int(sys.argv[3])
    passed = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal passed
        if event in ("call", "c_call") and frame.f_globals.get("__name__", "").startswith("artesian."):
            passed += 1
            if passed == instant:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    code = daemon.main(sys.argv[1:3])
    sys.setprofile(None)
    Path(sys.argv[4]).write_text(str(passed))
    return code


if __name__ == "__main__":
    sys.exit(main())
