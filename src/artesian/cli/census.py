"""``artesian census``."""

import time

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from artesian.census import (
    BenchmarkSettings,
    Census,
    CensusError,
    benchmark,
    discover,
)
from artesian.cli.measured import device_name, measured_rows, measured_table
from artesian.cli.output import Failure, output_option, print_json, stderr, stdout
from artesian.cli.state import embedded
from artesian.model.units import format_duration, format_flops, format_size
from artesian.server.embedded import ControlPlane

_MAX_AGE_S = 7 * 86_400


@click.command()
@click.option("--no-benchmark", is_flag=True, help="Only find the devices; do not measure them.")
@click.option("--cached", is_flag=True, help="Print the latest census instead of taking one.")
@click.option("--engine", metavar="NAME", help="Of all nodes of this engine, instead of this machine.")
@click.option(
    "--nodes",
    metavar="NODE,...",
    default="",
    help="With --engine: of these nodes only, by the engine's names.",
)
@click.option(
    "--wait", is_flag=True, help="With --engine: wait for nodes that are busy; else they are left out."
)
@click.option(
    "--at-once",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    help="With --engine: how many nodes are measured at one time.",
)
@click.option(
    "--exclude",
    is_flag=True,
    help="With --engine: exclude nodes that are slow, against others of their kind, or compute wrong results.",
)
@output_option
def census(
    no_benchmark: bool,
    cached: bool,
    engine: str | None,
    nodes: str,
    wait: bool,
    at_once: int,
    exclude: bool,
    output: str,
) -> None:
    """Find this machine's devices and measure them: FLOP/s in fp32 and bf16, memory bandwidth.

    Each figure is the best of several undisturbed runs whose results were checked. A machine that others
    use meanwhile cannot be measured: the figures are then marked as contended, and nothing is compared
    with them.

    With --engine a job of the engine measures each node, and the figures are kept as the node's ceilings.
    """
    if engine is not None:
        if cached:
            _show_latest(engine, exclude, output)
            return
        _of_engine(engine, nodes, not no_benchmark, wait, at_once, exclude, output)
        return
    if nodes or wait or exclude:
        raise click.UsageError("--nodes, --wait and --exclude are for the nodes of an --engine")
    with embedded() as plane:
        if cached:
            found = _latest(plane)
            if found is None:
                raise Failure("no census was taken of this machine yet", hint="artesian census")
        elif no_benchmark:
            found = Census(machine=discover(), measurements=(), at_s=time.time())
        else:
            if plane.state().holding:
                click.echo("jobs hold devices of this machine: the figures will be contended", err=True)
            found = _take(plane, stderr())
    if output == "json":
        print_json(found.summary())
    else:
        stdout().print(_picture(found))


def _of_engine(
    engine: str, nodes: str, has_benchmark: bool, waits: bool, at_once: int, excludes: bool, output: str
) -> None:
    from artesian.cli import survey
    from artesian.server.survey import Request

    only = tuple(name for name in nodes.split(",") if name)
    request = Request(only=only, has_benchmark=has_benchmark, waits=waits, at_once=at_once)
    survey.take(engine, request, output, excludes=excludes)


def _show_latest(engine: str, exclude: bool, output: str) -> None:
    from artesian.cli import survey

    if exclude:
        raise click.UsageError("--exclude goes by a census that is taken now, not by a --cached one")
    survey.show_latest(engine, output)


def ensure_census(talk: Console) -> None:
    """Take a census unless there is a recent one of this machine that others did not disturb."""
    with embedded() as plane:
        _ensure(plane, talk)


def _ensure(plane: ControlPlane, talk: Console) -> None:
    latest = _latest(plane)
    age_s = None if latest is None else time.time() - latest.at_s
    if latest is not None and age_s is not None and latest.is_good and age_s < _MAX_AGE_S:
        talk.print(f"census of {format_duration(age_s)} ago: {_one_line(latest)}", soft_wrap=True)
        return
    if plane.state().holding:
        talk.print("no census: jobs hold devices of this machine, so that it cannot be measured now")
        return
    talk.print("taking a census of this machine (once, about 10 s) ...")
    found = _take(plane, talk)
    talk.print(_one_line(found), soft_wrap=True)
    if not found.is_good:
        talk.print(
            "MFU will be unknown; take another census when the machine is quiet: artesian census",
            soft_wrap=True,
        )


