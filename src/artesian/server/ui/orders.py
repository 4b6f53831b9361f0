"""The buttons of a job's page, and what they ask before they act: cancel and resize."""

from collections.abc import Callable

from nicegui import ui

from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.told import job_view
from artesian.model.errors import AlreadyOver, JobImpossible, UnitError
from artesian.model.job import Cause
from artesian.model.resources import resized
from artesian.model.units import format_duration
from artesian.server.tokens import Principal, Role
from artesian.server.ui.fields import Mark
from artesian.server.ui.markup import Markup, join, tag
from artesian.server.ui.phrases import in_words
from artesian.server.ui.texts import Texts
from artesian.server.ui.visit import Visit
from artesian.server.ui.words import asked

_MOST_CHARACTERS = 40
"""Of a count that is typed, as in the API."""


class Refused(Exception):  # noqa: N818 - reads as what it is
    """What was typed cannot be; the text is in the reader's language."""


def add_orders(visit: Visit, id_: str) -> Callable[[JobRecord], None]:
    """Add the buttons for whoever may use them; the service asks again when one is pressed.

    The function that is returned shows those that make sense for the job as it is then.
    """
    record, who = visit.service.find(id_, visit.who), visit.who
    is_theirs = record.job.user == who.user or who.role.includes(Role.OPERATOR)
    if not who.role.includes(Role.MEMBER) or not is_theirs:
        return lambda _: None
    with ui.element("div").classes("actions") as actions:
        resize = _add_resize(visit, id_)
        cancel = _add_cancel(visit, id_)

    def show(now: JobRecord) -> None:
        is_told_to_end = now.state.is_final or (
            now.state is JobState.STOPPING and now.attempt.stop_cause is Cause.CANCELLED
        )
        cancel.set_visibility(not is_told_to_end)
        resize.set_visibility(not is_told_to_end and any(not one.is_host_only for one in now.job.devices))
        actions.set_visibility(cancel.visible or resize.visible)

    show(record)
    return show


def _add_cancel(visit: Visit, id_: str) -> ui.button:
    texts = visit.texts

    async def cancel() -> None:
        dialog.close()
        with visit.trying():
            who = await visit.principal(Role.MEMBER)
            await visit.service.cancel(visit.service.find(id_, who), who)
            ui.notify(texts("cancelled", job=id_), type="positive")

    with ui.dialog() as dialog, ui.card():
        grace = format_duration(visit.service.find(id_, visit.who).job.grace_s)
        ui.html(tag("p", texts("cancel_sure", job=id_, grace=grace)), sanitize=False)
        with ui.element("div").classes("actions"):
            ui.button(texts("cancel_no"), on_click=dialog.close).props("no-caps outline autofocus")
            ui.button(texts("cancel_yes"), on_click=cancel).props("no-caps color=negative")
    return ui.button(texts("cancel"), on_click=dialog.open).props("no-caps outline color=negative")


def _add_resize(visit: Visit, id_: str) -> ui.button:
    texts = visit.texts

    async def begin() -> None:
        with visit.trying():
            record = visit.service.find(id_, await visit.principal(Role.MEMBER))
            said.set_content(_consequences(record, texts))
            # The count is what a request ends with; the first one is the job's first choice.
            count.set_value(str(record.job.devices[0]).rpartition(":")[2])
            mark.clear()
            dialog.open()

    async def resize() -> None:
        with visit.trying():
            who = await visit.principal(Role.MEMBER)
            try:
                done = await resize_job(visit, visit.service.find(id_, who), who, str(count.value or ""))
            except Refused as refused:
                mark.wrong(str(refused))
                return
            dialog.close()
            ui.notify(done, type="positive")

    with ui.dialog() as dialog, ui.card():
        said = ui.html("", sanitize=False)
        typed = f"autofocus outlined hide-bottom-space maxlength={_MOST_CHARACTERS}"
        count = ui.input(texts("devices")).props(typed).classes("wide")
        # What is typed is not wrong until it is asked for; and then no longer than until it is changed.
        mark = Mark(count, "resize-wrong", how_id="resize-how")
        count.on_value_change(mark.clear)
        count.on("keydown.enter", resize)
        with ui.element("div").classes("actions"):
            ui.button(texts("resize_no"), on_click=dialog.close).props("no-caps outline")
            ui.button(texts("resize_yes"), on_click=resize).props("no-caps")
    return ui.button(texts("resize"), on_click=begin).props("no-caps outline")


def _consequences(record: JobRecord, texts: Texts) -> Markup:
    view = job_view(record)
    key = "resize_running" if record.state.holds_devices else "resize_waiting"
    return join(
        (
            tag("h2", texts("resize_of", job=view.id)),
            tag("p", texts("resize_asks", devices=asked(view))),
            tag("p", texts("resize_form"), id="resize-how"),
            tag("p", texts(key, grace=format_duration(record.job.grace_s)), class_="faint"),
        )
    )


async def resize_job(visit: Visit, record: JobRecord, who: Principal, count: str) -> str:
    """Have the job ask for so many devices, and return what comes of it. Raises Refused."""
    texts, count = visit.texts, count.strip()
    try:
        if resized(record.job.devices, count) == record.job.devices:
            raise Refused(texts("resize_same"))
        await visit.service.resize(record, who, devices=count)
    except UnitError as error:
        raise Refused(texts("resize_wrong")) from error
    except JobImpossible as error:
        raise Refused(texts("resize_impossible", why=in_words(str(error), texts))) from error
    except AlreadyOver as error:
        raise Refused(texts("resize_over")) from error
    now = visit.service.find(record.job.id, who)
    if now.state is JobState.STOPPING:
        key = "resized_stopping"
    else:
        key = "resized_holding" if now.state.holds_devices else "resized_waiting"
    return texts(key, job=now.job.id, devices=asked(job_view(now)))
