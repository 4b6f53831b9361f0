"""An engine's table of ``artesian.toml``, read key by key with errors that name the key."""

import difflib
from collections.abc import Mapping
from typing import Any, NoReturn

from artesian.model.errors import ArtesianError


class OptionsError(ArtesianError, ValueError):
    """A table that says what an engine cannot be told."""


class Options:
    """Reads a table. Ask for every key that there may be, then call ``end``; all raise OptionsError."""

    def __init__(self, table: Mapping[str, Any], what: str) -> None:
        self._table = {key: value for key, value in table.items() if key != "kind"}
        self._what = what
        self._asked: set[str] = set()

    def text(self, key: str) -> str | None:
        """Return a string; None where the key is not there."""
        value = self._value(key)
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            self.refuse(key, "a text in quotes", f'{key} = "..."')
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; empty where the key is not there."""
        value = self._value(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(
            isinstance(word, str) and "\0" not in word for word in value
        ):
            self.refuse(key, "a list of texts", f'{key} = ["...", "..."]')
        return tuple(value)

    def mapping(self, key: str) -> dict[str, str]:
        """Return a table of strings; empty where the key is not there."""
        value = self._value(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
            self.refuse(key, "a table of texts", f'{key} = {{ a = "..." }}')
        return dict(value)

    def seconds(self, key: str, default_s: float, *, at_least: float) -> float:
        """Return a number of seconds."""
        value = self._value(key)
        if value is None:
            return default_s
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not at_least <= value < float("inf"):
            self.refuse(key, f"a number of seconds, at least {at_least:g}", f"{key} = {default_s:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return a truth value; False where the key is not there."""
        value = self._value(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "true or false", f"{key} = true")
        return bool(value)

    def refuse(self, key: str, expected: str, example: str | None) -> NoReturn:
        """Raise OptionsError about a key."""
        hint = f"such as: {example}" if example else None
        raise OptionsError(f"{key}: expected {expected}, got {self._table[key]!r}", hint=hint)

    def end(self) -> None:
        """Raise OptionsError where the table has keys that nobody asked for."""
        for key in self._table:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(self._asked))}"
                raise OptionsError(f"{key} is no key of {self._what}", hint=hint)

    def _value(self, key: str) -> Any:
        self._asked.add(key)
        return self._table.get(key)
