"""Simulations of several policies as one HTML file: tables and charts, no script, nothing from elsewhere."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from artesian.cli import charts, plot
from artesian.cli.figures import COLUMNS, Outcome, best_of, figure
from artesian.cli.picture import cause_label, percent_text, stage_label
from artesian.model.errors import ArtesianError
from artesian.model.fleet import Fleet
from artesian.model.units import format_duration
from artesian.sim.report import Group, Spread, Summary
from artesian.sim.teams import TeamFigures

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1060px; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem }
h3 { font-size: .95rem; margin: 1.4rem 0 .3rem } p, .note { color: #555; margin: .2rem 0 .8rem }
.tag { background: #fdf0d5; color: #7a5200; border-radius: 4px; font-size: .8rem; padding: .1rem .5rem; vertical-align: middle }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap } th:first-child, td:first-child { text-align: left; padding-left: 0 }
th { border-bottom: 1px solid #ccc; font-weight: 600 } tr + tr td { border-top: 1px solid #eee }
.best { font-weight: 700 } svg { height: auto; max-width: 100% }
"""


class PageError(ArtesianError):
    """The page cannot be made, or not be written."""


def check_path(path: Path) -> None:
    """Raise PageError for a path that cannot be a page, PlotError without matplotlib: before the long work."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise PageError(
            f"html: expected a file that ends in .html, got {path.name!r}", hint="such as policies.html"
        )
    plot.check_path(path.with_suffix(".svg"))


def write(path: Path, *, title: str, fleet: Fleet, runs: Sequence[Outcome]) -> None:
    """Write the page. The same runs give the same page, byte for byte. Raises PageError where that fails."""
    text = _page(title, fleet, runs)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PageError(
            f"html: cannot write {path}: {error.strerror}", hint="choose a folder that you can write to"
        ) from error


def _page(title: str, fleet: Fleet, runs: Sequence[Outcome]) -> str:
    curves = [charts.Curve(name=run.policy, figures=run.figures) for run in runs]
    parts = [
        f"<h1>{_text(title)} <span class=tag>simulated</span></h1>",
        f"<p>{len(runs[0].figures.jobs):,} jobs on {fleet.devices:,} devices of {len(fleet.nodes):,} nodes</p>",
        "<h2>Policies</h2>",
        _policies(runs),
        "<h2>Devices allocated over time</h2>",
        plot.svg(lambda: charts.allocation(curves, fleet.devices)),
        "<h2>Completion times</h2>",
        plot.svg(lambda: charts.completion(curves)),
        "<h2>Where device time went</h2>",
        _waterfalls(runs),
    ]
    if any(run.figures.deadlines for run in runs):
        parts += ["<h2>Deadlines</h2>", _deadlines(runs)]
    if any(run.figures.teams for run in runs):
        parts += ["<h2>What teams are entitled to</h2>", _entitlements(runs)]
    if any(run.moves for run in runs):
        parts += ["<h2>Moves</h2>", _moves(runs)]
    for heading, name in (("Teams", "by_team"), ("Models of device", "by_accelerator")):
        parts.append(f"<h2>{heading}</h2>")
        for run in runs:
            parts += [f"<h3>{_text(run.policy)}</h3>", _groups(getattr(run.figures, name))]
    parts.append("<h2>Who ran where</h2>")
    for run in runs:
        end_s = run.figures.allocation[-1].at_s if run.figures.allocation else 0.0
        notes: list[str] = []

        def draw(run: Outcome = run, end_s: float = end_s, notes: list[str] = notes) -> object:
            figure, note = charts.gantt(run.records, fleet, end_s)
            notes.append(note)
            return figure

        picture = plot.svg(draw)
        parts += [
            f"<h3>{_text(run.policy)}</h3>",
            f"<div class=note>{_text(notes[0])}</div>" if notes[0] else "",
            picture,
        ]
    body = "\n".join(part for part in parts if part)
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{_text(title)} (simulated)</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _policies(runs: Sequence[Outcome]) -> str:
    """A row for each policy; the best of each column stands out where there are several."""
    figures = [run.figures for run in runs]
    best = [best_of(column, figures) for column in COLUMNS]

    def cells(run: Outcome) -> str:
        shown = []
        for column, at_best in zip(COLUMNS, best, strict=True):
            is_best = at_best is not None and column.of(run.figures) == at_best
            shown.append(f"<td{' class=best' if is_best else ''}>{column.text(run.figures)}</td>")
        return "".join(shown)

    names = ("policy", *(column.name for column in COLUMNS))
    notices = "".join(
        f"<div class=note>{_text(run.policy)}: {_text(run.figures.notice_text)}</div>"
        for run in runs
        if run.figures.notice_text is not None
    )
    return _table(names, ((run.policy, cells(run)) for run in runs)) + (
        f"{notices}<div class=note>JCT: from submission to end. Stranded: free although a job waited. "
        "ρ: how much later than on the job's own part of the fleet; 1 or less is fair.</div>"
    )


def _deadlines(runs: Sequence[Outcome]) -> str:
    def cells(run: Outcome) -> str:
        found = run.figures.deadlines
        if found is None:
            return "<td>–</td>" * 5
        late = _figures(found.late, "mean_s", "p99_s")
        values = [f"{found.jobs:,}", f"{found.met:,}", f"{found.missed:,}"]
        values += ["–" if value is None else format_duration(value) for value in late]
        return "".join(f"<td>{_text(value)}</td>" for value in values)

    names = ("policy", "jobs with one", "met", "missed", "late by, mean", "p99")
    return _table(names, ((run.policy, cells(run)) for run in runs))


def _entitlements(runs: Sequence[Outcome]) -> str:
    def cells(team: TeamFigures) -> str:
        satisfied = "–" if team.satisfaction is None else f"{team.satisfaction:.1%}"
        hours = [team.used_device_s, team.borrowed_device_s, team.wanted_device_s]
        values = [*(f"{value / 3600:,.0f}" for value in hours), satisfied]
        return "".join(f"<td>{_text(value)}</td>" for value in values)

    names = (
        "policy, team",
        "device-hours",
        "of them borrowed",
        "wanted within the guarantee",
        "of these had",
    )
    rows = [
        (f"{run.policy}, {name}", cells(team))
        for run in runs
        for name, team in (run.figures.teams or {}).items()
    ]
    return _table(names, rows)


def _moves(runs: Sequence[Outcome]) -> str:
    def cells(run: Outcome, kind: str) -> str:
        some = [move for move in run.moves if move.kind == kind]
        let_start = {move.lets_start for move in some if move.lets_start is not None}
        hours = sum(move.cost_device_s for move in some) / 3600
        return f"<td>{len(some):,}</td><td>{hours:,.1f}</td><td>{len(let_start):,}</td>"

    names = ("policy, what a running job does", "moves", "cost, device-hours", "jobs that this lets start")
    kinds = ("moves", "shrinks", "grows")
    return _table(names, ((f"{run.policy}, {kind}", cells(run, kind)) for run in runs for kind in kinds))


def _groups(groups: dict[str, Group]) -> str:
    def cells(group: Group) -> str:
        values = [
            f"{group.jobs:,}",
            *(_time(value) for value in _figures(group.jct, "mean_s", "median_s", "p99_s")),
            *(_time(value) for value in _figures(group.wait, "mean_s", "p99_s")),
            f"{group.held_milli_us / 3.6e12:,.0f}",
            f"{group.preemptions:,}",
            *(
                "unknown" if value is None else f"{value:.2f}"
                for value in _figures(group.finish_time_ratio, "mean")
            ),
        ]
        return "".join(f"<td>{_text(value)}</td>" for value in values)

    names = (
        "",
        "jobs",
        "mean JCT",
        "median",
        "p99",
        "mean wait",
        "p99 wait",
        "device-hours",
        "preemptions",
        "ρ mean",
    )
    return _table(names, ((name, cells(group)) for name, group in groups.items()))


def _waterfalls(runs: Sequence[Outcome]) -> str:
    def cells(run: Outcome) -> str:
        waterfall = run.figures.waterfall
        values = []
        for stage in waterfall.stages:
            left = "unknown" if stage.left_us is None else percent_text(stage.left_us, waterfall.nameplate_us)
            lost = ", ".join(
                f"{cause_label(cause)} {percent_text(amount, waterfall.nameplate_us)}"
                for cause, amount in sorted(stage.lost_us.items(), key=lambda item: -item[1])
                if amount
            )
            values.append(f"<td>{left}<br><small>{_text(lost)}</small></td>")
        return "".join(values)

    names = ("of nameplate", *(stage_label(stage.stage) for stage in runs[0].figures.waterfall.stages))
    return _table(names, ((run.policy, cells(run)) for run in runs))


def _table(names: Sequence[str], rows: Iterable[tuple[str, str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(f"<tr><td>{_text(name)}</td>{cells}</tr>" for name, cells in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _figures(summary: Summary | Spread | None, *names: str) -> list[float | None]:
    return [figure(summary, name) for name in names]


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else format_duration(seconds)


def _text(text: str) -> str:
    return html.escape(text)
