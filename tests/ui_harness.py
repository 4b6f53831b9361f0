"""A real server with a dashboard on a seeded state, and a real Chromium that looks at it."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from artesian.engines.local.engine import attempt_folder
from artesian.model.job import Cause, JobKind
from artesian.server.config import StateDir
from artesian.store import SqliteJournal
from artesian.wire import CheckpointCommitted, StepCommitted, StragglerFound, WorkerStarted
from artesian.wire.channel import ProgressWriter, worker_file
from builders import Kernel, a_job, a_node, ended, joined, lost, retry, started, submitted, ticked
from cli_harness import TIMEOUT_S, Cli, Running, until
from limits import needs

expect.set_options(timeout=TIMEOUT_S * 1000)  # Playwright's own 5 s are none on a busy machine
CHROMIUM = "/usr/bin/chromium"
DESKTOP, PHONE = (1280, 800), (390, 844)
USER = "amy"
WAITING = 230
"""Jobs that wait: more than are shown at once."""
DOOMED = "doomed-1"
"""The job that a test cancels."""
RESTLESS = "restless-1"
"""Another one."""
PLIANT = "pliant-1"
"""One that runs on two devices, and that a test resizes."""
SLOW = "vlm-b2"
"""The job that a straggler holds up."""
QUOTAS = """
[teams.vision]
weight = 2
guaranteed = {H100 = 32}
borrow = 48

[teams.nlp]
guaranteed = {L4 = 8}
"""
SCRIPT = "<script>document.title='owned'</script>\n"
"""What a hostile job prints."""


class Dashboard:
    """``artesian serve`` without a driver: what waits goes on waiting, what runs goes on running."""

    def __init__(
        self,
        folder: Path,
        *,
        is_seeded: bool,
        words: Sequence[str],
        settings: str = QUOTAS,
        sow: Callable[[StateDir], None],
    ) -> None:
        self.cli = Cli(folder)
        self.cli.env["USER"] = self.cli.env["LOGNAME"] = USER
        self.state = self.cli.state
        self.state.create()
        if is_seeded:
            sow(self.state)
            self.cli.configure(settings)
        self.running: Running = self.cli.start("serve", "--port", "0", "--no-driver", *words)
        self.url = until(lambda: self.running.stdout.strip() or self._died())

    def _died(self) -> str:
        assert self.running.process.poll() is None, self.running.stderr
        return ""

    def stop(self) -> int:
        """Tell it to stop, and return its exit code."""
        self.running.process.terminate()
        return self.running.process.wait(TIMEOUT_S)


@contextmanager
def a_dashboard(
    folder: Path,
    *,
    is_seeded: bool = True,
    words: Sequence[str] = (),
    settings: str = QUOTAS,
    sow: Callable[[StateDir], None] | None = None,
) -> Iterator[Dashboard]:
    """Serve until the end of the block. ``sow`` writes the state that there is; None: ``seed``."""
    dashboard = Dashboard(folder, is_seeded=is_seeded, words=words, settings=settings, sow=sow or seed)
    try:
        yield dashboard
        assert dashboard.stop() == 0, dashboard.running.stderr
        assert "Traceback" not in dashboard.running.stderr, dashboard.running.stderr
    finally:
        dashboard.running.process.kill()
        dashboard.running.process.wait(TIMEOUT_S)
        dashboard.cli.end()


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Run a Chromium until the end of the block."""
    needs(os.path.exists(CHROMIUM), f"a Chromium at {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
        )
        try:
            yield browser
        finally:
            browser.close()


