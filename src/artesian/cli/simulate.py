"""``artesian simulate``: what would this policy have made of these jobs? And, in a command of its own, goodput."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from msgspec import to_builtins
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from artesian.cli import page
from artesian.cli import simulated as tables
from artesian.cli.figures import Outcome
from artesian.cli.goodput import FailureRate, Rate, goodput_command
from artesian.cli.output import output_option, print_json, stderr, stdout
from artesian.cli.waterfall import Duration
from artesian.model.fleet import Fleet
from artesian.model.quota import Teams
from artesian.policy import registry as policies
from artesian.policy.base import Policy
from artesian.server.settings import load_teams
from artesian.sim.faults import NodeFaults
from artesian.sim.moves import moves_dict, watched
from artesian.sim.report import report
from artesian.sim.run import simulate as run_simulation
from artesian.sim.speeds import throughputs_of
from artesian.sim.traces import (
    FORMATS,
    BadRows,
    ReadOptions,
    Trace,
    fleet_for_load,
    read_trace,
    with_estimates,
)
from artesian.sim.traces.azure import Replica

_TELL_EVERY = 500
_REPORTS_EVERY_S = 60.0


class Speeds(click.ParamType[tuple[float, float]]):
    """Two rates in tokens per second, ``9000/600``: read and written."""

    name = "read/write"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Return them."""
        if isinstance(value, tuple):
            return value
        read, _, write = str(value).partition("/")
        try:
            speeds = float(read), float(write)
        except ValueError:
            speeds = (0.0, 0.0)
        if not all(0 < speed < math.inf for speed in speeds):
            self.fail(
                f"expected tokens per second read and written, such as 9000/600, got {value!r}", param, ctx
            )
        return speeds


