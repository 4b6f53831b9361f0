"""Fields of a document: from nodes to numbers, words, durations and sizes, with every mistake kept.

A converter is a function of a node and its subject (``retry.limit``) that returns a value or raises
``Mistaken``. A Reader runs converters and keeps the mistakes, so that one reading finds them all.
"""

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable
from enum import Enum
from typing import NoReturn, TypeVar

from artesian.model.document import List, Mapping, Mistake, Node, Position, Scalar, describe
from artesian.model.errors import UnitError
from artesian.model.units import parse_duration_s, parse_size_bytes

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound=Enum)
Converter = Callable[[Node, str], T]

MAX_COUNT = 10**6
"""Most devices, workers or CPUs that a file may name; a larger number is a slip of the finger."""
MAX_DURATION_S = 100 * 365 * 86400.0
MAX_SIZE_BYTES = 2**60

_LONGEST = 400
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})")


class Mistaken(Exception):  # noqa: N818 - what a converter says of a node, caught by the Reader
    """A node is not what its key asks for. ``mistake`` is None when it was noted before."""

    def __init__(self, mistake: Mistake | None) -> None:
        super().__init__(mistake)
        self.mistake = mistake


def refuse(node: Node, subject: str, text: str, hint: str | None = None) -> NoReturn:
    """Raise Mistaken about ``node``."""
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    raise Mistaken(Mistake(at=node.at, subject=subject, text=text, hint=hint))


def refuse_type(node: Node, subject: str, expected: str, hint: str | None = None) -> NoReturn:
    """Raise Mistaken: ``expected`` was expected, and ``node`` came. A Broken node is not named again."""
    if not isinstance(node, Scalar | List | Mapping):
        raise Mistaken(None)
    if isinstance(node, Scalar) and node.is_null:
        hint = "give it a value, or leave the key out"
    refuse(node, subject, f"expected {expected}, got {describe(node)}", hint)


# -- converters ---------------------------------------------------------------------------------------


def scalar(node: Node, subject: str, expected: str, hint: str | None = None) -> str:
    """Return the text of a scalar that is not null. Raises Mistaken for anything else."""
    if not isinstance(node, Scalar) or node.is_null:
        refuse_type(node, subject, expected, hint)
    return node.text


def word(node: Node, subject: str) -> str:
    """Return a text that is not blank."""
    text = scalar(node, subject, "a text")
    if not text.strip():
        refuse_type(node, subject, "a text")
    return text


def yes_or_no(node: Node, subject: str) -> bool:
    """Return whether a scalar says ``true``; it may say ``false``."""
    text = scalar(node, subject, "true or false")
    if text not in ("true", "false"):
        refuse_type(node, subject, "true or false")
    return text == "true"


def integer(*, least: int, most: int = MAX_COUNT, of: str = "") -> Converter[int]:
    """Return a converter to a whole number from ``least`` to ``most``; ``of`` says what it counts."""
    what = f"a whole number{of} from {least} to {most}"

    def convert(node: Node, subject: str) -> int:
        text = scalar(node, subject, what)
        if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
            refuse_type(node, subject, what)
        return int(text)

    return convert


def number(*, least: float, most: float = MAX_COUNT) -> Converter[float]:
    """Return a converter to a number from ``least`` to ``most``, to thousandths."""
    what = f"a number from {least:g} to {most:g} with at most three decimals"

    def convert(node: Node, subject: str) -> float:
        text = scalar(node, subject, what)
        if not _NUMBER.fullmatch(text) or not least <= float(text) <= most:
            refuse_type(node, subject, what)
        if not math.isclose(float(text), round(float(text), 3), rel_tol=1e-12):
            refuse_type(node, subject, what)
        return float(text)

    return convert


def duration_s(node: Node, subject: str) -> float:
    """Return the seconds of a duration with a unit."""
    what = "a number with a unit, such as 30m or 1h30m"
    text = scalar(node, subject, what)
    key = subject.rpartition(".")[2]
    try:
        value = parse_duration_s(text)
    except UnitError as error:
        bare = _NUMBER.fullmatch(text)
        hint = f"write {key}: {text}s if seconds are meant; {error.hint}" if bare else error.hint
        refuse_type(node, subject, what, hint)
    if value > MAX_DURATION_S:
        refuse_type(node, subject, "at most 100 years")
    return value


def size_bytes(node: Node, subject: str) -> int:
    """Return the bytes of a size with a unit."""
    what = "a number with a unit, such as 80GB or 512MiB"
    text = scalar(node, subject, what)
    key = subject.rpartition(".")[2]
    try:
        value = parse_size_bytes(text)
    except UnitError as error:
        bare = _NUMBER.fullmatch(text)
        hint = f"write {key}: {text}GB if gigabytes are meant; {error.hint}" if bare else error.hint
        refuse_type(node, subject, what, hint)
    except OverflowError:
        value = MAX_SIZE_BYTES + 1
    if not 1 <= value <= MAX_SIZE_BYTES:
        refuse_type(node, subject, "1B to 1024PiB")
    return value


