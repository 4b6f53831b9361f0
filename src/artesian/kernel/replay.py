"""State = replay(journal)."""

from collections.abc import Iterable

from artesian.kernel.state import Record, State


def replay(records: Iterable[Record], state: State | None = None) -> State:
    """Return the state after ``records``, going on from ``state`` (changed in place) if there is one.

    Plans are taken from the records, not made again: replay needs no policy, and gives the same
    state under a version whose policies would decide differently.
    """
    state = state if state is not None else State()
    for record in records:
        state.apply(record)
    return state