@click.group(invoke_without_command=True)
@click.option(
    "--jobs",
    "jobs_file",
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
    "--format",
    "format_name",
    type=click.Choice([known.name for known in FORMATS]),
    metavar="NAME",
    help="Format of the file with the jobs. Unless given: what it begins with decides. One of: "
    f"{', '.join(known.name for known in FORMATS)}.",
)
@click.option(
    "--skip-bad-rows",
    is_flag=True,
    help="Leave out rows that cannot be right, and say how many, instead of refusing the file.",
)
@click.option(
    "--replica",
    type=Speeds(),
    help="For a trace of requests: tokens per second that one replica reads and writes, 9000/600.",
)
@click.option(
    "--replica-devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --replica: how many devices it takes.",
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
    "--restart-cost",
    type=Duration(),
    help="For jobs that do not tell: what every start takes before the work goes on.",
)
@click.option(
    "--reports-every",
    type=Duration(),
    help="Running jobs tell so often of checkpoints and steps, as live ones do every minute.",
)
@click.option(
    "--learn-speeds",
    is_flag=True,
    help="Policies for mixed fleets know no speeds in advance, but learn them from what jobs report.",
)
@click.option(
    "--failures",
    type=FailureRate(),
    help="How often a node or a device fails: 3.8e-3/node-day, 0.2/device-year.",
)
@click.option(
    "--repair",
    type=Duration(),
    default="4h",
    show_default=True,
    help="With --failures: how long a node is gone.",
)
@click.option(
    "--dry-run-moves",
    is_flag=True,
    help="Move no running job; list the moves that would have let a waiting job start.",
)
@click.option(
    "--html",
    "page_file",
    type=click.Path(path_type=Path),
    help="Write tables and charts into FILE, a page that needs no network.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Of the errors of the estimates, and of the failures.",
)
@click.option(
    "--teams",
    "teams_file",
    type=click.Path(path_type=Path),
    help="File with [teams.NAME] tables, as in artesian.toml: weights, guarantees, limits.",
)
@output_option
@click.pass_context
def simulate(
    ctx: click.Context,
    jobs_file: Path | None,
    fleet_file: Path | None,
    format_name: str | None,
    skip_bad_rows: bool,
    replica: tuple[float, float] | None,
    replica_devices: int,
    load: float | None,
    names: str,
    limit: int | None,
    estimate_error: float | None,
    checkpoint_every: float | None,
    restart_cost: float | None,
    reports_every: float | None,
    learn_speeds: bool,
    failures: Rate | None,
    repair: float,
    dry_run_moves: bool,
    page_file: Path | None,
    teams_file: Path | None,
    seed: int,
    output: str,
) -> None:
    """Run jobs on a fleet in virtual time, under one policy or several, by the scheduler that runs live.

    The same input and seed give the same figures. All of them are simulated, and say so.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options_before(ctx)
        return
    if jobs_file is None:
        raise click.UsageError("missing option --jobs: the file with the jobs to run")
    if fleet_file is not None and load is not None:
        raise click.UsageError("--fleet and --load are two ways to say what there is: leave one out")
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        policies.policy(name)  # a wrong name is told before the work
    if page_file is not None:
        page.check_path(page_file)
    teams = None if teams_file is None else load_teams(teams_file)
    bad_rows = BadRows.SKIP if skip_bad_rows else BadRows.REFUSE
    options = ReadOptions(bad_rows=bad_rows, replica=_replica(replica, replica_devices))
    trace = _trace(jobs_file, format_name, options, limit)
    fleet = _fleet(trace, fleet_file, load)
    trace = trace.on(fleet)
    if checkpoint_every is not None:
        trace = trace.with_checkpoints(checkpoint_every)
    if restart_cost is not None:
        trace = trace.with_start_up(restart_cost)
    if estimate_error is not None:
        trace = with_estimates(trace, error=estimate_error, seed=seed)
    for skipped in trace.skipped:
        click.echo(str(skipped), err=True)
    for note in trace.notes:
        click.echo(note, err=True)
    if reports_every == 0:
        raise click.UsageError("--reports-every: expected a time above 0")
    if learn_speeds and reports_every is None:
        reports_every = _REPORTS_EVERY_S
    outcomes = []
    for name in chosen:
        with _Bar(name, len(trace.jobs)) as tell:
            faults = None if failures is None else _faults(failures, repair, fleet).events(fleet, seed)
            policy = watched(_policy(name, None if learn_speeds else trace, teams), is_dry=dry_run_moves)
            result = run_simulation(
                fleet,
                trace.jobs,
                policy,
                faults=faults,
                progress=tell,
                keeps_records=False,
                reports_every_s=reports_every,
            )
            records = () if page_file is None else tuple(result.state.jobs.values())
            outcomes.append(
                Outcome(policy=name, figures=report(result, teams), records=records, moves=policy.moves)
            )
    if page_file is not None:
        page.write(page_file, title=jobs_file.name, fleet=fleet, runs=outcomes)
        click.echo(f"wrote {page_file}", err=True)
    for outcome in outcomes:
        if outcome.figures.notice_text is not None:
            click.echo(f"{outcome.policy}: {outcome.figures.notice_text}", err=True)
    if output == "json":
        print_json(_as_json(trace, fleet, outcomes))
    else:
        stdout(is_wide=True).print(tables.policies(trace, fleet, outcomes))
        if any(outcome.figures.teams for outcome in outcomes):
            stdout(is_wide=True).print(tables.teams(outcomes))
        if any(outcome.moves for outcome in outcomes):
            stdout(is_wide=True).print(tables.moves(outcomes, is_dry=dry_run_moves))


simulate.add_command(goodput_command, "goodput")


def _refuse_options_before(ctx: click.Context) -> None:
    """Options of this command say nothing to the one that follows: a user who gives any has meant another."""
    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise click.UsageError(
            f"options before {ctx.invoked_subcommand} are those of simulate itself: give its own after it"
        )


def _faults(rate: Rate, repair_s: float, fleet: Fleet) -> NodeFaults:
    devices = fleet.devices / max(1, len(fleet.nodes)) if rate.per == "device" else 1.0
    try:
        return NodeFaults(per_node_day=rate.per_day * devices, repair_s=repair_s)
    except ValueError as error:
        raise click.UsageError(f"--repair: {error}") from error


def _policy(name: str, trace: Trace | None, teams: Teams | None) -> Policy:
    """Return the policy; one for mixed fleets knows the speeds that the trace tells, if there is one."""
    if trace is not None and name in policies.RANKINGS:
        return policies.in_rounds(name, throughputs_of(trace.jobs), teams=teams)
    return policies.policy(name, teams)


def _replica(speeds: tuple[float, float] | None, devices: int) -> Replica | None:
    if speeds is None:
        return None
    return Replica(prefill_tokens_per_s=speeds[0], decode_tokens_per_s=speeds[1], devices=devices)


def _trace(path: Path, format_name: str | None, options: ReadOptions, limit: int | None) -> Trace:
    trace = read_trace(path, format=format_name, options=options)
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


def _as_json(trace: Trace, fleet: Fleet, outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "simulated": True,
        "jobs": len(trace.jobs),
        "skipped": trace.skipped_rows,
        "skipped_by_reason": [to_builtins(skipped) for skipped in trace.skipped],
        "devices": fleet.devices,
        "policies": [
            {"policy": outcome.policy, "moves": moves_dict(outcome.moves), **outcome.figures.to_dict()}
            for outcome in outcomes
        ],
    }
