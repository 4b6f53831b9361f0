"""The first page: where the compute goes, what is lost most, and the jobs."""

from collections.abc import Mapping

from artesian.model.ledger import StageResult, Waterfall
from artesian.model.views import JobView
from artesian.server.board import Filter
from artesian.server.tokens import Principal
from artesian.server.ui.markup import Markup, join, table, tag
from artesian.server.ui.phrases import phrase
from artesian.server.ui.texts import Texts
from artesian.server.ui.visit import Visit
from artesian.server.ui.words import amount, asked, job_link, moment, percent, state_badge, unit_of

_WATERFALL_S, _JOBS_S = 4.0, 2.0
_LATEST = 12
_LOSSES = 3


async def build(visit: Visit) -> None:
    """Build the page."""

    async def losses(who: Principal) -> Markup:
        del who
        found = await visit.house.ledger.waterfall(start_s=None, end_s=None)
        return waterfall(found, visit.texts)

    async def jobs(who: Principal) -> Markup:
        page = visit.service.page(Filter(), who, limit=_LATEST, cursor=None, newest_first=True)
        return join((counts(visit.service.queue().jobs, visit.texts), latest(page.jobs, visit.texts)))

    await visit.live(_WATERFALL_S, losses, is_slow=True)
    await visit.live(_JOBS_S, jobs)


def waterfall(found: Waterfall, texts: Texts) -> Markup:
    """Return the waterfall as bars that step down from nameplate, and the largest losses."""
    head = tag("h1", texts("waterfall"))
    if found.nameplate_us == 0:
        return tag("section", head, tag("p", texts("no_waterfall"), class_="empty"))
    unit, unit_us = unit_of(found.nameplate_us)
    rows = [_row(texts("stage.nameplate"), found.nameplate_us, found.nameplate_us, unit_us, texts)]
    came_us = found.nameplate_us
    for result in found.stages:
        name = texts(f"stage.{result.stage.value}")
        rows.append(
            _row(
                name,
                result.left_us,
                found.nameplate_us,
                unit_us,
                texts,
                came_us,
                _lost(result, unit_us, texts),
            )
        )
        came_us = came_us if result.left_us is None else result.left_us
    said = texts("waterfall_unit", unit=texts(unit))
    bars = tag("ol", *rows, class_="waterfall")
    notes = (
        tag("ul", *(tag("li", phrase(note, texts)) for note in found.notes), class_="faint")
        if found.notes
        else None
    )
    return join(
        (
            tag("section", head, tag("p", said, class_="faint"), bars, notes),
            _largest(found, unit, unit_us, texts),
        )
    )


def _row(
    name: str,
    left_us: int | None,
    nameplate_us: int,
    unit_us: int,
    texts: Texts,
    came_us: int | None = None,
    lost: Markup | None = None,
) -> Markup:
    shown = (
        texts("unknown")
        if left_us is None
        else f"{amount(left_us, unit_us)} · {percent(left_us, nameplate_us)}"
    )
    bar = None
    if left_us is not None:
        parts = [_bar("left", left_us, nameplate_us)]
        if came_us is not None and came_us > left_us:
            parts.append(_bar("gone", came_us - left_us, nameplate_us))
        bar = tag("span", *parts, class_="bar", aria_hidden="true")
    return tag("li", tag("span", name, class_="name"), tag("span", shown, class_="figure"), bar, lost)


def _bar(kind: str, us: int, nameplate_us: int) -> Markup:
    return tag("span", class_=kind, style=f"width:{100 * us / nameplate_us:.3f}%")


def _lost(result: StageResult, unit_us: int, texts: Texts) -> Markup | None:
    lost = sorted(((us, cause) for cause, us in result.lost_us.items() if us), reverse=True)
    if not lost:
        return None
    return tag(
        "ul",
        *(tag("li", texts(f"loss.{cause}"), " ", tag("b", f"−{amount(us, unit_us)}")) for us, cause in lost),
        class_="lost",
    )


def _largest(found: Waterfall, unit: str, unit_us: int, texts: Texts) -> Markup:
    lost = sorted(
        ((us, cause) for result in found.stages for cause, us in result.lost_us.items() if us), reverse=True
    )[:_LOSSES]
    cards = join(
        tag(
            "li",
            tag("h3", texts(f"loss.{cause}")),
            tag(
                "p",
                f"{amount(us, unit_us)} {texts(unit)} · {percent(us, found.nameplate_us)}",
                class_="large",
            ),
            tag("p", tag("b", texts("recover")), texts("colon"), texts(f"recover.{cause}")),
        )
        for us, cause in lost
    )
    body = tag("ol", cards, class_="cards") if lost else tag("p", texts("no_losses"), class_="empty")
    return tag("section", tag("h2", texts("losses")), body)


def counts(jobs: Mapping[str, int], texts: Texts) -> Markup:
    """Return how many jobs are in each state."""
    items = (
        tag("li", tag("b", f"{count:,}"), " ", state_badge(state, texts)) for state, count in jobs.items()
    )
    return tag("section", tag("h2", texts("jobs_by_state")), tag("ul", *items, class_="counts"))


def latest(jobs: tuple[JobView, ...], texts: Texts) -> Markup:
    """Return the latest jobs, or how to submit the first one."""
    if not jobs:
        how = tag("p", texts("no_jobs"), " ", tag("code", "artesian submit job.yaml"), class_="empty")
        return tag("section", tag("h2", texts("latest_jobs")), how)
    heads = [texts(key) for key in ("id", "state", "team", "user", "devices", "submitted")]
    rows = (
        (
            job_link(job.id),
            state_badge(job.state, texts),
            job.team,
            job.user,
            asked(job),
            moment(job.submitted_s),
        )
        for job in jobs
    )
    return tag(
        "section",
        tag("h2", texts("latest_jobs")),
        table(heads, rows, caption=texts("latest_jobs"), is_titled=True),
    )
