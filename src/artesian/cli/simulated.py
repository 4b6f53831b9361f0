"""What ``artesian simulate`` prints: tables of policies, of teams, of moves."""

from rich.table import Table

from artesian.cli.figures import COLUMNS, Outcome
from artesian.model.fleet import Fleet
from artesian.model.units import format_duration
from artesian.sim.report import Report
from artesian.sim.traces import Trace

_SHOWN_MOVES = 10


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
    has_notices = any(outcome.figures.noticed for outcome in outcomes)
    shown = [column for column in COLUMNS if not column.is_for_page]
    names = [column.name for column in shown]
    more = [*(["missed"] if has_deadlines else []), *(["noticed"] if has_notices else [])]
    for name in ("policy", *names, *more):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for outcome in outcomes:
        missed = [_missed(outcome.figures)] if has_deadlines else []
        noticed = [_noticed(outcome.figures)] if has_notices else []
        table.add_row(outcome.policy, *(column.text(outcome.figures) for column in shown), *missed, *noticed)
    return table


def _missed(figures: Report) -> str:
    deadlines = figures.deadlines
    return "" if deadlines is None else f"{deadlines.missed:,} of {deadlines.jobs:,}"


def _noticed(figures: Report) -> str:
    return f"{figures.noticed:,} of {figures.cycles:,}"


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
            outcome.policy, "", f"{len(made):,} in all", "", "", f"{cost / 3600:,.2f}", f"{let_start:,} jobs"
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