class Looker:
    """Somebody with a browser; ``complaints`` are what its console said, and what of other hosts was asked for."""

    def __init__(
        self, browser: Browser, url: str, *, language: str = "en", size: tuple[int, int] = DESKTOP
    ) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(
            locale={"en": "en-GB", "zh": "zh-CN"}[language], viewport={"width": size[0], "height": size[1]}
        )
        self.context.set_default_timeout(TIMEOUT_S * 1000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self._note(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note_url(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def _note_url(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"asked for {url}")

    def open(self, path: str) -> Page:
        """Go to a page of the dashboard, and wait until its socket lives."""
        self.page.goto(f"{self.url}{path}", wait_until="domcontentloaded")
        self.page.wait_for_function("() => window.socket === undefined ? false : window.socket.connected")
        return self.page

    def is_wider_than_its_window(self) -> bool:
        """Whether the page would have to be scrolled sideways."""
        found: bool = self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        return found

    def end(self) -> None:
        """Close the browser's window, and see to it that nothing was complained of."""
        self.context.close()


def seed(state: StateDir) -> None:
    """Write a fleet of three pools, a training job that has recovered, jobs that wait, and some that are over."""
    now_s = time.time()
    begun_s = now_s - 3600
    train: dict[str, Any] = {
        "accelerator": "H100-SXM5-80GB",
        "vendor": "nvidia",
        "pool": "train",
        "peak_flops": 989e12,
    }
    serve: dict[str, Any] = {"accelerator": "L4", "vendor": "nvidia", "pool": "serve", "devices": 4}
    fleet = [
        *(a_node(f"gpu-{number:03}", **train) for number in range(48)),
        *(a_node(f"l4-{number:02}", **serve) for number in range(16)),
        *(a_node(f"cpu-{number}", devices=16, pool="cpu") for number in range(4)),
    ]
    kernel = Kernel()
    kernel.step(*(joined(node, begun_s) for node in fleet))
    gang: dict[str, Any] = {"name": "llm", "team": "vision", "workers": 2, "kind": JobKind.TRAIN}
    patient = retry(5, Cause.NODE_LOST)
    llm = a_job("llm-a1", devices="H100-SXM5-80GB:64", user=USER, retry=patient, **gang)
    kernel.step(submitted(llm, begun_s + 10))
    kernel.step(started("llm-a1", 1, begun_s + 15))
    kernel.step(lost("gpu-000", begun_s + 1200))
    kernel.step(ended("llm-a1", 1, Cause.NODE_LOST, begun_s + 1200))
    kernel.step(ticked(begun_s + 1205))
    kernel.step(started("llm-a1", 2, begun_s + 1210))
    for number in range(6):
        id_, at_s = f"eval-{number}", begun_s + 1300 + number
        kernel.step(submitted(a_job(id_, devices="L4:4", user="ben", team="nlp"), at_s))
        kernel.step(started(id_, 1, at_s))
        if number < 3:
            kernel.step(ended(id_, 1, Cause.COMPLETED if number else Cause.USER_ERROR, at_s + 100))
    kernel.step(submitted(a_job(PLIANT, devices="L4:2", user=USER), begun_s + 1400))
    kernel.step(started(PLIANT, 1, begun_s + 1400))
    waiting = [
        a_job(
            f"wait-{number:03}", devices="H100-SXM5-80GB:512", user=USER if number % 2 else "ben", team="nlp"
        )
        for number in range(WAITING)
    ]
    kernel.step(*(submitted(job, now_s - 600 + number) for number, job in enumerate(waiting)))
    for id_ in (DOOMED, RESTLESS):
        kernel.step(submitted(a_job(id_, devices="L4:1", user=USER), now_s - 60))
        kernel.step(started(id_, 1, now_s - 55))
    slow = a_job(SLOW, devices="L4:8", user=USER, workers=2, kind=JobKind.TRAIN)
    kernel.step(submitted(slow, now_s - 50))
    kernel.step(started(SLOW, 1, now_s - 45))
    with SqliteJournal.open(state.journal) as journal:
        journal.append(kernel.journal)
    _train(state, "llm-a1", 1, 1, begun_s + 40, 56, 20.0)
    _train(state, "llm-a1", 2, 41, begun_s + 1260, 110, 20.0)
    _train(state, SLOW, 1, 1, now_s - 40, 36, 1.0, is_slow=True)
    folder = attempt_folder(state.jobs, "llm-a1", 2)
    folder.stdout.write_text("".join(f"step {n} loss {_loss(n):.3f}\n" for n in range(41, 151)) + SCRIPT)


def _train(
    state: StateDir,
    id_: str,
    epoch: int,
    first: int,
    begun_s: float,
    steps: int,
    step_s: float,
    *,
    is_slow: bool = False,
) -> None:
    """Let both ranks of an attempt report steps, and a checkpoint after every twenty; rank 1 may be a straggler."""
    folder = attempt_folder(state.jobs, id_, epoch)
    folder.create()
    for rank in range(2):
        writer = ProgressWriter(worker_file(folder.progress, rank))
        writer.send(
            WorkerStarted(
                rank=rank,
                at_s=begun_s,
                world_size=2,
                pid=1,
                device="cuda:0",
                dtype="bf16",
                seeks_stragglers=is_slow,
            )
        )
        for place in range(steps):
            number, start_s = first + place, begun_s + place * step_s
            seconds = step_s * (0.9 + 0.05 * math.sin(number))
            told: dict[str, Any] = {"loss": _loss(number), "tokens": 2**20, "model_flops": 1.1e17}
            writer.send(
                StepCommitted(rank=rank, step=number, start_s=start_s, end_s=start_s + seconds, **told)
            )
            if number % 20 == 0 and rank == 0:
                writer.send(CheckpointCommitted(rank=0, at_s=start_s + seconds, step=number, size_bytes=1))
        if is_slow and rank == 0:
            told = {"ratio": 1.6, "steps": steps - 4, "window": steps - 4, "excess_s": 12.0}
            writer.send(StragglerFound(rank=1, at_s=begun_s + steps * step_s, step=steps - 4, **told))
        writer.close()


def _loss(number: int) -> float:
    return 2.0 + 8.0 / math.sqrt(number) + 0.05 * math.sin(number * 1.7)
