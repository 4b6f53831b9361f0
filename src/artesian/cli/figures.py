"""What a comparison of policies shows of each: the columns that the table and the page share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from artesian.kernel.lifecycle import JobRecord
from artesian.model.units import format_duration
from artesian.policy.moves import Move
from artesian.sim.report import Report, Spread, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy made of the jobs. ``records`` are theirs, where a page is to show who ran where."""

    policy: str
    figures: Report
    records: Sequence[JobRecord] = ()
    moves: list[Move] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Column:
    """A figure: what it is called, where it is (None: unknown), and how it is written.

    ``is_more_better``: the largest is the best one, else the smallest. ``is_for_page``: a terminal has no room for it.
    """

    name: str
    of: Callable[[Report], float | None]
    written: Callable[[float], str]
    is_more_better: bool = False
    is_for_page: bool = False

    def text(self, figures: Report) -> str:
        """Return the figure as it is written."""
        value = self.of(figures)
        return "unknown" if value is None else self.written(value)


def figure(summary: Summary | Spread | None, name: str) -> float | None:
    """Return one figure of a summary; None where there is no summary."""
    found: float | None = None if summary is None else getattr(summary, name)
    return found


def _share(share: float) -> str:
    return f"{share:.1%}"


def _count(count: float) -> str:
    return f"{count:,.0f}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}"


COLUMNS = (
    Column("mean JCT", lambda of: figure(of.jct, "mean_s"), format_duration),
    Column("median", lambda of: figure(of.jct, "median_s"), format_duration),
    Column("p99", lambda of: figure(of.jct, "p99_s"), format_duration),
    Column("mean wait", lambda of: figure(of.wait, "mean_s"), format_duration),
    Column("p99 wait", lambda of: figure(of.wait, "p99_s"), format_duration),
    Column("makespan", lambda of: of.makespan_s, format_duration),
    Column("allocated", lambda of: of.allocated_share, _share, is_more_better=True),
    Column("stranded", lambda of: of.stranded_share, _share),
    Column("preemptions", lambda of: of.preemptions, _count),
    Column("ρ mean", lambda of: figure(of.finish_time_ratio, "mean"), _ratio),
    Column("ρ p99", lambda of: figure(of.finish_time_ratio, "p99"), _ratio, is_for_page=True),
    Column("unstarted", lambda of: len(of.unstarted), _count),
)
"""JCT: from submission to end. ρ: how much later than on the job's own part of the fleet."""


def best_of(column: Column, figures: Sequence[Report]) -> float | None:
    """Return the best figure of the column; None where all are the same, or none is known."""
    known = [column.of(one) for one in figures]
    told = [value for value in known if value is not None]
    if not told or len(set(known)) == 1:
        return None
    return max(told) if column.is_more_better else min(told)
