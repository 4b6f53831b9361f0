"""How often a gang may be formed anew, counted by what that is for.

A failure uses up a restart. That a worker was slow is no failure: the script has asked for another in its place, and
a detector that errs is held up by a limit of its own. Nodes that come, and are taken in, count as neither.
"""

from dataclasses import dataclass

from artesian.train.recovery import CAUSES, Failure

MAX_REPLACEMENTS = 3
"""How often stragglers are replaced where nobody says otherwise."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """What a gang may still do, and has done. ``restart_on`` are the causes that a restart is for."""

    max_restarts: int
    max_replacements: int = MAX_REPLACEMENTS
    restart_on: frozenset[str] = frozenset(CAUSES)
    restarts: int = 0
    replacements: int = 0

    @property
    def has_restarts(self) -> bool:
        """Whether another failure may be got over."""
        return self.restarts < self.max_restarts

    @property
    def why_no_replacement(self) -> str | None:
        """Say why a straggler is left to its work; None where it may be replaced."""
        if self.max_restarts == 0:
            return "nothing is started anew without --max-restarts"
        if self.replacements >= self.max_replacements:
            return f"the {self.max_replacements} of --max-replacements are used up"
        return None

    def covers(self, cause: Failure) -> bool:
        """Return whether the gang may go on after ``cause``; a straggler is gone only where it may be replaced."""
        if cause.is_straggler:
            return True
        is_meant = cause.rank < 0 or cause.cause in self.restart_on
        return is_meant and cause.is_worth_a_restart and self.has_restarts

    def spend(self, cause: Failure) -> str:
        """Count what follows ``cause``, and return it in words."""
        if cause.is_straggler:
            self.replacements += 1
            return f"replacement {self.replacements} of {self.max_replacements}"
        self.restarts += 1
        return f"restart {self.restarts} of {self.max_restarts}"
