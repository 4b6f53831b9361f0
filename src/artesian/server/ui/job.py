"""One job: its state, attempts and recoveries, what it trains, what it prints, and the ways to stop and to resize it."""

import asyncio
import time
from typing import Any

from nicegui import ui

from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.training import Recovery, TrainingSummary
from artesian.model.errors import UnknownJob
from artesian.model.replicas import DivergedReplicas
from artesian.model.stragglers import SlowWorker
from artesian.model.units import format_duration
from artesian.model.views import AttemptView, JobView, OutcomeView
from artesian.server.follow import log_file
from artesian.server.ledger import copied
from artesian.server.tokens import Principal
from artesian.server.ui.curves import Curves, Points, read_curves, read_tail, thinned
from artesian.server.ui.markup import Markup, join, table, tag, text
from artesian.server.ui.orders import add_orders
from artesian.server.ui.phrases import phrase
from artesian.server.ui.queue import explanation
from artesian.server.ui.texts import Texts
from artesian.server.ui.visit import Visit
from artesian.server.ui.words import asked, moment, percent, state_badge

_STATE_S, _TRAINING_S, _LOG_S = 2.0, 8.0, 2.0
_TAIL_BYTES = 16_384
_MOST_NODES = 3
"""Of a placement that is told node by node."""


async def build(visit: Visit) -> None:
    """Build the page."""
    texts = visit.texts
    try:
        id_ = visit.service.find(visit.request.path_params["job"], visit.who).job.id
    except UnknownJob:
        back = tag("a", texts("to_overview"), href="/ui/")
        ui.html(join((tag("h1", texts("no_job")), tag("p", back))), sanitize=False)
        return

    def record(who: Principal) -> JobRecord:
        return visit.service.find(id_, who)

    async def state(who: Principal) -> Markup:
        now = record(who)
        show_orders(now)
        view = visit.service.view(now)
        why = None if view.reason is None else explanation(visit.service.decision(now), texts)
        return join(
            (
                facts(view, texts),
                None if why is None else tag("section", why, class_="card"),
                timeline(view, texts),
            )
        )

    async def log(who: Principal) -> Markup:
        return await asyncio.to_thread(_output, visit, record(who))

    ui.page_title(f"{id_} · artesian")
    ui.html(tag("h1", texts("job"), " ", id_), sanitize=False)
    show_orders = add_orders(visit, id_)
    await visit.live(_STATE_S, state)
    await _add_training(visit, id_)
    ui.html(tag("h2", texts("log")), sanitize=False)
    await visit.live(_LOG_S, log, is_slow=True)


def facts(job: JobView, texts: Texts) -> Markup:
    """Return what a job is."""
    rows: list[tuple[str, Markup | str]] = [
        ("state", state_badge(job.state, texts)),
        ("team", job.team),
        ("user", job.user),
        ("devices", asked(job)),
        ("priority", str(job.priority)),
        ("submitted", moment(job.submitted_s)),
        ("end", moment(job.ended_s)),
        ("command", tag("code", " ".join(job.command))),
    ]
    return tag("dl", join(join((tag("dt", texts(key)), tag("dd", value))) for key, value in rows))


def timeline(job: JobView, texts: Texts) -> Markup:
    """Return the attempts, each with its part of the time from the first decision to the last end."""
    head = tag("h2", texts("attempts"))
    if not job.attempts:
        return join((head, tag("p", texts("no_attempts"), class_="empty")))
    begin_s = job.attempts[0].decided_s
    # A running attempt's bar reaches to now; in whole seconds, so that the page changes once a second at most.
    now_s = float(int(time.time())) if job.ended_s is None else job.ended_s
    span_s = max(1e-6, now_s - begin_s)
    heads = [texts(key) for key in ("attempt", "place", "start", "end", "outcome")]
    rows = (
        (
            one.epoch,
            place(one, texts),
            moment(one.started_s),
            moment(one.ended_s),
            tag(
                "div",
                texts("state.running") if one.outcome is None else outcome(one.outcome, texts),
                _track(one, begin_s, span_s, now_s),
            ),
        )
        for one in job.attempts
    )
    return join((head, table(heads, rows, caption=texts("attempts"), is_titled=True)))


