"""The attempts whose end an engine has reported, as long as anybody may still speak of them."""

_MOST = 4096
"""A driver gives each command once in its life, so that only what is under way as an attempt ends can come late."""


class Ended:
    """The last attempts to end. A command for one of them is not carried out again, nor its end told twice.

    One that ended before them is known by its files: it does not run again either, and its end would be told anew.
    """

    def __init__(self) -> None:
        self._keys: dict[tuple[str, int], None] = {}

    def add(self, key: tuple[str, int]) -> None:
        """Remember an attempt, by its job and epoch; where there are too many the oldest is forgotten."""
        self._keys[key] = None
        if len(self._keys) > _MOST:
            del self._keys[next(iter(self._keys))]

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)
