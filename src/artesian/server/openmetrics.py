"""Goodput of jobs as OpenMetrics text, for whatever scrapes it.

Of the server's own page no series is by job, as their number would grow without end: this is a page of its own,
for who scrapes the jobs that he looks after. The label is not ``job``, which Prometheus sets itself.
"""

from collections.abc import Iterable

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
}


def render_openmetrics(goodputs: Iterable[Goodput]) -> str:
    """Return the metrics of the jobs, with the end mark; a job whose goodput is unknown has no samples."""
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
    lines = []
    for name, (unit, help_) in _HEADS.items():
        lines += [f"# TYPE {name} gauge", f"# UNIT {name} {unit}", f"# HELP {name} {help_}", *samples[name]]
    return "\n".join([*lines, "# EOF", ""])


def _windows(goodput: Goodput) -> tuple[tuple[str, Window | None], ...]:
    return ("all", goodput.cumulative), ("sliding", goodput.sliding)