def place(attempt: AttemptView, texts: Texts) -> str:
    """Return where an attempt runs: all of a small placement, a large one in numbers."""
    if len(attempt.placement) <= _MOST_NODES:
        return attempt.place
    devices = sum(len(share.devices) for share in attempt.placement)
    nodes = [share.node for share in attempt.placement]
    return texts("large_place", devices=devices, nodes=len(nodes), first=nodes[0], last=nodes[-1])


def outcome(found: OutcomeView, texts: Texts) -> Markup:
    """Return how an attempt ended. What the operating system said of it stays as it is."""
    cause = texts(f"cause.{found.cause.value}")
    return join((cause, texts("colon"), phrase(found.message, texts))) if found.message else text(cause)


def _track(attempt: AttemptView, begin_s: float, span_s: float, now_s: float) -> Markup:
    left = 100 * (attempt.decided_s - begin_s) / span_s
    width = 100 * max(0.0, (attempt.ended_s or now_s) - attempt.decided_s) / span_s
    is_bad = attempt.outcome is not None and attempt.outcome.cause.value != "completed"
    style = f"left:{min(left, 99.5):.2f}%;width:{min(width, 100 - left):.2f}%"
    return tag(
        "div", tag("span", style=style, class_="bad" if is_bad else None), class_="track", aria_hidden="true"
    )


def troubles(summary: TrainingSummary, texts: Texts) -> Markup:
    """Return the failures that the job got over, the workers that held it up, and those that went apart."""
    return join(
        (
            recoveries(summary.recoveries, texts),
            stragglers(summary.stragglers, texts),
            divergences(summary.divergences, texts),
        )
    )


def recoveries(found: tuple[Recovery, ...], texts: Texts) -> Markup:
    """Return how the job got over its failures."""
    head = tag("h2", texts("recoveries"))
    if not found:
        return join((head, tag("p", texts("none"), class_="faint")))
    return join(
        (head, tag("ul", *(tag("li", moment(one.failed_s), " · ", _recovery(one, texts)) for one in found)))
    )


def _recovery(one: Recovery, texts: Texts) -> str:
    cause = texts(f"cause.{one.cause.value}")
    if one.seconds is None:
        return texts("not_recovered", cause=cause)
    step = texts("unknown") if one.resumed_from_step is None else one.resumed_from_step
    return texts("recovered", cause=cause, duration=format_duration(one.seconds), step=step)


def stragglers(found: tuple[SlowWorker, ...] | None, texts: Texts) -> Markup:
    """Return the workers that held the others up, and what to do about those that still do."""
    head = tag("h2", texts("stragglers"))
    if not found:
        said = texts("stragglers_unknown") if found is None else texts("none")
        return join((head, tag("p", said, class_="faint")))
    # Those that are slow now first, the latest before those that were slow before.
    ordered = sorted(found, key=lambda slow: (not slow.is_now, -slow.until_s))
    return join((head, tag("ul", *(tag("li", _straggler(slow, texts)) for slow in ordered))))


def _straggler(slow: SlowWorker, texts: Texts) -> Markup:
    waited = texts("unknown") if slow.wait_s is None else format_duration(slow.wait_s)
    said = texts(
        "straggler_now" if slow.is_now else "straggler_past",
        worker=slow.worker,
        place=slow.place or texts("unknown"),
        ratio=f"{slow.ratio:.2f}",
        waited=waited,
        epoch=slow.epoch,
    )
    if not slow.is_now:
        return join((moment(slow.since_s), " – ", moment(slow.until_s), " · ", said))
    if slow.node is not None and slow.has_other_nodes:
        mend = texts("straggler_exclude", node=slow.node)
    else:
        mend = texts("straggler_census")
    return join((texts("since"), " ", moment(slow.since_s), " · ", said, tag("div", mend, class_="faint")))


def divergences(found: tuple[DivergedReplicas, ...] | None, texts: Texts) -> Markup:
    """Return the replicas that went apart, the latest first; nothing where they are not compared."""
    if found is None:
        return join(())
    head = tag("h2", texts("replicas"))
    if not found:
        return join((head, tag("p", texts("replicas_alike"), class_="faint")))
    return join((head, tag("ul", *(tag("li", _divergence(each, texts)) for each in reversed(found)))))


