"""All that the dashboard says by itself, in English and Chinese. What it passes on is in the ``phrasebook``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from artesian.server.ui.wording import TABLE

Language = Literal["en", "zh"]
LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "中文"}
"""Each by its own name."""
_CODES: Mapping[str, Language] = {code: code for code in LANGUAGES}
LOCALES: Mapping[Language, str] = {"en": "en", "zh": "zh-CN"}


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts in one language: ``texts("for_s", duration="3m")``."""

    language: Language

    def __call__(self, key: str, **values: object) -> str:
        """Return the text with the values in it."""
        found = TABLE[key][0 if self.language == "en" else 1]
        return found.format(**values) if values else found


def language_of(chosen: str | None, accepted: str | None) -> Language:
    """Return the language that was chosen, else the first one that the browser accepts and we have, else English."""
    if (known := _CODES.get(chosen or "")) is not None:
        return known
    ranked: list[tuple[float, int, Language]] = []
    for place, part in enumerate((accepted or "").split(",")):
        name, _, weight = part.strip().lower().partition(";q=")
        if (code := _CODES.get(name.partition("-")[0])) is not None:
            ranked.append((-_weight(weight), place, code))
    return min(ranked)[2] if ranked else "en"


def _weight(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 0.0
