"""Records as bytes: a type's name and a JSON object.

The names are a format on disk: a class may move, but neither it nor its fields may be renamed without
a migration. A field that this version does not know is ignored; a record type that it does not know is
refused, for what it would have changed cannot be guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from artesian.model.events import EVENT_TYPES
from artesian.model.plan import Plan
from artesian.store.errors import UnstorableRecord

if TYPE_CHECKING:  # kernel.state brings numpy, which a command that only appends has no use for
    from artesian.kernel.state import Record

RECORD_TYPES: dict[str, type[Record]] = {cls.__name__: cls for cls in (*EVENT_TYPES, Plan)}

# Sorted sets and mappings: the same record is the same bytes in every process.
_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODERS: dict[str, msgspec.json.Decoder[Record]] = {
    name: msgspec.json.Decoder(cls) for name, cls in RECORD_TYPES.items()
}


MOST_BYTES = 2**20
"""The largest body of what a user asks for. A job is a description: what it works on lies in files."""

# What the engine reports and the scheduler decides has no limit: refusing it would stop everything.
_BY_USERS = frozenset({"JobSubmitted", "CancelRequested", "ResizeRequested"})


class UnknownRecord(Exception):  # noqa: N818 - reads as what it is
    """The bytes are no record of this version. The caller knows the position, and says it."""


def encode(record: Record) -> tuple[str, bytes]:
    """Return the record's type name and body.

    Raises UnstorableRecord when ``decode`` would not give the same record back (an infinite number, a
    string that is no Unicode, a list where a tuple belongs): better no record than one that is
    acknowledged and cannot be read. Also when a user's record is larger than ``MOST_BYTES``.
    """
    name = type(record).__name__
    try:
        body = _ENCODER.encode(record)
        is_faithful = _DECODERS[name].decode(body) == record
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnstorableRecord(
            f"record {name} cannot be stored: {type(error).__name__}: {error}", hint=_HINT
        ) from error
    if not is_faithful:
        raise UnstorableRecord(
            f"record {name} cannot be stored: it would be read back as something else: {record!r}", hint=_HINT
        )
    if len(body) > MOST_BYTES and name in _BY_USERS:
        raise UnstorableRecord(
            f"record {name} is too large: expected at most {MOST_BYTES} bytes, got {len(body)}",
            hint="put large inputs into files, and name them in the command or the environment",
        )
    return name, body


_HINT = "numbers must be finite, texts Unicode, and fields of the types that the record's class declares"


def decode(name: str, body: bytes) -> Record:
    """Return the record. Raises UnknownRecord when its type or its content is none that this version knows."""
    try:
        return _DECODERS[name].decode(body)
    except KeyError:
        known = ", ".join(sorted(RECORD_TYPES))
        raise UnknownRecord(f"its type is {name}, known are {known}") from None
    except ValueError as error:
        raise UnknownRecord(f"it is no {name} that this version knows: {error}") from error
