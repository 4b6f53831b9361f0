"""Linear programs on HiGHS, from arrays. Needs the extra ``solver``; nothing imports it before one is solved."""

from typing import Any

import numpy as np
import numpy.typing as npt

from artesian.model.errors import ArtesianError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class SolverMissing(ArtesianError, ImportError):  # noqa: N818 - reads as what it is
    """A policy needs the solver, and it is not installed."""


class SolverFailed(ArtesianError):  # noqa: N818 - reads as what it is
    """The solver came to no optimum, or was given up."""


def most_iterations(rows: int, columns: int) -> int:
    """Return after how many iterations of the simplex method a program is given up.

    A number, and no time: how far a solver comes in a second is another on each machine, and decisions are to be
    the same on all. The programs of policies took at most 0.65 per row and column, with up to 1,000 jobs on 6 kinds.
    """
    return 1000 + 4 * (rows + columns)


class LinearProgram:
    """Maximise ``gain`` [C] · x subject to ``row_lower`` <= A x <= ``row_upper`` [R] and 0 <= x <= ``upper`` [C].

    A has ``value`` [E] at ``row``, ``column`` [E]. It may be changed and solved again, from where the last
    solution was. The same calls give the same numbers: one thread, one seed, the simplex method, and an end to it
    after ``most_iterations``.

    Raises SolverMissing without highspy, and SolverFailed where the solver takes no such numbers.
    """

    def __init__(
        self,
        *,
        gain: FloatArray,
        upper: FloatArray,
        row_lower: FloatArray,
        row_upper: FloatArray,
        row: IntArray,
        column: IntArray,
        value: FloatArray,
    ) -> None:
        self._highs, highspy = _silent_highs()
        self._error = highspy.HighsStatus.kError
        self._most = most_iterations(len(row_lower), len(gain))
        self._highs.setOptionValue("simplex_iteration_limit", self._most)
        _see_numbers(gain, value)
        order = np.lexsort((row, column))
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = len(gain), len(row_lower)
        program.sense_ = highspy.ObjSense.kMaximize
        program.col_cost_ = gain
        program.col_lower_, program.col_upper_ = np.zeros(len(gain)), upper
        program.row_lower_, program.row_upper_ = row_lower, row_upper
        matrix = program.a_matrix_
        matrix.format_ = highspy.MatrixFormat.kColwise
        matrix.start_ = np.concatenate([[0], np.cumsum(np.bincount(column, minlength=len(gain)))])
        matrix.index_, matrix.value_ = row[order], value[order]
        self._take(self._highs.passModel(program))

    def solve(self) -> FloatArray:
        """Return the best x [C]. Raises SolverFailed where there is none."""
        self._highs.run()
        status = self._highs.getModelStatus()
        if status.name != "kOptimal":
            after = f" after {self._most} iterations" if status.name == "kIterationLimit" else ""
            raise SolverFailed(
                f"the solver found no optimum{after}: {self._highs.modelStatusToString(status)}",
                hint="this should not happen; please report it, with the fleet and the jobs",
            )
        found = np.array(self._highs.getSolution().col_value, dtype=np.float64)
        if not np.isfinite(found).all():
            raise SolverFailed("the solver found an optimum that is no number")
        return found

    def prices(self) -> FloatArray:
        """Return how much each row [R] holds the optimum back: what a unit more room in it would gain."""
        return np.abs(np.array(self._highs.getSolution().row_dual, dtype=np.float64))

    def set_row(self, row: int, *, lower: float, upper: float = np.inf) -> None:
        """Give a row other bounds. Raises SolverFailed where the solver does not take them."""
        self._take(self._highs.changeRowBounds(row, lower, upper))

    def set_value(self, row: int, column: int, value: float) -> None:
        """Change one number of A. Raises SolverFailed where the solver does not take it."""
        _see_numbers(value)
        self._take(self._highs.changeCoeff(row, column, value))

    def _take(self, status: Any) -> None:
        # It would go on with the numbers that it had before.
        if status == self._error:
            raise SolverFailed("the solver does not take a number of the program: it is too large")


def _see_numbers(*found: FloatArray | float) -> None:
    # Some of its calls take what is no number, and what comes of it depends on where it stands.
    if not all(np.isfinite(each).all() for each in found):
        raise SolverFailed("the solver does not take a number of the program: it is none")


def _silent_highs() -> tuple[Any, Any]:
    try:
        import highspy
    except ImportError as error:
        raise SolverMissing(
            "this policy solves linear programs with highspy, which is not installed",
            hint="pip install 'artesian[solver]', or choose a policy that needs no solver, such as fifo",
        ) from error

    class Silent(highspy.Highs):
        """HiGHS prints a banner on stdout as soon as it has callbacks, before one could turn it off."""

        def enableCallbacks(self) -> None:  # noqa: N802 - theirs
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()  # type: ignore[no-untyped-call]

    highs = Silent()  # type: ignore[no-untyped-call]
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("random_seed", 0)
    highs.setOptionValue("solver", "simplex")
    return highs, highspy
