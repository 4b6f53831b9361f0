"""An object store in a folder: an object is there at once when it is put, or not at all; nothing can be renamed.

``$BUCKETS`` names the folder. While there is a file ``hold`` in it, puts wait.
"""

import io
import os
import time
import uuid
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem


class Bucket(LocalFileSystem):  # type: ignore[misc]
    """``bucket://run/key`` is the object ``run/key``."""

    protocol = "bucket"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        name = path.removeprefix("bucket://").rstrip("/")
        root = os.environ["BUCKETS"]
        return name if name.startswith(root) else f"{root}/objects/{name}"

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.RawIOBase:
        return _Put(Path(path)) if "w" in mode else open(path, "rb", buffering=0)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        with self.open(path, "wb") as file:
            file.write(value)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: there are no folders, only names with slashes."""

    def mv(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError("an object store cannot rename")


class _Put(io.FileIO):
    def __init__(self, target: Path) -> None:
        root = Path(os.environ["BUCKETS"])
        while (root / "hold").exists():
            time.sleep(0.01)
        uploads = root / "uploads"
        uploads.mkdir(parents=True, exist_ok=True)
        self._target, self._upload = target, uploads / uuid.uuid4().hex
        super().__init__(self._upload, "wb")

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._upload.replace(self._target)
