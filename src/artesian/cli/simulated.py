"""What ``artesian simulate`` prints: tables of policies, of teams, of moves."""

from dataclasses import dataclass

from rich.table import Table

from artesian.kernel.lifecycle import JobRecord
from artesian.model.fleet import Fleet
from artesian.model.units import format_duration
from artesian.policy.moves import Move
from artesian.sim.report import Report, Summary
from artesian.sim.traces import Trace

_SHOWN_MOVES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy made of the jobs."""

    policy: str
    figures: Report
    records: tuple[JobRecord, ...]
    """Of the jobs, where a page is to show who ran where."""
    moves: list[Move]


def policies(trace: Trace, fleet: Fleet, outcomes: list[Outcome]) -> Table:
    """Return the figures of all policies, side by side."""
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title=f"simulated: {len(trace.jobs):,} jobs on {fleet.devices:,} devices of {len(fleet.nodes):,} nodes",
        title_justify="left",
    )
    has_deadlines = any(outcome.figures.deadlines is not None for outcome in outcomes)
    for name in (
        "policy",
        "mean JCT",
        "median",
        "p99",
        "mean wait",
        "p99 wait",
        "makespan",
        "allocated",
        "stranded",
        "preemptions",
        "ρ mean",
        "unstarted",
        *(["missed"] if has_deadlines else []),
    ):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for outcome in outcomes:
        figures = outcome.figures
        ratio = figures.finish_time_ratio
        table.add_row(
            outcome.policy,
            *_times(figures.jct, "mean_s", "median_s", "p99_s"),
            *_times(figures.wait, "mean_s", "p99_s"),
            _time(figures.makespan_s),
            _share(figures.allocated_share),
            _share(figures.stranded_share),
            f"{figures.preemptions:,}",
            "unknown" if ratio is None else f"{ratio.mean:.2f}",
            str(len(figures.unstarted)),
            *([_missed(figures)] if has_deadlines else []),
        )
    return table


def _missed(figures: Report) -> str:
    deadlines = figures.deadlines
    return "" if deadlines is None else f"{deadlines.missed:,} of {deadlines.jobs:,}"


def moves(outcomes: list[Outcome], *, is_dry: bool) -> Table:
    """Return how many moves there were under each policy and whom they let start, and the first of them."""
    title = "moves that would have let a waiting job start" if is_dry else "moves"
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for name in ("policy", "at", "job", "from", "to", "device-hours", "lets start"):
        table.add_column(name, justify="right" if name in ("at", "device-hours") else "left")
    for outcome in outcomes:
        made = outcome.moves
        let_start = len({move.lets_start for move in made if move.lets_start is not None})
        cost = sum(move.cost_device_s for move in made)
        table.add_row(
            outcome.policy, "", f"{len(made):,} moves", "", "", f"{cost / 3600:,.2f}", f"{let_start:,} jobs"
        )
        for move in made[:_SHOWN_MOVES]:
            row = (move.job_id, str(move.now), str(move.to), f"{move.cost_device_s / 3600:,.2f}")
            table.add_row("", format_duration(move.at_s), *row, move.lets_start or "(grows)")
        if len(made) > _SHOWN_MOVES:
            table.add_row("", "", f"and {len(made) - _SHOWN_MOVES:,} more: -o json has all", "", "", "", "")
    return table


def teams(outcomes: list[Outcome]) -> Table:
    """Return what teams had of what they are entitled to."""
    table = Table(box=None, pad_edge=False, header_style="bold", title="teams", title_justify="left")
    for name in ("policy", "team", "device-hours", "borrowed", "of what it was guaranteed"):
        table.add_column(name, justify="left" if name in ("policy", "team") else "right")
    for outcome in outcomes:
        for name, team in (outcome.figures.teams or {}).items():
            table.add_row(
                outcome.policy,
                name,
                f"{team.used_device_s / 3600:,.1f}",
                f"{team.borrowed_device_s / 3600:,.1f}",
                "–" if team.satisfaction is None else f"{team.satisfaction:.1%}",
            )
    return table


def _times(summary: Summary | None, *names: str) -> list[str]:
    return [_time(None if summary is None else getattr(summary, name)) for name in names]


def _share(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else format_duration(seconds)
