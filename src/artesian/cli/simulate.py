"""``artesian simulate``: what would this policy have made of these jobs?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from artesian.cli.output import output_option, print_json, stderr, stdout
from artesian.cli.waterfall import Duration
from artesian.model.fleet import Fleet
from artesian.model.quota import Teams
from artesian.model.units import format_duration
from artesian.policy import registry as policies
from artesian.policy.base import Policy
from artesian.server.settings import load_teams
from artesian.sim.report import Report, Summary, report
from artesian.sim.run import simulate as run_simulation
from artesian.sim.speeds import throughputs_of
from artesian.sim.traces import Trace, fleet_for_load, read_trace, with_estimates

_TELL_EVERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    policy: str
    figures: Report


@click.command()
@click.option(
    "--jobs",
    "jobs_file",
    required=True,
    type=click.Path(path_type=Path),
    help="File with the jobs: a trace, sacct's output, or our own CSV or YAML.",
)
@click.option(
    "--fleet",
    "fleet_file",
    type=click.Path(path_type=Path),
    help="File with the fleet. Unless given: the one that the trace has.",
)
@click.option(
    "--load",
    type=click.FloatRange(min=0, min_open=True),
    help="Instead of --fleet: nodes of 8 devices, as many as make the jobs this load (0.9: 90%).",
)
@click.option(
    "--policy", "names", default=policies.DEFAULT, show_default=True, help="Policies, separated by commas."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many jobs.")
@click.option(
    "--estimate-error",
    type=click.FloatRange(min=0),
    help="Give every job an estimated duration, off by a log-normal error of this sigma (0: true).",
)
@click.option(
    "--checkpoint-every",
    type=Duration(),
    help="For jobs that do not tell: what a preempted one has to do again at most. 0s: nothing is lost.",
)
@click.option(
    "--teams",
    "teams_file",
    type=click.Path(path_type=Path),
    help="File with [teams.NAME] tables, as in artesian.toml: weights, guarantees, limits.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the errors of the estimates.")
@output_option
def simulate(
    jobs_file: Path,
    fleet_file: Path | None,
    load: float | None,
    names: str,
    limit: int | None,
    estimate_error: float | None,
    checkpoint_every: float | None,
    teams_file: Path | None,
    seed: int,
    output: str,
) -> None:
    """Run jobs on a fleet in virtual time, under one policy or several, by the scheduler that runs live.

    The same input and seed give the same figures. All of them are simulated, and say so.
    """
    if fleet_file is not None and load is not None:
        raise click.UsageError("--fleet and --load are two ways to say what there is: leave one out")
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        policies.policy(name)  # a wrong name is told before the work
    teams = None if teams_file is None else load_teams(teams_file)
    trace = _trace(jobs_file, limit)
    fleet = _fleet(trace, fleet_file, load)
    trace = trace.on(fleet)
    if checkpoint_every is not None:
        trace = trace.with_checkpoints(checkpoint_every)
    if estimate_error is not None:
        trace = with_estimates(trace, error=estimate_error, seed=seed)
    for skipped in trace.skipped:
        click.echo(
            f"skipped {skipped.count} rows: {skipped.reason} (the first is row {skipped.row})", err=True
        )
    for note in trace.notes:
        click.echo(note, err=True)
    outcomes = []
    for name in chosen:
        with _Bar(name, len(trace.jobs)) as tell:
            result = run_simulation(fleet, trace.jobs, _policy(name, trace, teams), progress=tell)
            outcomes.append(_Outcome(policy=name, figures=report(result)))
    if output == "json":
        print_json(_as_json(trace, fleet, outcomes))
    else:
        stdout(is_wide=True).print(_table(trace, fleet, outcomes))


def _policy(name: str, trace: Trace, teams: Teams | None) -> Policy:
    """Return the policy; one for mixed fleets knows the speeds that the trace tells."""
    if name in policies.RANKINGS:
        return policies.in_rounds(name, throughputs_of(trace.jobs))
    return policies.policy(name, teams)


def _trace(path: Path, limit: int | None) -> Trace:
    from artesian.sim.traces import ReadOptions

    trace = read_trace(path, options=ReadOptions())
    if not trace.jobs:
        raise click.UsageError(f"{path} has no jobs to run")
    return trace if limit is None else trace.first(limit)


def _fleet(trace: Trace, path: Path | None, load: float | None) -> Fleet:
    if path is not None:
        found = read_trace(path).fleet
        if found is None:
            raise click.UsageError(f"{path} describes no fleet")
        return found
    if load is not None:
        try:
            return fleet_for_load(trace.jobs, load)
        except ValueError as error:  # jobs that all arrive at once are no load of any size
            raise click.UsageError(f"--load: {error}") from error
    if trace.fleet is None:
        raise click.UsageError(f"{trace.source} does not tell what the jobs ran on: give --fleet or --load")
    return trace.fleet


class _Bar:
    """A progress bar on stderr, of jobs that are over; calls in between cost next to nothing."""

    def __init__(self, name: str, jobs: int) -> None:
        self._progress = Progress(
            TextColumn(f"simulating {name}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} jobs"),
            TimeElapsedColumn(),
            console=stderr(),
            transient=True,
        )
        self._task = self._progress.add_task(name, total=jobs)
        self._told = 0

    def __enter__(self) -> Callable[[int], None]:
        self._progress.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _tell(self, over: int) -> None:
        if over >= self._told + _TELL_EVERY:
            self._told = over
            self._progress.update(self._task, completed=over)


def _as_json(trace: Trace, fleet: Fleet, outcomes: list[_Outcome]) -> dict[str, Any]:
    return {
        "simulated": True,
        "jobs": len(trace.jobs),
        "skipped": trace.skipped_rows,
        "devices": fleet.devices,
        "policies": [{"policy": outcome.policy, **outcome.figures.to_dict()} for outcome in outcomes],
    }


def _table(trace: Trace, fleet: Fleet, outcomes: list[_Outcome]) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title=f"simulated: {len(trace.jobs):,} jobs on {fleet.devices:,} devices of {len(fleet.nodes):,} nodes",
        title_justify="left",
    )
    for name in (
        "policy",
        "mean JCT",
        "median",
        "p99",
        "mean wait",
        "p99 wait",
        "makespan",
        "allocated",
        "unstarted",
    ):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for outcome in outcomes:
        figures = outcome.figures
        share = figures.allocated_share
        table.add_row(
            outcome.policy,
            *_times(figures.jct, "mean_s", "median_s", "p99_s"),
            *_times(figures.wait, "mean_s", "p99_s"),
            _time(figures.makespan_s),
            "unknown" if share is None else f"{share:.1%}",
            str(len(figures.unstarted)),
        )
    return table


def _times(summary: Summary | None, *names: str) -> list[str]:
    return [_time(None if summary is None else getattr(summary, name)) for name in names]


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else format_duration(seconds)
