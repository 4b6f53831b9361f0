"""Who pays: teams and what they are guaranteed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A team's guaranteed devices, and how many more it may borrow (None: without limit)."""

    guaranteed_devices: int
    borrow_limit_devices: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team, its parent in the hierarchy, and its quota (None: whatever is left)."""

    name: str
    parent: str | None = None
    quota: Quota | None = None
