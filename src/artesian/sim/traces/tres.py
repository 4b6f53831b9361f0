"""Slurm's trackable resources as text: ``billing=8,cpu=8,gres/gpu:a100=4,gres/gpu=4,mem=64G,node=1``."""

import re

from msgspec import Struct

from artesian.model.fields import MAX_COUNT, MAX_SIZE_BYTES

_GPU = "gres/gpu"
_COUNT = re.compile(r"[0-9]{1,7}")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMGTP]?)")
_UNITS = {"": 2**20, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
"""Slurm counts memory in mebibytes where it names no unit, and by powers of 1024."""


class NoTres(ValueError):  # noqa: N818 - caught by whoever knows the row
    """The text is no list of resources. ``str`` says which part of it, in words that name no value."""


class Tres(Struct, frozen=True, kw_only=True, gc=False):
    """``devices`` GPUs of ``type`` (None: not said), with CPUs and memory of the host shared out over them."""

    devices: int
    type: str | None = None
    is_mixed: bool = False
    cpus_per_device: float | None = None
    memory_bytes_per_device: int | None = None


def parse_tres(text: str) -> Tres:
    """Return what ``text`` asks for; 0 devices where it names no GPU. Raises NoTres."""
    total: int | None = None
    types: dict[str, int] = {}
    cpus: int | None = None
    memory_bytes: int | None = None
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise NoTres("each is name=amount")
        if name == _GPU:
            total = _count(value)
        elif name.startswith(f"{_GPU}:") and len(name) > len(_GPU) + 1:
            kind = name.removeprefix(f"{_GPU}:")
            types[kind] = types.get(kind, 0) + _count(value)
        elif name == "cpu":
            cpus = _count(value)
        elif name == "mem":
            memory_bytes = _size_bytes(value)
    types = {kind: count for kind, count in types.items() if count}
    devices = sum(types.values()) if total is None else total
    if len(types) > 1 or not devices:
        return Tres(devices=devices, is_mixed=len(types) > 1)
    return Tres(
        devices=devices,
        type=next(iter(types), None),
        cpus_per_device=None if not cpus else max(0.001, cpus / devices),
        memory_bytes_per_device=None if not memory_bytes else max(1, memory_bytes // devices),
    )


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text) or int(text) > MAX_COUNT:
        raise NoTres(f"a count is a whole number up to {MAX_COUNT}")
    return int(text)


def _size_bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or float(match[1]) * _UNITS[match[2]] > MAX_SIZE_BYTES:
        raise NoTres("memory is a number with K, M, G, T or P, up to 1024P")
    return round(float(match[1]) * _UNITS[match[2]])
