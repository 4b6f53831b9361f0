"""Times, amounts and shares as the pages write them. Times are UTC: the server does not know the reader's zone."""

import time
from datetime import UTC, datetime

from artesian.model.ledger import US
from artesian.model.units import format_duration
from artesian.model.views import JobView
from artesian.server.ui.markup import Markup, tag
from artesian.server.ui.texts import Texts

_HOURS_FROM_US = 2 * 3600 * US


def moment(at_s: float | None) -> Markup | str:
    """Return a time, to the second; today's without its date."""
    if at_s is None:
        return "–"
    at = datetime.fromtimestamp(at_s, UTC)
    is_today = at.date() == datetime.now(UTC).date()
    shown = f"{at:%H:%M:%S} UTC" if is_today else f"{at:%Y-%m-%d %H:%M} UTC"
    return tag("time", shown, datetime=at.isoformat(timespec="seconds"))


def ago(at_s: float, texts: Texts) -> str:
    """Return how long ago a time was."""
    return texts("for_s", duration=format_duration(max(0.0, time.time() - at_s)))


def state_badge(state: str, texts: Texts) -> Markup:
    """Return the name of a job's state, with its colour beside it."""
    return tag("span", texts(f"state.{state}"), class_=f"state {state}")


def job_link(job_id: str) -> Markup:
    """Return the way to a job's page."""
    return tag("a", job_id, href=f"/ui/jobs/{job_id}")


def asked(job: JobView) -> str:
    """Return which devices a job asks for: one of the kinds, first choice first."""
    return " | ".join(job.devices)


def unit_of(nameplate_us: int) -> tuple[str, int]:
    """Return the key of the unit that device time is given in, and how many microseconds it has."""
    return ("device_hours", 3600 * US) if nameplate_us >= _HOURS_FROM_US else ("device_seconds", US)


def amount(us: int, unit_us: int) -> str:
    """Return an amount without its unit; what is not nothing never reads as 0."""
    return "<0.1" if 0 < us < unit_us / 20 else f"{us / unit_us:,.1f}"


def percent(part: float, whole: float) -> str:
    """Return a share; what is not nothing never reads as 0."""
    share = 100 * part / whole if whole else 0.0
    return "<0.1%" if 0 < share < 0.05 else f"{share:.1f}%"
