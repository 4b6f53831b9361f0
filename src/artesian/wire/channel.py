"""The progress channel: one append-only file per worker.

A file rather than a socket, because it outlives both ends: a worker never blocks on a control plane
that is down, and a control plane that comes back reads on where it stopped.
"""

import errno
import os
from pathlib import Path

from artesian.wire.messages import Message, decode, encode

_AGENT_FILE = "agent.jsonl"


def worker_file(progress_dir: Path, rank: int) -> Path:
    """Return the file in which worker ``rank`` reports."""
    return progress_dir / f"rank-{rank}.jsonl"


def agent_file(progress_dir: Path, node_rank: int = 0) -> Path:
    """Return the file in which the launch agent of a node reports."""
    return progress_dir / (_AGENT_FILE if node_rank == 0 else f"agent-{node_rank}.jsonl")


class ProgressWriter:
    """Appends messages to a file; each is one ``write``, so that a kill leaves at most a torn last line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._is_torn = False

    def send(self, message: Message) -> None:
        """Append ``message``. Raises OSError when the file system refuses (a full disk)."""
        line = encode(message)
        if self._is_torn:
            line = b"\n" + line  # what a full disk cut short must not take this message with it
        written = os.write(self._fd, line)
        self._is_torn = written < len(line)
        if self._is_torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ProgressReader:
    """Reads what was appended to the files of a folder since the last call; ``only`` to one of them."""

    def __init__(self, progress_dir: Path, *, only: str | None = None) -> None:
        self._dir = progress_dir
        self._only = only
        self._offsets: dict[str, int] = {}
        self.malformed_lines = 0
        """Complete lines that were no message; counted, never silently dropped."""

    def read(self) -> list[Message]:
        """Return the new messages, file by file in the order of their names; empty when there are none."""
        messages: list[Message] = []
        try:
            names = sorted(
                name
                for name in os.listdir(self._dir)
                if (name == self._only if self._only is not None else name.endswith(".jsonl"))
            )
        except FileNotFoundError:
            return messages
        for name in names:
            messages.extend(self._read_file(name))
        return messages

    def _read_file(self, name: str) -> list[Message]:
        offset = self._offsets.get(name, 0)
        with open(self._dir / name, "rb") as file:
            file.seek(offset)
            data = file.read()
        complete = data.rfind(b"\n") + 1  # a torn last line is read when it is whole
        self._offsets[name] = offset + complete
        messages = []
        for line in data[:complete].splitlines():
            try:
                message = decode(line)
            except ValueError:
                self.malformed_lines += 1
                continue
            if message is not None:
                messages.append(message)
        return messages
