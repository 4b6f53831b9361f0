"""Has what the scheduler, the engines and the ledger say read in the reader's language.

Their sentences are English in the journal, in the API and on the command line, and stay as they are there. Here, at
the edge, each is recognised by its pattern in the ``phrasebook`` and said anew with the names and figures in it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from artesian.server.ui.markup import Markup, tag, text
from artesian.server.ui.phrasebook import PHRASES
from artesian.server.ui.texts import Texts
from artesian.server.ui.wording import TABLE

_CLAUSE = "; "
_SORTS: Mapping[str, str] = {
    "word": r"\S+",
    "number": r"-?[\d.]+",
    "time": r"[\d.]+ s|[\ddhms]+",
    "words": r"[^;]+?",
    "list": r"[^;]+?",
    "said": r".+",
}
"""What may stand in a pattern's place, beside another phrase: ``list`` is told with the reader's commas, ``said`` is
anybody's words, in the reader's language where they are a phrase."""
_PLACE = re.compile(r"\{(\w+):(\w+)\}")


def translated(english: str, family: str = "sentence") -> str | None:
    """Return what a sentence says in Chinese; None where it is not in the phrasebook.

    ``family`` is the part of the phrasebook that it is looked for in. Clauses are parted by semicolons.
    """
    for rule in _rules()[family]:
        if (found := rule.said(english)) is not None:
            return found
    # What is not one phrase may be several: each cut is tried, for a name or a list could have a semicolon in it.
    begin = english.find(_CLAUSE)
    while family == "sentence" and begin >= 0:
        head, tail = english[:begin], english[begin + len(_CLAUSE) :]
        if (first := translated(head)) is not None and (rest := translated(tail)) is not None:
            return f"{first}；{rest}"
        begin = english.find(_CLAUSE, begin + 1)
    return None


def in_words(english: str, texts: Texts) -> str:
    """Return a sentence in the reader's language; what is not known there stays English."""
    return english if texts.language == "en" else _as_far_as_known(english)


def phrase(english: str, texts: Texts, family: str = "sentence") -> Markup:
    """Return a sentence in the reader's language; one that is not known there is marked as English."""
    if texts.language == "en":
        return text(english)
    known = translated(english, family)
    if known is not None:
        return text(known)
    clauses = english.split(_CLAUSE)
    if len(clauses) > 1 and any(map(translated, clauses)):
        return Markup("；".join(phrase(clause, texts) for clause in clauses))
    return tag("span", english, lang="en")


@dataclass(frozen=True, slots=True)
class _Rule:
    """A pattern with named places, what stands in each, and what is said instead."""

    pattern: re.Pattern[str]
    sorts: Mapping[str, str]
    chinese: str

    @classmethod
    def of(cls, english: str, chinese: str) -> "_Rule":
        sorts = dict(_PLACE.findall(english))
        pattern = _PLACE.sub(lambda place: f"(?P<{place[1]}>{_shape(place[2])})", english)
        return cls(re.compile(pattern, re.DOTALL), sorts, chinese)

    def said(self, english: str) -> str | None:
        """Return what the sentence says; None where it is another one."""
        found = self.pattern.fullmatch(english)
        if found is None:
            return None
        values = {}
        for name, sort in self.sorts.items():
            value = _value(found[name] or "", sort)
            if value is None:
                return None
            values[name] = value
        return self.chinese.format(**values) if values else self.chinese


def _shape(sort: str, within: tuple[str, ...] = ()) -> str:
    """Return a pattern for what can stand in such a place; a phrase within itself can be anything."""
    if sort in _SORTS:
        return _SORTS[sort]
    if sort in within or sort not in PHRASES or sort == "sentence":
        return ".*?"
    return "|".join(
        _PLACE.sub(lambda place: f"(?:{_shape(place[2], (*within, sort))})", pattern)
        for pattern in PHRASES[sort]
    )


def _value(given: str, sort: str) -> str | None:
    if sort == "list":
        return given.replace(", ", "、")
    if sort == "said":
        return _as_far_as_known(given)
    return given if sort in _SORTS else translated(given, sort)


def _as_far_as_known(english: str) -> str:
    known = translated(english)
    if known is not None:
        return known
    clauses = [(translated(clause), clause) for clause in english.split(_CLAUSE)]
    if not any(found for found, _ in clauses):
        return english
    return "；".join(found or clause for found, clause in clauses)


@cache
def _rules() -> Mapping[str, tuple[_Rule, ...]]:
    """Return the rules of each family, made when the first page in Chinese asks."""
    rules = {family: _compiled(phrases.items()) for family, phrases in PHRASES.items()}
    for kind in ("cause", "state"):
        names = ((key.partition(".")[2], said) for key, said in TABLE.items() if key.startswith(f"{kind}."))
        # The journal's name of a cause, and the one that people are told.
        rules[kind] = _compiled((re.escape(name).replace("_", "[ _]"), zh) for name, (_, zh) in names)
    return rules


def _compiled(phrases: Iterable[tuple[str, str]]) -> tuple[_Rule, ...]:
    return tuple(_Rule.of(english, chinese) for english, chinese in phrases)
