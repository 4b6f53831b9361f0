"""Goodput as OpenMetrics: what a real parser makes of the text."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from artesian.kernel.detections import Detections
from artesian.kernel.goodput import Goodput, Window
from artesian.model.ledger import US, Loss
from artesian.model.replicas import DivergedReplicas
from artesian.model.stragglers import SlowWorker
from artesian.server.openmetrics import render_openmetrics

AWKWARD = 'a "quoted"\\job\nof two lines'


def window(productive_us: int, **lost_us: int) -> Window:
    lost = {Loss(cause): amount for cause, amount in lost_us.items()}
    return Window(start_s=0, end_s=1, productive_us=productive_us, lost_us=lost)


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, sample.labels.pop("job_id"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def test_a_parser_reads_back_every_cause_and_both_windows() -> None:
    whole = window(3 * US, start_up=US // 2, waiting=US // 2)
    text = render_openmetrics(
        [
            Goodput(job_id=AWKWARD, cumulative=whole, sliding=window(US)),
            Goodput(job_id="b", cumulative=None, sliding=None),
        ]
    )
    assert samples(text) == {
        ("artesian_job_device_seconds", AWKWARD, "productive"): 3.0,
        ("artesian_job_device_seconds", AWKWARD, "start_up"): 0.5,
        ("artesian_job_device_seconds", AWKWARD, "waiting"): 0.5,
        ("artesian_job_goodput_ratio", AWKWARD, "all"): 0.75,
        ("artesian_job_goodput_ratio", AWKWARD, "sliding"): 1.0,
    }


def test_what_workers_find_is_counted_where_they_look_for_it_and_unknown_elsewhere() -> None:
    slow = SlowWorker(worker=3, epoch=1, since_s=0, until_s=1, ratio=1.5)
    apart = DivergedReplicas(workers=(2, 4), epoch=1, step=9, at_s=1, is_certain=True)
    found = {
        AWKWARD: Detections((slow,), (apart,)),
        "even": Detections((), None),
        "alike": Detections(None, ()),
        "untold": Detections(),
    }
    assert samples(render_openmetrics([], found)) == {
        ("artesian_job_stragglers", AWKWARD): 1.0,
        ("artesian_job_straggler_ratio", AWKWARD, "3"): 1.5,
        ("artesian_job_diverged_replicas", AWKWARD): 2.0,
        ("artesian_job_stragglers", "even"): 0.0,
        ("artesian_job_diverged_replicas", "alike"): 0.0,
    }


@pytest.mark.parametrize("goodputs", [[], [Goodput(job_id="a", cumulative=window(0), sliding=None)]])
def test_without_figures_it_is_still_a_document(goodputs: list[Goodput]) -> None:
    text = render_openmetrics(goodputs)
    assert text.endswith("# EOF\n")
    assert set(samples(text).values()) <= {0.0}