def _take(plane: ControlPlane, talk: Console) -> Census:
    machine = discover()
    with talk.status("measuring"):
        measurements = benchmark(
            machine,
            settings=BenchmarkSettings(),
            progress=lambda text: talk.print(f"  {text}", style="dim"),
        )
    found = Census(machine=machine, measurements=measurements, at_s=time.time())
    latest = _latest(plane)
    if found.is_good or latest is None or not latest.is_good:
        found.save(plane.dir.census)  # a disturbed census does not take the place of a good one
    return found


def _latest(plane: ControlPlane) -> Census | None:
    """Return the latest census if it is of this machine as it is now."""
    try:
        latest = Census.load(plane.dir.census)
    except FileNotFoundError:
        return None
    except CensusError as error:
        click.echo(f"{error}", err=True)
        return None
    return latest if latest.machine.is_same_as(discover()) else None


def _one_line(found: Census) -> str:
    devices = ", ".join(f"{count} × {name}" for name, count in found.machine.device_counts.items())
    figures = []
    for measurement in found.measurements[:1]:
        for dtype in ("fp32", "bf16"):
            flops = measurement.flops(dtype)
            figures.append(f"{dtype} {'unknown' if flops is None else format_flops(flops)}")
        bandwidth = measurement.bandwidth_bytes_per_s
        figures.append(f"memory {'unknown' if bandwidth is None else f'{bandwidth / 1e9:.3g} GB/s'}")
        if measurement.contention:
            figures.append("contended (by what: artesian census --cached)")
        if measurement.problem:
            figures.append(measurement.problem)
    return f"{devices}" + (f"; of one device: {', '.join(figures)}" if figures else "")


def _picture(found: Census) -> Group:
    host = found.machine.host
    memory = "unknown" if host.usable_memory_bytes is None else format_size(host.usable_memory_bytes)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("host", f"{host.hostname} ({host.architecture})")
    facts.add_row("CPU", f"{host.cpu_model or 'unknown model'}, {_cores(found)}")
    facts.add_row(
        "memory",
        f"{memory}, {len(host.numa_nodes) or 'unknown'} NUMA node{'s' * (len(host.numa_nodes) != 1)}",
    )
    for name, count in found.machine.device_counts.items():
        facts.add_row("devices", f"{count} × {name}")
    for problem in found.machine.problems:
        facts.add_row("problem", Text(problem, style="yellow"))
    parts: list[Table | Text] = [facts]
    if found.measurements:
        table = measured_table()
        for row in measured_rows(found):
            table.add_row(*row)
        parts += [Text(), table]
        parts += [Text(note, style="dim") for note in _notes(found)]
    return Group(*parts)


def _cores(found: Census) -> str:
    host = found.machine.host
    total = host.physical_cores if host.physical_cores is not None else host.logical_cpus
    if host.usable_cores == total:
        return f"{total} cores"
    return f"{host.usable_cores} of {total} cores usable"


def _notes(found: Census) -> list[str]:
    notes = []
    for measurement, verdict in zip(found.measurements, found.verdicts(), strict=True):
        shares = {
            "load average": measurement.load_average,
            "CPU time / wall time": measurement.cpu_share,
            "others": measurement.others_share,
            "stolen": measurement.steal_share,
        }
        known = ", ".join(f"{name} {value:.2f}" for name, value in shares.items() if value is not None)
        kernels = "; ".join(
            f"{f.kernel}: best of {f.valid_runs} undisturbed runs of {f.runs}" for f in measurement.figures
        )
        notes += [
            f"{device_name(measurement)}: {verdict.reason}",
            *([kernels] if kernels else []),
            *([known] if known else []),
        ]
        if measurement.contention:
            notes.append(f"contended: {measurement.contention}")
        notes += [f"{name}: {why}" for name, why in measurement.missing.items()]
    return notes