def _divergence(one: DivergedReplicas, texts: Texts) -> Markup:
    names = ", ".join(map(str, one.workers))
    return join(
        (
            moment(one.at_s),
            " · ",
            texts("replicas_differ", step=one.step, workers=names, epoch=one.epoch),
        )
    )


def figures(curves: Curves, texts: Texts) -> Markup:
    """Return what came of the training, in numbers."""
    summary = curves.summary
    unknown = texts("unknown")
    rows: list[tuple[str, Markup | str]] = [
        ("steps", f"{summary.steps:,}" if summary.steps is not None else unknown),
        (
            "loss",
            unknown if summary.final_loss is None else f"{summary.first_loss:.4g} → {summary.final_loss:.4g}",
        ),
        ("tokens_per_s", unknown if summary.tokens_per_s is None else f"{summary.tokens_per_s:,.0f}"),
        ("mfu", unknown if summary.mfu is None else _mfu(summary.mfu, summary.mfu_basis, texts)),
    ]
    return tag("dl", join(join((tag("dt", texts(key)), tag("dd", value))) for key, value in rows))


def _mfu(mfu: float, basis: str | None, texts: Texts) -> Markup:
    told = None if basis is None else join((" (", phrase(basis, texts, "basis"), ")"))
    return join((percent(mfu, 1.0), told))


async def _add_training(visit: Visit, id_: str) -> None:
    texts = visit.texts
    ui.html(tag("h2", texts("training")), sanitize=False)
    charts: dict[str, ui.echart] = {}

    async def show(who: Principal) -> Markup:
        record = copied(visit.service.find(id_, who))
        at_s = time.time() if record.ended_s is None else record.ended_s
        found = await asyncio.to_thread(read_curves, visit.service.dir, record, at_s)
        if not found.summary.steps:
            return join((tag("p", texts("no_training"), class_="empty"), troubles(found.summary, texts)))
        for key, points in (
            ("loss", thinned(found.summary.losses)),
            ("tokens_per_s", found.tokens_per_s),
            ("mfu", found.mfu),
        ):
            if len(points) > 1:
                _draw(charts, box, key, points, texts)
        return join((figures(found, texts), troubles(found.summary, texts)))

    box = ui.element("div").classes("curves")
    await visit.live(_TRAINING_S, show, is_slow=True)


def _draw(charts: dict[str, ui.echart], box: ui.element, key: str, points: Points, texts: Texts) -> None:
    options = _options(texts("curve", name=texts(key)), points, is_share=key == "mfu")
    if key not in charts:
        with box:
            charts[key] = ui.echart(options).classes("curve").props(f'role=img aria-label="{texts(key)}"')
    elif charts[key].options["series"] != options["series"]:
        charts[key].options.update(options)
        charts[key].update()


def _options(title: str, points: Points, *, is_share: bool) -> dict[str, Any]:
    scaled = [[step, round(100 * value, 3) if is_share else float(f"{value:.6g}")] for step, value in points]
    return {
        "animation": False,
        "title": {"text": title, "left": 0, "textStyle": {"fontSize": 13, "fontWeight": 600}},
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 8, "containLabel": True},
        "xAxis": {"type": "value", "min": "dataMin", "max": "dataMax", "splitLine": {"show": False}},
        "yAxis": {"type": "value", "scale": True, "axisLabel": {"formatter": "{value}%"} if is_share else {}},
        "tooltip": {"trigger": "axis"},
        "color": ["#2b6bae"],
        "series": [{"type": "line", "showSymbol": False, "data": scaled}],
    }


def _output(visit: Visit, record: JobRecord) -> Markup:
    """Return the end of what the latest attempt's first worker printed."""
    if not record.attempts:
        return tag("p", visit.texts("no_log"), class_="empty")
    pieces = []
    for is_err in (False, True):
        path = log_file(visit.service.dir.jobs, record.job.id, record.epoch, worker=None, is_err=is_err)
        if said := read_tail(path, _TAIL_BYTES):
            name = "stderr" if is_err else "stdout"
            pieces += [
                tag("p", name, class_="faint"),
                tag("pre", tag("span", said), tabindex="0", role="log", aria_label=name),
            ]
    return join(pieces) if pieces else tag("p", visit.texts("no_log"), class_="empty")
