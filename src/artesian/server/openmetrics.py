"""Goodput of jobs, and what their workers have found about one another, as OpenMetrics text, for whatever scrapes it.

Of the server's own page no series is by job, as their number would grow without end: this is a page of its own,
for who scrapes the jobs that he looks after. The label is not ``job``, which Prometheus sets itself.
"""

from collections.abc import Iterable, Mapping

from artesian.kernel.detections import Detections
from artesian.kernel.goodput import Goodput, Window
from artesian.model.ledger import US

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HEADS = {
    "artesian_job_device_seconds": (
        "seconds",
        "Device time since the job's first attempt, by what it went into. A gauge: work can turn out lost later.",
    ),
    "artesian_job_goodput_ratio": (
        "ratio",
        "Share of that device time that became progress, in all and over the sliding window.",
    ),
    "artesian_job_stragglers": (
        "",
        "Workers that hold the others up now. Not there where the job does not run, or does not look for them.",
    ),
    "artesian_job_straggler_ratio": (
        "ratio",
        "How many times as long as the middle worker such a worker computes.",
    ),
    "artesian_job_diverged_replicas": (
        "",
        "Workers whose parameters differ from the others'. Not there where the job does not run, or compares none.",
    ),
}


def render_openmetrics(
    goodputs: Iterable[Goodput], detections: Mapping[str, Detections] | None = None
) -> str:
    """Return the metrics of the jobs, with the end mark; what is unknown has no samples. ``detections`` are by job."""
    samples: dict[str, list[str]] = {name: [] for name in _HEADS}
    for goodput in goodputs:
        job = goodput.job_id.translate(_ESCAPES)
        if (whole := goodput.cumulative) is not None:
            causes = {"productive": whole.productive_us, **{str(k): us for k, us in whole.lost_us.items()}}
            samples["artesian_job_device_seconds"] += [
                f'artesian_job_device_seconds{{job_id="{job}",cause="{cause}"}} {us / US!r}'
                for cause, us in sorted(causes.items())
            ]
        samples["artesian_job_goodput_ratio"] += [
            f'artesian_job_goodput_ratio{{job_id="{job}",window="{name}"}} {window.share!r}'
            for name, window in _windows(goodput)
            if window is not None and window.share is not None
        ]
    for id_, (stragglers, divergences) in (detections or {}).items():
        job = id_.translate(_ESCAPES)
        if divergences is not None:
            count = len({worker for each in divergences for worker in each.workers})
            samples["artesian_job_diverged_replicas"].append(
                f'artesian_job_diverged_replicas{{job_id="{job}"}} {count}'
            )
        if stragglers is None:
            continue
        samples["artesian_job_stragglers"].append(
            f'artesian_job_stragglers{{job_id="{job}"}} {len(stragglers)}'
        )
        samples["artesian_job_straggler_ratio"] += [
            f'artesian_job_straggler_ratio{{job_id="{job}",worker="{slow.worker}"}} {slow.ratio!r}'
            for slow in stragglers
        ]
    lines = []
    for name, (unit, help_) in _HEADS.items():
        lines.append(f"# TYPE {name} gauge")
        if unit:
            lines.append(f"# UNIT {name} {unit}")
        lines += [f"# HELP {name} {help_}", *samples[name]]
    return "\n".join([*lines, "# EOF", ""])


def _windows(goodput: Goodput) -> tuple[tuple[str, Window | None], ...]:
    return ("all", goodput.cumulative), ("sliding", goodput.sliding)
