"""``artesian simulate goodput``: what share of its time will a job that checkpoints and fails make use of?"""

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from msgspec import structs
from rich.console import Group
from rich.table import Table

from artesian.cli.output import Failure, output_option, print_json, stdout
from artesian.cli.waterfall import Duration
from artesian.formulas.goodput import (
    exact_interval_s,
    goodput,
    mttf_s,
    optimal_interval_s,
    replaced_share,
    spares_needed,
    young_interval_s,
)
from artesian.model.errors import UnitError
from artesian.model.units import format_duration, parse_duration_s
from artesian.sim.goodput import Estimate, simulate_goodput

REPLACED_SHARE = 0.99
"""Of the failures, how many must find a spare at once."""

_DAY_S = 86_400.0
_PER_DAY = {"hour": 24.0, "day": 1.0, "year": 1 / 365.25}
_RATE = re.compile(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)/(node|device)-(hour|day|year)")
_CURVE = (0.125, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0)
"""The curve against the interval, as factors of the best one."""
_SIZES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The curve against the number of devices, as factors of the one asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Failures per day of one node, or of one device."""

    per_day: float
    per: str

    def per_node_day(self, devices_per_node: int) -> float:
        """Return the failures per node and day."""
        return self.per_day * (devices_per_node if self.per == "device" else 1)


class FailureRate(click.ParamType[Rate]):
    """A rate such as ``3.8e-3/node-day``."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Rate:
        """Return the failures per day."""
        found = _RATE.fullmatch(str(value).strip())
        if found is None:
            self.fail(
                f"failures: expected a rate with a unit, such as 3.8e-3/node-day, got {str(value)!r}; "
                "units are node-hour, node-day, node-year, device-hour, device-day and device-year",
                param,
                ctx,
            )
        number, per, span = found.groups()
        if float(number) == 0:
            self.fail(
                "failures: expected more than none: without failures only the stall is lost", param, ctx
            )
        return Rate(per_day=float(number) * _PER_DAY[span], per=per)


class Interval(click.ParamType["float | None"]):
    """``auto`` (None), or a duration."""

    name = "interval"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Return the seconds, None for the best interval."""
        if str(value) == "auto":
            return None
        try:
            seconds = parse_duration_s(str(value))
        except UnitError as error:
            self.fail(f"{error}, or auto; {error.hint}", param, ctx)
        if seconds == 0:
            self.fail("interval: expected a duration above 0, or auto", param, ctx)
        return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A job: how large, how often it fails, what a checkpoint and a recovery cost. ``interval_s`` None: the best."""

    devices: int
    devices_per_node: int
    failures_per_node_day: float
    stall_s: float
    recovery_s: float
    repair_s: float
    interval_s: float | None
    days: float
    runs: int
    seed: int

    def nodes(self, devices: int | None = None) -> int:
        """Return the nodes that so many devices take; None: the devices asked about."""
        return math.ceil((self.devices if devices is None else devices) / self.devices_per_node)

    def mttf_s(self, devices: int | None = None) -> float:
        """Return the mean time to failure of a job on so many devices, in seconds."""
        return mttf_s(self.nodes(devices), self.failures_per_node_day)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a curve: goodput by the closed form."""

    devices: int
    interval_s: float
    goodput: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Closed form and Monte Carlo, side by side."""

    interval_s: float
    best_s: float
    young_s: float
    daly_s: float
    closed: float
    simulated: Estimate
    spares: int
    spares_share: float
    with_spares: Estimate
    by_interval: tuple[Point, ...]
    by_devices: tuple[Point, ...]


