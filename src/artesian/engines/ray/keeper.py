"""Between an agent and the supervisor of its attempt: ``python -I -S keeper.py FOLDER WORKDIR GRACE_S COMMAND...``.

Ray kills a worker process's children with it, at once; an attempt has its grace. So the supervisor is no
child of the agent's: it leaves it by a second fork, and hears of it through a pipe, its stdin. A line in
it is the grace of a stop; its end means that the agent is gone, and that the attempt must not outlive it
by more than the grace of a stop that is under way. The agent in turn waits for our stdout to close.
"""

import os
import signal
import sys
import threading

if __name__ == "__main__":
    sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))

from artesian.engines.local import supervisor


def heed(folder: str) -> None:
    """Pass on what comes through stdin, until it ends."""
    is_told = False
    with open(0, encoding="ascii", closefd=False) as lines:
        for line in lines:
            is_told = True
            _stop(folder, float(line))
    if not is_told:
        _stop(folder, 0.0)


def _stop(folder: str, grace_s: float) -> None:
    path = os.path.join(folder, supervisor.STOP)
    try:
        with open(
            path, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)
        ) as file:
            file.write(str(grace_s))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # the supervisor, in the main thread, waits for it


def main(folder: str, workdir: str, grace_s: float, command: list[str]) -> None:
    """Become the supervisor, away from whoever started this process."""
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD])
    threading.Thread(target=heed, args=(folder,), daemon=True).start()
    supervisor.main(folder, workdir, grace_s, command)
    os._exit(0)  # the thread that still reads would be in the way of an ordinary end


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])
