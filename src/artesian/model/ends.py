"""When the devices that are held come free, as the estimates of those who hold them say."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from artesian.model.placement import NodeShare
from artesian.model.resources import MILLI

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


def view(array: Any) -> Any:  # that its items may be floats, memoryview's type does not tell
    """Return a view through which single figures are read and written several times faster than through numpy."""
    return memoryview(array)


_MANY = 64

_Holders = Mapping[str, tuple[float, float]]
"""From when and until when each of the jobs holds its part of a device; replaced, never changed."""

Times = tuple[int, int, float, float, _Holders | None]
"""Of a row and a device: from when and until when it is held, and by whom where it is shared."""


class Ends:
    """From when and until when each device [N, D] is held: the last of its holders counts.

    Of a device that is shared it is known who holds it for how long, so that it is free as early as those can tell who
    are left; the order in which they came and went does not matter.

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
        self._shared: dict[tuple[int, int], _Holders] = {}
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
        twin._shared = dict(self._shared)
        twin._look_into()
        return twin

    def of(self, row: int, share: NodeShare) -> Iterator[Times]:
        """Yield what is known of each device of a share of the node in this row: what ``put_back`` puts back."""
        since, first, is_shared = self._since, self._first, share.milli < MILLI
        for device in share.devices:
            holders = self._shared.get((row, device)) if is_shared else None
            yield row, device, since[row, device], first[row, device], holders

    def put_back(self, times: Iterable[Times]) -> None:
        """Have devices held as they were: those that are shared now were shared or free then."""
        for row, device, since_s, end_s, holders in times:
            self.put(row, device, since_s, end_s)
            if holders:
                self._shared[row, device] = holders
            elif self._shared:
                self._shared.pop((row, device), None)

    def put(self, row: int, device: int, since_s: float, end_s: float) -> None:
        """Have a device held from ``since_s`` until ``end_s``: -inf where it is free, inf where nobody can tell."""
        self._since[row, device] = since_s
        self._first[row, device] = self._expected[row, device] = end_s
        if end_s < self._outlived_s:
            self._outlived_s = end_s

    def hold(self, row: int, share: NodeShare, job_id: str, since_s: float, end_s: float) -> None:
        """Have the devices of a share of the node in this row held by a job, from ``since_s`` until ``end_s``."""
        if share.milli == MILLI:
            for device in share.devices:
                self.put(row, device, since_s, end_s)
            return
        for device in share.devices:
            self._hold_together(
                row, device, {**self._shared.get((row, device), {}), job_id: (since_s, end_s)}
            )

    def leave(self, row: int, share: NodeShare, job_id: str) -> None:
        """Have a job no longer among those who hold the devices of a share that is less than a device."""
        for device in share.devices:
            holders = self._shared.get((row, device), {})
            if job_id in holders:
                left = {holder: held for holder, held in holders.items() if holder != job_id}
                self._hold_together(row, device, left)

    def _hold_together(self, row: int, device: int, holders: _Holders) -> None:
        if not holders:
            del self._shared[row, device]
            self.clear(row, device)
            return
        self._shared[row, device] = holders
        # Of those who end together the one with the longest estimate: a rule by which their order tells nothing.
        end_s, before_s = max((end_s, -since_s) for since_s, end_s in holders.values())
        self.put(row, device, -before_s, end_s)

    def clear(self, row: int, device: int) -> None:
        """Have a device held by nobody, as far as is known."""
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
        if late.size > _MANY:  # where time has jumped, half a fleet at once
            since_s, first_s = self._since_s.ravel()[late], self._first_s.ravel()[late]
            ends_s[late] = _next_of_many_s(since_s, first_s, at_s)
            late = late[:0]
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


def _next_of_many_s(since_s: FloatArray, end_s: FloatArray, at_s: float) -> FloatArray:
    """Return the same for many, to the last bit."""
    estimate_s = np.maximum(end_s - since_s, 1e-9)
    doublings = np.frexp((at_s - since_s) / estimate_s)[1]
    doublings -= since_s + np.ldexp(estimate_s, doublings - 1) > at_s
    doublings += since_s + np.ldexp(estimate_s, doublings) <= at_s
    next_s: FloatArray = since_s + np.ldexp(estimate_s, doublings)
    return next_s