@click.command(short_help="Plan a job that fails: goodput, interval, spares.")
@click.option("--devices", required=True, type=click.IntRange(min=1), help="Devices of the job.")
@click.option(
    "--failures",
    required=True,
    type=FailureRate(),
    help="How often a node or a device fails: 3.8e-3/node-day, 0.2/device-year.",
)
@click.option("--stall", required=True, type=Duration(), help="What a checkpoint holds training up: 250ms.")
@click.option(
    "--recovery",
    required=True,
    type=Duration(),
    help="From a failure to the next step: detect, restart, load. Replayed steps are not in it.",
)
@click.option("--devices-per-node", default=8, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--interval",
    default="auto",
    show_default=True,
    type=Interval(),
    help="Useful work between two checkpoints; auto: the best one.",
)
@click.option("--repair", default="4h", show_default=True, type=Duration(), help="Until a node is back.")
@click.option(
    "--days",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Of each run.",
)
@click.option("--runs", default=200, show_default=True, type=click.IntRange(min=2), help="Runs to simulate.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the failures.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the curves into FILE (.svg or .png).")
@output_option
def goodput_command(
    devices: int,
    failures: Rate,
    stall: float,
    recovery: float,
    devices_per_node: int,
    interval: float | None,
    repair: float,
    days: float,
    runs: int,
    seed: int,
    plot: Path | None,
    output: str,
) -> None:
    """Plan a job that fails now and then: its goodput, its best checkpoint interval, the spares it needs.

    By the closed form and by simulated failures, side by side. The same input and seed give the same
    figures. All of them are simulated, and say so.
    """
    from artesian.cli import curves
    from artesian.cli import plot as drawing

    if plot is not None:
        drawing.check_path(plot)
    question = Question(
        devices=devices,
        devices_per_node=devices_per_node,
        failures_per_node_day=failures.per_node_day(devices_per_node),
        stall_s=stall,
        recovery_s=recovery,
        repair_s=repair,
        interval_s=interval,
        days=days,
        runs=runs,
        seed=seed,
    )
    answer = _answer(question)
    if output == "json":
        print_json(_as_json(question, answer))
    else:
        stdout(is_wide=True).print(_tables(question, answer))
    if plot is not None:
        curves.plot(
            plot,
            title=f"simulated: goodput of {devices:,} devices",
            panels=[
                curves.Panel(
                    x_label="checkpoint interval",
                    x_text=format_duration,
                    points=[(point.interval_s, point.goodput) for point in answer.by_interval],
                    marked=(answer.interval_s, answer.closed),
                ),
                curves.Panel(
                    x_label="devices",
                    x_text=lambda count: f"{count:,.0f}",
                    points=[(point.devices, point.goodput) for point in answer.by_devices],
                    marked=(devices, answer.closed),
                ),
            ],
        )


def _answer(question: Question) -> Answer:
    mttf = question.mttf_s()
    if not 0 < question.stall_s < mttf / 2:
        raise Failure(
            f"a stall of {format_duration(question.stall_s)} has no best interval: it must be above 0 and below "
            f"half the mean time to failure, which is {format_duration(mttf)}",
            hint="give a shorter --stall (asynchronous saves), fewer --devices, or a lower --failures",
        )
    best_s = exact_interval_s(question.stall_s, mttf)
    interval_s = best_s if question.interval_s is None else question.interval_s
    spares = spares_needed(1 / mttf, question.repair_s, REPLACED_SHARE)
    return Answer(
        interval_s=interval_s,
        best_s=best_s,
        young_s=young_interval_s(question.stall_s, mttf),
        daly_s=optimal_interval_s(question.stall_s, mttf),
        closed=goodput(interval_s, question.stall_s, question.recovery_s, mttf),
        simulated=_simulate(question, interval_s, None),
        spares=spares,
        spares_share=replaced_share(spares, 1 / mttf, question.repair_s),
        with_spares=_simulate(question, interval_s, spares),
        by_interval=tuple(_at(question, question.devices, best_s * factor) for factor in _CURVE),
        by_devices=tuple(_by_devices(question)),
    )


def _simulate(question: Question, interval_s: float, spares: int | None) -> Estimate:
    mttf = question.mttf_s()
    return simulate_goodput(
        interval_s=interval_s,
        stall_s=question.stall_s,
        restart_s=question.recovery_s,
        mttf_s=mttf,
        failures_per_run=max(1, round(question.days * _DAY_S / (mttf + question.recovery_s))),
        runs=question.runs,
        seed=question.seed,
        spares=spares,
        repair_s=question.repair_s,
    )


