"""What a checkpoint says about itself: its step, and the checksums of its image and of the manifest.

Needs the standard library only.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import artesian

FORMAT = 2
MANIFEST = "manifest.json"
_PREFIX = "step-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint says about itself. ``position`` is the number of samples the job has consumed.

    ``file`` is the image's name, its first ``document_bytes`` say what the tensors are, ``crc32s`` are the
    checksums of its pieces of 16 MiB.
    """

    format: int
    step: int
    position: int
    world_size: int
    size_bytes: int
    artesian: str
    file: str
    document_bytes: int
    crc32s: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What whoever saves says about a checkpoint; the rest of the manifest comes from the image."""

    step: int
    position: int = 0
    world_size: int = 1


def parse_manifest(fields: Mapping[str, Any]) -> Manifest:
    """Return the manifest of format 2. Raises ValueError for one that is damaged or of another format."""
    try:
        found = unsealed(fields)
        return Manifest(**{**found, "crc32s": tuple(found["crc32s"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error!r}") from error


def make_manifest(
    facts: Facts, file: str, document_bytes: int, size_bytes: int, crc32s: Iterable[int]
) -> Manifest:
    """Return the manifest of an image that was written."""
    return Manifest(
        format=FORMAT,
        step=facts.step,
        position=facts.position,
        world_size=facts.world_size,
        size_bytes=size_bytes,
        artesian=artesian.__version__,
        file=file,
        document_bytes=document_bytes,
        crc32s=tuple(crc32s),
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest's file, with a checksum of its own."""
    return sealed(asdict(manifest))


def sealed(fields: Mapping[str, Any]) -> bytes:
    """Return ``fields`` as JSON, with a checksum of their own."""
    return json.dumps({**fields, "check": seal_of(fields)}).encode()


def unsealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was ``sealed``, without its checksum. Raises ValueError where they do not match, KeyError without one."""
    found = dict(fields)
    if found.pop("check") != seal_of(found):
        raise ValueError(f"{MANIFEST} is damaged: it does not match its own checksum")
    return found


def seal_of(fields: Mapping[str, Any]) -> int:
    """Return the checksum of fields, in whatever order they are."""
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())


def manifest_fields(text: bytes) -> Mapping[str, Any]:
    """Return what a manifest's file holds, of any format. Raises ValueError if it is damaged."""
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{MANIFEST} is damaged: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{MANIFEST} is damaged: it is no object")  # noqa: TRY004 - bytes, not a type
    return fields


def folder_name(step: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"{_PREFIX}{step:08d}"


def steps_among(names: Iterable[str]) -> list[int]:
    """Return the steps of the checkpoints whose folders are among ``names``, lowest first."""
    numbers = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
    return sorted(int(number) for number in numbers if number.isdecimal())