def choice(kind: type[E], among: Iterable[E] | None = None) -> Converter[E]:
    """Return a converter to a member of an enum of texts, or of ``among``."""
    members = {str(member.value): member for member in (kind if among is None else among)}
    what = f"one of {', '.join(members)}"

    def convert(node: Node, subject: str) -> E:
        text = scalar(node, subject, what)
        if text not in members:
            refuse_type(node, subject, what, _nearest(text, members))
        return members[text]

    return convert


def _nearest(text: str, known: Collection[str]) -> str | None:
    near = difflib.get_close_matches(text.lower()[:100], known, n=1)
    return f"did you mean {near[0]}?" if near else None


# -- reading ------------------------------------------------------------------------------------------


class Reader:
    """Runs converters, and keeps every mistake."""

    def __init__(self, mistakes: Iterable[Mistake] = ()) -> None:
        self.mistakes = list(mistakes)

    def note(self, at: Position, subject: str, text: str, hint: str | None = None) -> None:
        """Keep a mistake that is about more than one node."""
        self.mistakes.append(Mistake(at=at, subject=subject, text=text, hint=hint))

    def convert(self, node: Node, subject: str, converter: Converter[T], default: D) -> T | D:
        """Return the converted node, or ``default`` after a mistake."""
        try:
            return converter(node, subject)
        except Mistaken as mistaken:
            if mistaken.mistake is not None:
                self.mistakes.append(mistaken.mistake)
            return default

    def items(self, node: Node, subject: str, converter: Converter[T | None], expected: str) -> tuple[T, ...]:
        """Return the converted items of a list, but for those with a mistake.

        Raises Mistaken when the node is no list; ``expected`` says what the list is of.
        """
        if not isinstance(node, List):
            refuse_type(node, subject, f"a list of {expected}")
        values: list[T] = []
        for index, item in enumerate(node.items):
            value = self.convert(item, f"{subject}[{index}]", converter, None)
            if value is not None:
                values.append(value)
        return tuple(values)

    def entries(self, node: Node, subject: str, expected: str) -> dict[str, tuple[Scalar, Node]]:
        """Return key and value of a mapping by the key's text, duplicates and merge keys noted.

        Raises Mistaken when the node is no mapping; ``expected`` says what the mapping is of.
        """
        if not isinstance(node, Mapping):
            refuse_type(node, subject, f"a mapping of {expected}")
        found: dict[str, tuple[Scalar, Node]] = {}
        for key, value in node.entries:
            if not isinstance(key, Scalar):
                self.convert(key, subject or "file", lambda n, s: refuse_type(n, s, "a word as key"), None)
                continue
            name = path(subject, key.text)
            if key.is_plain and key.text == "<<":
                self.note(key.at, name, "expected a key, got a merge key", "write the keys out")
            elif key.text in found:
                first = found[key.text][0].at.line
                self.note(
                    key.at,
                    name,
                    f"expected each key once, got it in line {first} and again in line {key.at.line}",
                    "remove one of the two",
                )
            else:
                found[key.text] = (key, value)
        return found

    def section(
        self, node: Node, subject: str, *, keys: Collection[str], what: str, example: str
    ) -> "Section":
        """Return the fields of a mapping with the known ``keys``, of ``what`` ("a job").

        ``example`` shows the form. Raises Mistaken when the node is no mapping.
        """
        if not isinstance(node, Mapping):
            refuse_type(node, subject or "file", f"{what}, which is a mapping", f"write it like {example}")
        found = self.entries(node, subject, what)
        for name, (key, _) in found.items():
            if name not in keys:
                near = _nearest(name, keys)
                known = f"known keys: {', '.join(keys)}"
                self.note(
                    key.at,
                    path(subject, name),
                    f"expected a key of {what}, got {describe(key)}",
                    f"{near} {known}" if near else known,
                )
        return Section(self, node.at, subject, found)


class Section:
    """The fields of one mapping."""

    def __init__(
        self, reader: Reader, at: Position, subject: str, found: dict[str, tuple[Scalar, Node]]
    ) -> None:
        self._reader = reader
        self._at = at
        self._subject = subject
        self._found = found

    def has(self, key: str) -> bool:
        """Return whether ``key`` is given, rightly or wrongly."""
        return key in self._found

    def at(self, key: str) -> Position:
        """Return where the value of ``key`` stands; where the mapping starts when it is not given."""
        return self._found[key][1].at if key in self._found else self._at

    def read(self, key: str, converter: Converter[T], default: D) -> T | D:
        """Return the value of ``key``, or ``default`` when it is not given or after a mistake."""
        if key not in self._found:
            return default
        return self._reader.convert(self._found[key][1], path(self._subject, key), converter, default)

    def require(self, key: str, converter: Converter[T | None], example: str) -> T | None:
        """Return the value of ``key``; note a mistake and return None when it is not given."""
        if key not in self._found:
            self._reader.note(
                self._at,
                path(self._subject, key),
                f"expected the key {key}, got none",
                f"add, for example, {example}",
            )
            return None
        return self.read(key, converter, None)


def path(subject: str, key: str) -> str:
    """Return the subject of ``key`` within ``subject``: ``retry.limit``."""
    shown = key if len(key) <= 60 else key[:59] + "…"
    return f"{subject}.{shown}" if subject else shown or "''"