def _at(question: Question, devices: int, interval_s: float) -> Point:
    share = goodput(interval_s, question.stall_s, question.recovery_s, question.mttf_s(devices))
    return Point(devices=devices, interval_s=interval_s, goodput=share)


def _by_devices(question: Question) -> Iterator[Point]:
    """Yield goodput at the best interval of each size, or at the one that was asked for."""
    for factor in _SIZES:
        devices = max(1, round(question.devices * factor))
        mttf = question.mttf_s(devices)
        if question.interval_s is not None:
            yield _at(question, devices, question.interval_s)
        elif question.stall_s < mttf / 2:  # beyond it there is no best interval
            yield _at(question, devices, exact_interval_s(question.stall_s, mttf))


def _as_json(question: Question, answer: Answer) -> dict[str, Any]:
    mttf = question.mttf_s()
    return {
        "simulated": True,
        **{name: value for name, value in asdict(question).items() if name != "interval_s"},
        "nodes": question.nodes(),
        "mttf_s": mttf,
        "interval_s": answer.interval_s,
        "intervals": {"best_s": answer.best_s, "young_s": answer.young_s, "daly_s": answer.daly_s},
        "closed_form": {"goodput": answer.closed},
        "monte_carlo": structs.asdict(answer.simulated),
        "difference": answer.simulated.goodput - answer.closed,
        "spares": {
            "nodes": answer.spares,
            "wanted_share": REPLACED_SHARE,
            "replaced_share": answer.spares_share,
            "monte_carlo": structs.asdict(answer.with_spares),
        },
        "by_interval": [asdict(point) for point in answer.by_interval],
        "by_devices": [asdict(point) for point in answer.by_devices],
    }


def _tables(question: Question, answer: Answer) -> Group:
    title = (
        f"simulated: {question.devices:,} devices on {question.nodes():,} nodes, "
        f"a failure every {format_duration(question.mttf_s())}"
    )
    main = Table("", "closed form", "Monte Carlo", "difference", box=None, pad_edge=False, title=title)
    main.title_justify, main.header_style = "left", "bold"
    for column in main.columns[1:]:
        column.justify = "right"
    found = answer.simulated
    error = "unknown" if found.standard_error is None else f"± {_points(found.standard_error)}"
    main.add_row(
        f"goodput, a checkpoint every {format_duration(answer.interval_s)}",
        _percent(answer.closed),
        f"{_percent(found.goodput)} {error}",
        f"{_points(found.goodput - answer.closed, is_signed=True)}",
    )
    spared = answer.with_spares
    main.add_row(
        f"failed nodes replaced at once, {answer.spares} spares",
        _percent(answer.spares_share),
        _percent(spared.replaced_share),
        ""
        if spared.replaced_share is None
        else _points(spared.replaced_share - answer.spares_share, is_signed=True),
    )
    main.add_row(f"goodput with {answer.spares} spares", "", _percent(spared.goodput), "")
    mttf = question.mttf_s()
    intervals = Table("interval", "", "goodput", box=None, pad_edge=False, header_style="bold")
    intervals.columns[1].justify = intervals.columns[2].justify = "right"
    for name, seconds in (("best", answer.best_s), ("Young", answer.young_s), ("Daly", answer.daly_s)):
        share = goodput(seconds, question.stall_s, question.recovery_s, mttf)
        intervals.add_row(name, format_duration(seconds), _percent(share))
    for point in answer.by_interval:
        if point.interval_s != answer.best_s:
            factor = f"{point.interval_s / answer.best_s:.3g} × best"
            intervals.add_row(factor, format_duration(point.interval_s), _percent(point.goodput))
    sizes = Table("devices", "interval", "goodput", box=None, pad_edge=False, header_style="bold")
    for column in sizes.columns:
        column.justify = "right"
    for point in answer.by_devices:
        sizes.add_row(f"{point.devices:,}", format_duration(point.interval_s), _percent(point.goodput))
    return Group(main, "", intervals, "", sizes)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"


def _points(share: float, *, is_signed: bool = False) -> str:
    """Return a difference of shares in percentage points."""
    return f"{100 * share:{'+' if is_signed else ''}.3f}"
