"""Checkpoints in an object store, through fsspec: the manifest is put last, and is the commit."""

import contextlib
import errno
import importlib
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.fence import WRITERS, Writer, hold
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

_SAVE = re.compile(r"step-[0-9]+-.+")


class ObjectStore:
    """Checkpoints under a URL of fsspec's. The image has a name of its own, so that no put overwrites one.

    Parts lie in a folder of their save's, which is none of a checkpoint: that begins with its manifest.
    """

    def __init__(self, url: str, options: Mapping[str, Any], writer: Writer | None = None) -> None:
        """``writer`` is who saves there, where that is an attempt of a job."""
        try:
            core = importlib.import_module("fsspec.core")
            self._files, self._root = core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise CheckpointError(
                f"cannot open {url}: {error}",
                hint="pip install 'artesian[storage]', and the package of the file system (s3fs, gcsfs, ...)",
            ) from error
        self.name = url
        self.writer = writer
        self._named: set[str] = set()
        """Saves in parts that a manifest is known to name."""

    def save(self, facts: Facts, pieces: Iterable[memoryview], document_bytes: int) -> Manifest:
        folder = folder_name(facts.step)
        file = f"state-{uuid.uuid4().hex}.bin"
        hold(self)
        size_bytes, crc32s = self.put_part(folder, file, pieces)
        manifest = make_manifest(facts, file, document_bytes, size_bytes, crc32s)
        try:
            hold(self)  # again: a successor may have come while it was written
        except SupersededError:
            with contextlib.suppress(OSError):  # else the successor sweeps it
                self._files.rm_file(f"{self._root}/{folder}/{file}")
            raise
        self.put_note(folder, MANIFEST, encode_manifest(manifest))
        for path in self._list(f"{self._root}/{folder}"):
            if path.rsplit("/", 1)[-1] not in (MANIFEST, file):
                self._files.rm_file(path)
        return manifest

    def put_part(self, save: str, name: str, pieces: Iterable[memoryview]) -> tuple[int, list[int]]:
        crc32s: list[int] = []
        size_bytes = 0
        with _as_os_error():
            self._files.makedirs(f"{self._root}/{save}", exist_ok=True)
            with self._files.open(f"{self._root}/{save}/{name}", "wb") as out:
                for piece in pieces:
                    crc32s.append(zlib.crc32(piece))
                    size_bytes += len(piece)
                    out.write(piece)
        return size_bytes, crc32s

    def put_note(self, save: str, name: str, data: bytes) -> None:
        with _as_os_error():
            self._files.pipe_file(f"{self._root}/{save}/{name}", data)

    def notes(self, save: str, count: int) -> list[bytes]:
        with _as_os_error():
            found = [path for path in self._list(f"{self._root}/{save}") if path.endswith(".json")]
            return [self._files.cat_file(path) for path in found] if len(found) >= count else []

    def commit(self, save: str, step: int, manifest: bytes) -> None:  # noqa: ARG002 - the manifest names it
        with _as_os_error():
            self._files.makedirs(f"{self._root}/{folder_name(step)}", exist_ok=True)
        self.put_note(folder_name(step), MANIFEST, manifest)

    def open_part(
        self,
        save: str,
        step: int,  # noqa: ARG002 - the parts stay where they were put
        file: str,
    ) -> AbstractContextManager[BinaryIO]:
        found: AbstractContextManager[BinaryIO] = self._files.open(
            f"{self._root}/{Path(save).name}/{Path(file).name}", "rb"
        )
        return found

    def writers(self) -> bytes | None:
        with _as_os_error():
            try:
                note: bytes = self._files.cat_file(f"{self._root}/{WRITERS}")
            except FileNotFoundError:
                return None
        return note

    def put_writers(self, note: bytes) -> None:
        with _as_os_error():
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(f"{self._root}/{WRITERS}", note)

    def steps(self) -> list[int]:
        """Those that have a manifest: what a death in the middle of a save has left is no checkpoint."""
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._root, maxdepth=2)
        except FileNotFoundError:
            return []
        return steps_among(path.rsplit("/", 2)[-2] for path in found if path.endswith(f"/{MANIFEST}"))

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
        for save in self._saves():
            if save.startswith(f"{folder_name(step)}-"):
                self._remove_save(save)

    def alone(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()  # no name is written to twice, but that of the manifest, at once

    def sweep(self, keep: str | None = None) -> int:
        steps = self.steps()
        saves = [save for save in self._saves() if save not in (keep, *self._named)]
        if saves:
            for step in steps:
                with contextlib.suppress(OSError, ValueError):
                    self._named.add(str(self.manifest(step).get("save")))
        names = [path.rsplit("/", 1)[-1] for path in self._list(self._root)]
        torn = [folder_name(step) for step in steps_among(names) if step not in steps]
        leftovers = [*torn, *(save for save in saves if save not in self._named)]
        for name in leftovers:
            self._remove_save(name)
        return len(leftovers)

    def _saves(self) -> list[str]:
        """Return the names of the saves in parts, of checkpoints and of what never became one."""
        return [name for path in self._list(self._root) if _SAVE.fullmatch(name := path.rsplit("/", 1)[-1])]

    def _remove_save(self, save: str) -> None:
        self._named.discard(save)
        with contextlib.suppress(OSError):
            self._files.rm(f"{self._root}/{save}", recursive=True)

    def _list(self, folder: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            return [str(path) for path in self._files.ls(folder, detail=False)]
        except FileNotFoundError:
            return []


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise what a client raises as OSError: every one has a family of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error
