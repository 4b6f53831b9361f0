"""What if: other policies on a file of jobs, by the simulator. All figures here are simulated, and say so."""

from collections.abc import Mapping
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments

from artesian.model.units import format_duration
from artesian.policy.registry import BUILT_IN, DEFAULT
from artesian.server.tokens import Role
from artesian.server.ui.fields import Mark
from artesian.server.ui.markup import Markup, table, tag
from artesian.server.ui.phrases import phrase
from artesian.server.ui.texts import Texts
from artesian.server.ui.trial import FILE_BYTES, MOST_JOBS, MOST_POLICIES, TrialFailed, Trials
from artesian.server.ui.visit import Visit
from artesian.server.ui.words import percent

_HOW = "simulate-how"
_LEAST_LOAD, _MOST_LOAD = 0.05, 10
_COMPARED = ("fifo", "easy")
_EXAMPLE = """submit_s,duration_s,devices,name,team,estimated_duration_s
0,7200,H100:8,pretrain,nlp,9000
60,14400,H100:16,large,nlp,14400
"""
_READ = f"""async (event) => {{
  const file = event.target.files[0];
  if (file) emit(file.name, file.size <= {FILE_BYTES} ? await file.text() : null);
}}"""


async def build(visit: Visit, trials: Trials) -> None:
    """Build the page."""
    texts = visit.texts
    how = texts(
        "simulate_how", jobs=f"{MOST_JOBS:,}", bytes=f"{FILE_BYTES // 1000:,}", policies=MOST_POLICIES
    )
    ui.html(tag("h1", texts("simulate")), sanitize=False)
    ui.html(tag("p", how, id=_HOW, class_="faint"), sanitize=False)
    if not visit.who.role.includes(Role.MEMBER):
        ui.html(tag("p", texts("forbidden"), class_="empty"), sanitize=False)
        return
    ui.html(tag("pre", _EXAMPLE, tabindex="0", aria_label=texts("example")), sanitize=False)
    jobs = ""

    def read(event: GenericEventArguments) -> None:
        nonlocal jobs
        name, content = event.args
        jobs = "" if content is None else str(content)
        if content is None:
            chosen.set_content("")
            of_file.wrong(texts("too_large", name=name))
        else:
            of_file.clear()
            chosen.set_content(tag("p", texts("file_chosen", name=name), role="status"))

    def is_complete() -> bool:
        """Say at each field what is wrong there; the reader is taken to the first one."""
        is_load = isinstance(load.value, int | float) and _LEAST_LOAD <= load.value <= _MOST_LOAD
        checked = (
            (of_load, is_load, texts("load_wrong", least=_LEAST_LOAD, most=_MOST_LOAD)),
            (
                of_names,
                1 <= len(names.value or ()) <= MOST_POLICIES,
                texts("policies_wrong", most=MOST_POLICIES),
            ),
            (of_file, bool(jobs), texts("no_file")),
        )
        for mark, is_right, why in checked:
            if is_right:
                mark.clear()
            else:
                mark.wrong(why)
        return all(is_right for _, is_right, _ in checked)

    async def run() -> None:
        with visit.trying():
            await visit.principal(Role.MEMBER)
            if not is_complete():
                return
            result.set_content(tag("p", texts("simulating"), role="status"))
            button.disable()
            try:
                found = await trials.run(jobs, list(names.value or ()), float(load.value or 0))
                result.set_content(comparison(found, texts))
            except TrialFailed as error:
                result.set_content(visit.failure(error))
            finally:
                button.enable()

    with ui.element("div").classes("form"):
        label = tag("label", texts("jobs_file"), for_="jobs-file")
        ui.html(label, sanitize=False)
        file = ui.element("input").props('id=jobs-file type=file accept=".csv,text/csv"')
        file.on("change", read, js_handler=_READ)
        of_file = Mark(file, "jobs-file-wrong", how_id=_HOW)
        chosen = ui.html("", sanitize=False)
        compared = [name for name in _COMPARED if name in BUILT_IN] or [DEFAULT]
        names = ui.select(sorted(BUILT_IN), value=compared, multiple=True, label=texts("policies")).props(
            "use-chips"
        )
        of_names = Mark(names, "policies-wrong")
        names.on_value_change(of_names.clear)
        load = ui.number(texts("load"), value=0.9, min=_LEAST_LOAD, max=_MOST_LOAD, step=0.05)
        of_load = Mark(load, "load-wrong")
        load.on_value_change(of_load.clear)
        button = ui.button(texts("run"), on_click=run).props("no-caps")
    result = ui.html("", sanitize=False).props("aria-live=polite")


def comparison(found: Mapping[str, Any], texts: Texts) -> Markup:
    """Return the policies side by side."""
    keys = ("policy", "mean_jct", "p99_jct", "mean_wait", "p99_wait", "makespan", "allocated", "preemptions")
    unknown = texts("unknown")

    def seconds(value: float | None) -> str:
        return unknown if value is None else format_duration(value)

    def share(value: float | None) -> str:
        return unknown if value is None else percent(value, 1.0)

    rows = []
    for one in found["policies"]:
        jct, wait = one["jct"] or {}, one["wait"] or {}
        rows.append(
            (
                one["policy"],
                seconds(jct.get("mean_s")),
                seconds(jct.get("p99_s")),
                seconds(wait.get("mean_s")),
                seconds(wait.get("p99_s")),
                seconds(one["makespan_s"]),
                share(one["allocated_share"]),
                f"{one['preemptions']:,}",
            )
        )
    said = texts(
        "simulated",
        jobs=f"{found['jobs']:,}",
        devices=f"{found['devices']:,}",
        skipped=f"{found['skipped']:,}",
    )
    notices = [
        tag(
            "p",
            texts("noticed", policy=one["policy"], noticed=one["noticed_cycles"], cycles=one["cycles"]),
            phrase(one["notice"], texts),
        )
        for one in found["policies"]
        if one["notice"] is not None
    ]
    shown = table(map(texts, keys), rows, caption=said)
    return tag("section", tag("h2", texts("comparison")), shown, *notices)
