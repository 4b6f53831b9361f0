"""Checkpoints in an object store, through fsspec: the manifest is put last, and is the commit.

There are no locks, so a writer may be overtaken between any look and what it does next. Names make that harmless
(``object_names``): every attempt has folders of its own, and removes none of a later one's; and whoever comes first says
so, then writes down which checkpoints count. What its predecessors publish after that does not. All that is asked of the
store is that a put is whole or not there, and seen by every look that begins after it, as S3, GCS and Azure promise.
"""

import contextlib
import errno
import importlib
import json
import uuid
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.fence import Writer, hold
from artesian.train.manifest import (
    MANIFEST,
    Facts,
    Manifest,
    encode_manifest,
    folder_name,
    make_manifest,
    manifest_fields,
)
from artesian.train.object_names import Name, counting, mark_of, newest_of, writer_of

_WRITERS = "writers"


class ObjectStore:
    """Checkpoints under a URL of fsspec's. The image has a name of its own, so that no put overwrites one.

    Parts lie in a folder of their save's, which is none of a checkpoint: that begins with its manifest.
    """

    note = f"{_WRITERS}/"

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
        self._checkpoints: Mapping[int, Name] = {}
        """Those that counted at the last look."""
        self._before: dict[Writer, Collection[str]] = {}
        """What counted when an attempt came: once written down, it stays so."""
        self._named: set[Name] = set()
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
                self._files.rm_file(f"{self._own(folder)}/{file}")
            raise
        self.put_note(folder, MANIFEST, encode_manifest(manifest))
        for path in self._list(self._own(folder)):
            if path.rsplit("/", 1)[-1] not in (MANIFEST, file):
                self._files.rm_file(path)
        return manifest

    def put_part(self, save: str, name: str, pieces: Iterable[memoryview]) -> tuple[int, list[int]]:
        crc32s: list[int] = []
        size_bytes = 0
        with _as_os_error():
            self._files.makedirs(self._own(save), exist_ok=True)
            with self._files.open(f"{self._own(save)}/{name}", "wb") as out:
                for piece in pieces:
                    crc32s.append(zlib.crc32(piece))
                    size_bytes += len(piece)
                    out.write(piece)
        return size_bytes, crc32s

    def put_note(self, save: str, name: str, data: bytes) -> None:
        with _as_os_error():
            self._files.pipe_file(f"{self._own(save)}/{name}", data)

    def notes(self, save: str, count: int) -> list[bytes]:
        with _as_os_error():
            found = [path for path in self._list(self._own(save)) if path.endswith(".json")]
            return [self._files.cat_file(path) for path in found] if len(found) >= count else []

    def commit(self, save: str, step: int, manifest: bytes) -> None:  # noqa: ARG002 - the manifest names it
        with _as_os_error():
            self._files.makedirs(self._own(folder_name(step)), exist_ok=True)
        self.put_note(folder_name(step), MANIFEST, manifest)

    def open_part(self, save: str, step: int, file: str) -> AbstractContextManager[BinaryIO]:
        # The parts stay where they were put, by whoever has put the manifest.
        parts = _parsed(Path(save).name).of(self._checkpoint(step).writer)
        return self._open(parts, file)

    def epochs(self) -> Mapping[str, int]:
        with _as_os_error():
            writers = [writer_of(path.rsplit("/", 1)[-1]) for path in self._list(f"{self._root}/{_WRITERS}")]
            found = newest_of(writer for writer in writers if writer is not None)
            mine = self.writer
            if mine is not None and found.get(mine.job) == mine.epoch and self._known_before(mine) is None:
                del found[mine.job]  # it was killed as it came, and comes again
        return found

    def come(self, writer: Writer) -> None:
        path = f"{self._root}/{_WRITERS}/{mark_of(writer)}"
        with _as_os_error():
            self._files.makedirs(f"{self._root}/{_WRITERS}", exist_ok=True)
            # First of all nobody else begins to remove anything; so what is found then stays, or has a newer one there.
            self._files.pipe_file(path, json.dumps({"before": None}).encode())
            before = sorted(str(name) for name in self._look().values())
            self._files.pipe_file(path, json.dumps({"before": before}).encode())
        self._before[writer] = before

    def steps(self) -> list[int]:
        """Those that have a manifest: what a death in the middle of a save has left is no checkpoint."""
        with _as_os_error():
            return sorted(self._look())

    def manifest(self, step: int) -> Mapping[str, Any]:
        with _as_os_error():
            self._look()
            return self._manifest(self._checkpoint(step))

    def open(self, step: int, file: str) -> AbstractContextManager[BinaryIO]:
        return self._open(self._checkpoint(step), file)

    def remove(self, step: int) -> None:
        with contextlib.suppress(OSError), _as_os_error():
            for name in sorted(
                self._folders(), key=lambda each: each.number
            ):  # checkpoints before their parts
                if name.step == step and not name.is_later_than(self.writer):
                    self._remove(name)

    def alone(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()  # no name is written to by two attempts

    def sweep(self, keep: str | None = None) -> int:
        kept = None if keep is None else _parsed(keep).of(self.writer)
        with _as_os_error():
            folders = self._folders()  # before the look: what is whole by then is no leftover
            checkpoints = self._look()
            unknown = [name for name in folders if name.number and name != kept and name not in self._named]
            if unknown:
                for checkpoint in checkpoints.values():
                    with contextlib.suppress(FileNotFoundError, ValueError):  # it is gone, or names nothing
                        save = Name.parse(str(self._manifest(checkpoint).get("save")))
                        if save is not None:
                            self._named.add(save.of(checkpoint.writer))
            spared = {kept, *self._named, *checkpoints.values()}
            leftovers = [name for name in folders if name not in spared]
            leftovers = [name for name in leftovers if not name.is_later_than(self.writer)]
        for name in leftovers:
            self._remove(name)
        return len(leftovers)

    # -- names --------------------------------------------------------------------------------------

    def _own(self, folder: str) -> str:
        """Return the path of a folder of the writer's."""
        return f"{self._root}/{_parsed(folder).of(self.writer)}"

    def _checkpoint(self, step: int) -> Name:
        if step not in self._checkpoints:
            self._look()
        if step not in self._checkpoints:
            raise FileNotFoundError(errno.ENOENT, f"{self.name} has no checkpoint of step {step}")
        return self._checkpoints[step]

    def _look(self) -> Mapping[int, Name]:
        """Return the checkpoints that count, by step."""
        self._files.invalidate_cache()
        try:
            found = [str(path).rsplit("/", 2)[-2:] for path in self._files.find(self._root, maxdepth=2)]
        except FileNotFoundError:
            found = []
        names = [Name.parse(folder) for folder, file in found if file == MANIFEST]
        checkpoints = [name for name in names if name is not None and not name.number]
        writers = [writer_of(file) for folder, file in found if folder == _WRITERS]
        come = [writer for writer in writers if writer is not None]
        self._checkpoints = counting(checkpoints, come, self._known_before)
        return self._checkpoints

    def _known_before(self, writer: Writer) -> Collection[str] | None:
        """Return what counted when an attempt came; None where that is not written down, or is damaged."""
        if writer not in self._before:
            try:
                mark = self._files.cat_file(f"{self._root}/{_WRITERS}/{mark_of(writer)}")
                self._before[writer] = {str(name) for name in json.loads(mark)["before"]}
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                return None
        return self._before[writer]

    def _folders(self) -> list[Name]:
        """Return the names of all folders: checkpoints, saves in parts, and what never became one."""
        names = [Name.parse(path.rsplit("/", 1)[-1]) for path in self._list(self._root)]
        return [name for name in names if name is not None]

    def _manifest(self, checkpoint: Name) -> Mapping[str, Any]:
        return manifest_fields(self._files.cat_file(f"{self._root}/{checkpoint}/{MANIFEST}"))

    def _open(self, folder: Name, file: str) -> AbstractContextManager[BinaryIO]:
        found: AbstractContextManager[BinaryIO] = self._files.open(
            f"{self._root}/{folder}/{Path(file).name}", "rb"
        )
        return found

    def _remove(self, name: Name) -> None:
        self._named.discard(name)
        if not name.number:
            with contextlib.suppress(OSError), _as_os_error():
                # The manifest first: what is removed by half is no checkpoint.
                self._files.rm_file(f"{self._root}/{name}/{MANIFEST}")
        with contextlib.suppress(OSError), _as_os_error():
            self._files.rm(f"{self._root}/{name}", recursive=True)

    def _list(self, folder: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            return [str(path) for path in self._files.ls(folder, detail=False)]
        except FileNotFoundError:
            return []


def _parsed(folder: str) -> Name:
    name = Name.parse(folder)
    if name is None:
        raise ValueError(f"a folder is called step-NUMBER and so on, got {folder!r}")
    return name


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise what a client raises as OSError: every one has a family of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error
