"""Checkpoints in an object store, through fsspec: the manifest is put last, and is the commit."""

import contextlib
import errno
import importlib
import uuid
import zlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from artesian.train.errors import CheckpointError
from artesian.train.manifest import (
    MANIFEST,
    Facts,
    Manifest,
    encode_manifest,
    folder_name,
    make_manifest,
    manifest_fields,
    steps_among,
)


class ObjectStore:
    """Checkpoints under a URL of fsspec's. The image has a name of its own, so that no put overwrites one."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        try:
            core = importlib.import_module("fsspec.core")
            self._files, self._root = core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise CheckpointError(
                f"cannot open {url}: {error}",
                hint="pip install 'artesian[storage]', and the package of the file system (s3fs, gcsfs, ...)",
            ) from error
        self.name = url

    def save(self, facts: Facts, pieces: Iterable[memoryview], document_bytes: int) -> Manifest:
        folder = f"{self._root}/{folder_name(facts.step)}"
        file = f"state-{uuid.uuid4().hex}.bin"
        crc32s: list[int] = []
        size_bytes = 0
        try:
            self._files.makedirs(folder, exist_ok=True)
            with self._files.open(f"{folder}/{file}", "wb") as out:
                for piece in pieces:
                    crc32s.append(zlib.crc32(piece))
                    size_bytes += len(piece)
                    out.write(piece)
            manifest = make_manifest(facts, file, document_bytes, size_bytes, crc32s)
            self._files.pipe_file(f"{folder}/{MANIFEST}", encode_manifest(manifest))
        except OSError:
            raise
        except Exception as error:  # every client has a family of its own
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error
        for path in self._list(folder):
            if path.rsplit("/", 1)[-1] not in (MANIFEST, file):
                self._files.rm_file(path)
        return manifest

    def steps(self) -> list[int]:
        return steps_among(path.rsplit("/", 1)[-1] for path in self._list(self._root))

    def manifest(self, step: int) -> Mapping[str, Any]:
        return manifest_fields(self._files.cat_file(f"{self._root}/{folder_name(step)}/{MANIFEST}"))

    def open(self, step: int, file: str) -> AbstractContextManager[BinaryIO]:
        found: AbstractContextManager[BinaryIO] = self._files.open(
            f"{self._root}/{folder_name(step)}/{Path(file).name}", "rb"
        )
        return found

    def remove(self, step: int) -> None:
        with contextlib.suppress(OSError):
            # The manifest first: what is removed by half is no checkpoint.
            self._files.rm_file(f"{self._root}/{folder_name(step)}/{MANIFEST}")
        with contextlib.suppress(OSError):
            self._files.rm(f"{self._root}/{folder_name(step)}", recursive=True)

    def alone(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()  # no name is written to twice, but that of the manifest, at once

    def sweep(self) -> int:
        return 0  # an image without a manifest goes with the checkpoints of its age

    def _list(self, folder: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            return [str(path) for path in self._files.ls(folder, detail=False)]
        except FileNotFoundError:
            return []
