"""``artesian moves``."""

import click

from artesian.cli.output import output_option, plain, print_columns, print_json
from artesian.cli.state import control_plane
from artesian.model.units import format_duration
from artesian.model.views import MovesView, MoveView

_STANDINGS = {
    "under_way": "under way",
    "next_cycle": "in the next cycle",
    "possible": "possible now",
    "held_back": "held back",
}


@click.command()
@output_option
def moves(output: str) -> None:
    """List the running jobs that could go on elsewhere, or with fewer devices, so that waiting jobs start.

    A dry run of defragmentation on the fleet as it is now: nobody is moved by asking. Only jobs that save their
    state are asked to move, and each loses what it did since its last checkpoint. A policy that moves jobs by itself
    has decided on what is under way; under any other, the list is what moving would give.
    """
    with control_plane() as plane:
        found = plane.moves()
    if output == "json":
        print_json(plain(found))
        return
    if found.moves:
        names = ("job", "from", "to", "work lost", "device-hours", "lets start", "on", "when")
        print_columns(names, list(map(_row, found.moves)), right=("work lost", "device-hours"))
    click.echo(_summary(found), err=True)


def _row(move: MoveView) -> tuple[str, ...]:
    when = _STANDINGS.get(move.standing, move.standing)
    return (
        move.job,
        move.now,
        move.to,
        format_duration(move.lost_s),
        f"{move.lost_device_s / 3600:,.3f}",
        move.lets_start,
        move.starts_on or "",
        f"{when}: {move.held_back_by}" if move.held_back_by else when,
    )


def _summary(found: MovesView) -> str:
    by_itself = (
        "the policy in force moves jobs by itself"
        if found.by_itself
        else "the policy in force moves no running job; priority, deadline, fair-share and least-attained do"
    )
    starters = {move.lets_start for move in found.moves}
    if not starters:
        return f"no move would let a waiting job start; {by_itself}"
    cost = sum(move.cost_device_s for move in found.moves) / 3600
    what = f"{_count(len(found.moves), 'move')} would let {_count(len(starters), 'waiting job')} start"
    return f"{what}, at a cost of {cost:,.3f} device-hours with their restarts; {by_itself}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
