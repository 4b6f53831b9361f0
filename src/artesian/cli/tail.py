"""A growing log file, read piece by piece."""

import codecs
from pathlib import Path

_PIECE_BYTES = 2**20


class Tail:
    """Reads what was appended to a file since the last call; a file that is not there yet is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read(self) -> str:
        """Return the new text, at most a mebibyte of it; a character cut in two waits for its rest."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_PIECE_BYTES)
        except FileNotFoundError:
            return ""
        self._offset += len(data)
        return self._decoder.decode(data)
