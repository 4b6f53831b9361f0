"""When the devices that are held come free, as the estimates of those who hold them say."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


def view(array: Any) -> Any:  # that its items may be floats, memoryview's type does not tell
    """Return a view through which single figures are read and written several times faster than through numpy."""
    return memoryview(array)


class Ends:
    """From when and until when each device [N, D] is held: the last of its holders counts.

    A holder that has outlived its estimate is taken to need as long again, and again: a guess that is never in the
    past, and never far off for long. Which of these ends lie ahead is kept from one question to the next: time goes on,
    and few are outlived at a time.
    """

    def __init__(self, is_there: BoolArray) -> None:
        """Start with all free where ``is_there`` [N, D] has a device; one that is not there never comes free."""
        self._since_s: FloatArray = np.full(is_there.shape, -np.inf)
        self._first_s: FloatArray = np.where(is_there, -np.inf, np.inf)
        self._expected_s: FloatArray = self._first_s.copy()
        self._at_s = self._outlived_s = -math.inf
        self._look_into()

    def _look_into(self) -> None:
        self._since, self._first = view(self._since_s), view(self._first_s)
        self._expected = view(self._expected_s)

    def copy(self) -> "Ends":
        """Return a copy of its own."""
        twin = object.__new__(Ends)
        twin._since_s, twin._first_s = self._since_s.copy(), self._first_s.copy()
        twin._expected_s = self._expected_s.copy()
        twin._at_s, twin._outlived_s = self._at_s, self._outlived_s
        twin._look_into()
        return twin

    def of(self, row: int, device: int) -> tuple[float, float]:
        """Return since when and until when, by the estimates, a device is held: what ``put`` puts back."""
        return self._since[row, device], self._first[row, device]

    def put(self, row: int, device: int, since_s: float, end_s: float) -> None:
        """Have a device held from ``since_s`` until ``end_s``: -inf where it is free, inf where nobody can tell."""
        self._since[row, device] = since_s
        self._first[row, device] = self._expected[row, device] = end_s
        if end_s < self._outlived_s:
            self._outlived_s = end_s

    def extend(self, row: int, device: int, since_s: float, end_s: float) -> None:
        """Have one more hold the device, from ``since_s`` until ``end_s``."""
        self.put(row, device, since_s, max(end_s, self._first[row, device]))

    def clear(self, row: int, device: int) -> None:
        """Have a device free."""
        self._first[row, device] = self._expected[row, device] = -math.inf

    def expected_s(self, at_s: float) -> FloatArray:
        """Return when each device [N, D] comes free, as seen at ``at_s``; -inf where it is. Not to be changed."""
        if at_s < self._at_s:  # nobody asks in this order but those who look around
            self._expected_s[:] = self._first_s
            self._outlived_s = -math.inf
        self._at_s = at_s
        if at_s >= self._outlived_s:
            self._outlive(at_s)
        return self._expected_s

    def _outlive(self, at_s: float) -> None:
        """Put off what has been outlived by ``at_s``, and find out what is next."""
        ends_s = self._expected_s.ravel()  # the same figures: a view
        late = (ends_s <= at_s).nonzero()[0]
        late = late[ends_s[late] > -np.inf]  # the others are free
        for number in late.tolist():  # a device or two, and mostly none: it was given back before
            row, device = divmod(number, self._expected_s.shape[1])
            self._expected[row, device] = _next_s(self._since[row, device], self._first[row, device], at_s)
        self._outlived_s = float(np.minimum.reduce(ends_s[ends_s > at_s], initial=math.inf))


def expected_end_s(since_s: float, estimate_s: float | None, at_s: float) -> float:
    """Return when what began then is likely to be over, as seen at ``at_s``; infinity without an estimate."""
    if estimate_s is None:
        return math.inf
    end_s = since_s + estimate_s
    return end_s if end_s > at_s else _next_s(since_s, end_s, at_s)


def _next_s(since_s: float, end_s: float, at_s: float) -> float:
    """Return the first time after ``at_s`` that is the estimate, doubled often enough, after ``since_s``."""
    estimate_s = max(end_s - since_s, 1e-9)
    # The least number that reaches beyond now; a quotient is rounded, and may be one off.
    doublings = math.frexp((at_s - since_s) / estimate_s)[1]
    if since_s + math.ldexp(estimate_s, doublings - 1) > at_s:
        doublings -= 1
    if since_s + math.ldexp(estimate_s, doublings) <= at_s:
        doublings += 1
    return since_s + math.ldexp(estimate_s, doublings)
