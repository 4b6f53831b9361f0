"""What waits, in the order of its submits, and on demand why."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nicegui import ui
from nicegui.events import GenericEventArguments

from artesian.kernel.lifecycle import JobState
from artesian.model.views import Decision, JobView, TeamView
from artesian.server.board import Filter
from artesian.server.ui.markup import Markup, join, table, tag
from artesian.server.ui.phrases import phrase
from artesian.server.ui.texts import Texts
from artesian.server.ui.visit import Visit
from artesian.server.ui.words import ago, asked, job_link, moment, state_badge

PAGE = 200
_FEW_TEAMS = 2
_WAITING = Filter(states=frozenset({JobState.QUEUED, JobState.BACKING_OFF}))
_CHOSEN = """(event) => {
  const button = event.target.closest("button[data-job]");
  if (button) emit(button.dataset.job);
}"""


@dataclass(slots=True)
class _Shown:
    """The jobs on the page so far, and the cursor of those behind them."""

    jobs: list[JobView] = field(default_factory=list)
    next: str | None = None


async def build(visit: Visit) -> None:
    """Build the page. The table changes only when asked to: it would move under the reader's hand."""
    texts = visit.texts
    ui.html(tag("h1", texts("queue")), sanitize=False)
    shown = _Shown()
    box = ui.html("", sanitize=False)

    async def load(cursor: str | None) -> None:
        with visit.trying():
            who = await visit.principal()
            page = visit.service.page(_WAITING, who, limit=PAGE, cursor=cursor, newest_first=False)
            shown.jobs = [*(shown.jobs if cursor else ()), *page.jobs]
            shown.next = page.next
            counts = visit.service.queue().jobs
            waiting = counts[JobState.QUEUED.value] + counts[JobState.BACKING_OFF.value]
            shares = by_team(visit.service.fleet.teams(only=who.team), texts)
            box.set_content(join((shares, listing(shown.jobs, waiting, texts))))
            more.set_visibility(page.next is not None)

    async def explain(event: GenericEventArguments) -> None:
        with visit.trying():
            record = visit.service.find(str(event.args), await visit.principal())
            answer.set_content(explanation(visit.service.decision(record), texts))
            dialog.open()

    box.on("click", explain, js_handler=_CHOSEN)
    with ui.element("div").classes("actions"):
        more = ui.button(texts("show_more"), on_click=lambda: load(shown.next)).props("no-caps")
        ui.button(texts("refresh"), on_click=lambda: load(None)).props("no-caps outline")
    with ui.dialog() as dialog, ui.card():
        answer = ui.html("", sanitize=False)
        ui.button(texts("close"), on_click=dialog.close).props("no-caps autofocus")
    await load(None)


def listing(jobs: list[JobView], waiting: int, texts: Texts) -> Markup:
    """Return the table, or that there is nothing in it."""
    if not jobs:
        return tag("p", texts("no_queue"), class_="empty")
    heads = [
        "#",
        *(texts(key) for key in ("id", "state", "team", "user", "devices", "priority", "waiting_since")),
        "",
    ]
    rows = (
        (
            number,
            job_link(job.id),
            state_badge(job.state, texts),
            job.team,
            job.user,
            asked(job),
            job.priority,
            ago(_since_s(job), texts),
            tag(
                "button",
                texts("why"),
                type="button",
                class_="act",
                data_job=job.id,
                aria_label=texts("why_label", job=job.id),
            ),
        )
        for number, job in enumerate(jobs, start=1)
    )
    said = texts("queue_order", count=f"{waiting:,}")
    return table(heads, rows, caption=said)


def by_team(teams: Sequence[TeamView], texts: Texts) -> Markup:
    """Return what each team has and is entitled to; nothing where there is only the default one."""
    has_quotas = any(one.guaranteed or one.borrow_limit is not None for one in teams)
    if len(teams) < _FEW_TEAMS and not has_quotas:
        return Markup()
    states = ("queued", "backing_off", "starting", "running", "stopping")
    columns = ("weight", "guaranteed", "may_borrow", "borrowed") if has_quotas else ("weight",)
    heads = [texts(key) for key in ("team", "held", *columns)]
    heads += [texts(f"state.{state}") for state in states]
    rows = (
        (
            one.team if one.parent is None else f"{one.parent} / {one.team}",
            f"{one.held:,g}",
            *(_entitled(one, texts)[column] for column in columns),
            *(f"{one.jobs.get(state, 0):,}" for state in states),
        )
        for one in teams
    )
    return tag("section", table(heads, rows, caption=texts("teams")))


def _entitled(team: TeamView, texts: Texts) -> dict[str, str]:
    guaranteed = ", ".join(f"{count:,} {model}" for model, count in team.guaranteed.items())
    return {
        "weight": f"{team.weight:g}",
        "guaranteed": guaranteed or texts("none"),
        "may_borrow": texts("no_limit") if team.borrow_limit is None else f"{team.borrow_limit:,}",
        "borrowed": f"{team.borrowed:,g}",
    }


def _since_s(job: JobView) -> float:
    """Return when the job began to wait the last time."""
    ended_s = job.attempts[-1].ended_s if job.attempts else None
    return job.submitted_s if ended_s is None else ended_s


def explanation(decision: Decision, texts: Texts) -> Markup:
    """Return why a job waits."""
    rows: list[tuple[str, Markup | str]] = [(texts("state"), texts(f"state.{decision.state}"))]
    if decision.unblock:
        rows.append((texts("unblock"), phrase(decision.unblock, texts)))
    if decision.nearest_start_s is not None:
        rows.append((texts("likely_start"), moment(decision.nearest_start_s)))
    if decision.would_start:
        would_start = (phrase(change, texts) for change in decision.would_start)
        rows.append((texts("would_start"), Markup(texts("semicolon").join(would_start))))
    items = join(join((tag("dt", name), tag("dd", value))) for name, value in rows)
    return join(
        (
            tag("h2", texts("why_of", job=decision.job)),
            tag("p", phrase(decision.reason, texts)),
            tag("dl", items),
        )
    )
