"""A growing log file, read piece by piece."""

from pathlib import Path

_PIECE_BYTES = 2**20


class Tail:
    """Reads what was appended to a file since the last call; a file that is not there yet is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> bytes:
        """Return the new bytes, at most a mebibyte of them; none where there is nothing new."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_PIECE_BYTES)
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        return data
