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
    Figure,
    Measurement,
    Verdict,
    benchmark,
    discover,
)
from artesian.cli.output import Failure, output_option, print_json, stderr, stdout
from artesian.cli.state import embedded
from artesian.model.units import format_duration, format_flops, format_size
from artesian.server.embedded import ControlPlane

_MAX_AGE_S = 7 * 86_400


@click.command()
@click.option("--no-benchmark", is_flag=True, help="Only find the devices; do not measure them.")
@click.option("--cached", is_flag=True, help="Print the latest census instead of taking one.")
@output_option
def census(no_benchmark: bool, cached: bool, output: str) -> None:
    """Find this machine's devices and measure them: FLOP/s in fp32 and bf16, memory bandwidth.

    Each figure is the best of several undisturbed runs whose results were checked. A machine that others
    use meanwhile cannot be measured: the figures are then marked as contended, and nothing is compared
    with them.
    """
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


def ensure_census(talk: Console) -> None:
    """Take a census unless there is a recent one of this machine that others did not disturb."""
    with embedded() as plane:
        _ensure(plane, talk)


def _ensure(plane: ControlPlane, talk: Console) -> None:
    latest = _latest(plane)
    age_s = None if latest is None else time.time() - latest.at_s
    if latest is not None and age_s is not None and _is_good(latest) and age_s < _MAX_AGE_S:
        talk.print(f"census of {format_duration(age_s)} ago: {_one_line(latest)}", soft_wrap=True)
        return
    if plane.state().holding:
        talk.print("no census: jobs hold devices of this machine, so that it cannot be measured now")
        return
    talk.print("taking a census of this machine (once, about 10 s) ...")
    found = _take(plane, talk)
    talk.print(_one_line(found), soft_wrap=True)
    if not _is_good(found):
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
    if _is_good(found) or latest is None or not _is_good(latest):
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


def _is_good(found: Census) -> bool:
    return bool(found.measurements) and all(
        measurement.figures and all(figure.is_valid for figure in measurement.figures)
        for measurement in found.measurements
    )


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
        parts += [Text(), _measured(found)]
        parts += [Text(note, style="dim") for note in _notes(found)]
    return Group(*parts)


def _cores(found: Census) -> str:
    host = found.machine.host
    total = host.physical_cores if host.physical_cores is not None else host.logical_cpus
    if host.usable_cores == total:
        return f"{total} cores"
    return f"{host.usable_cores} of {total} cores usable"


def _measured(found: Census) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("device", "fp32", "bf16", "of nameplate", "memory", "of nameplate", "verdict"):
        table.add_column(name, justify="left" if name in ("device", "verdict") else "right")
    for measurement, verdict in zip(found.measurements, found.verdicts(), strict=True):
        table.add_row(
            _device(measurement),
            _flops(measurement.fp32_flops, measurement.devices),
            _flops(measurement.bf16_flops, measurement.devices),
            _share(verdict.nameplate_ratio),
            _bandwidth(measurement.memory_bytes_per_s, measurement.devices),
            _share(verdict.bandwidth_ratio),
            _verdict(measurement, verdict),
        )
    return table


def _device(measurement: Measurement) -> str:
    if measurement.index is None:
        return f"{measurement.accelerator}, each of {measurement.devices} together"
    return f"{measurement.index} {measurement.accelerator}"


def _flops(figure: Figure | None, devices: int) -> str:
    return "unknown" if figure is None else format_flops(figure.best / devices) + _mark(figure)


def _bandwidth(figure: Figure | None, devices: int) -> str:
    return "unknown" if figure is None else f"{figure.best / devices / 1e9:.3g} GB/s" + _mark(figure)


def _mark(figure: Figure) -> str:
    return "" if figure.is_valid else " (invalid)"


def _share(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{ratio:.0%}"


def _verdict(measurement: Measurement, verdict: Verdict) -> Text:
    if verdict.is_functional is False:
        return Text("defective", style="red")
    if verdict.is_slow:
        return Text("slow", style="red")
    if measurement.is_contended:
        return Text("contended", style="yellow")
    return Text(
        "unknown" if verdict.is_functional is None else "works",
        style="green" if verdict.is_functional else "",
    )


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
            f"{_device(measurement)}: {verdict.reason}",
            *([kernels] if kernels else []),
            *([known] if known else []),
        ]
        if measurement.contention:
            notes.append(f"contended: {measurement.contention}")
        notes += [f"{name}: {why}" for name, why in measurement.missing.items()]
    return notes
