"""Which checkpoint is whole: other libraries write theirs in place, and a crash leaves half of one.

A seal is a file that is written after all others, with their sizes and SHA-256. What has none, or does not
match it, is passed over.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from artesian.train.reporter import say

SEAL = "artesian-seal.json"
_FORMAT = 1


def seal(folder: Path) -> int:
    """Say that ``folder`` is whole, and return its size in bytes. It is durable when this returns.

    Raises OSError where that cannot be written.
    """
    files = {}
    total = 0
    for path in _files(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        size = path.stat().st_size
        files[str(path.relative_to(folder))] = [size, digest]
        total += size
    temporary = folder / f".{SEAL}"
    with temporary.open("w") as text:
        json.dump({"format": _FORMAT, "files": files}, text)
        text.flush()
        os.fsync(text.fileno())
    os.replace(temporary, folder / SEAL)
    _sync_folder(folder)
    return total


def broken(folder: Path) -> str | None:
    """Return what is wrong with the checkpoint in ``folder``; None where it is whole."""
    try:
        told = json.loads((folder / SEAL).read_text())
        if told["format"] != _FORMAT:
            return f"its seal has format {told['format']}, this version reads {_FORMAT}"
        for name, (size, digest) in told["files"].items():
            path = folder / name
            if path.stat().st_size != size:
                return f"{name} should have {size} bytes, and has {path.stat().st_size}"
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{name} does not match its checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read: {error}"
    return None


def newest(parent: Path, prefix: str) -> Path | None:
    """Return the whole checkpoint of the highest step among the folders ``PREFIX<step>`` in ``parent``.

    None where there is none. Newer ones that are not whole are told on stderr.
    """
    for _, folder in sorted(_numbered(parent, prefix), reverse=True):
        reason = broken(folder)
        if reason is None:
            return folder
        say(f"{folder} is not whole, going back to an older one: {reason}")
    return None


def keep_last(parent: Path, prefix: str, count: int) -> None:
    """Remove all but the newest ``count`` checkpoints; their seal goes first, so that half of one is none."""
    for _, folder in sorted(_numbered(parent, prefix))[:-count]:
        for path in [folder / SEAL, *_files(folder)]:
            path.unlink(missing_ok=True)
        for below in sorted(folder.rglob("*"), reverse=True):
            below.rmdir()
        folder.rmdir()


def _numbered(parent: Path, prefix: str) -> Iterator[tuple[int, Path]]:
    if parent.is_dir():
        for folder in parent.iterdir():
            number = folder.name.removeprefix(prefix)
            if folder.name.startswith(prefix) and number.isdigit() and folder.is_dir():
                yield int(number), folder


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in (SEAL, f".{SEAL}")
    )


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
