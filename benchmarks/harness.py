"""What every benchmark has in common: arguments, the machine, samples, the table, the JSON.

A benchmark is a function ``run(is_quick) -> results`` and ``harness.main(NAME, run)`` under
``if __name__ == "__main__"``. It is then run as ``python benchmarks/NAME.py [-o json] [--quick]``. However it
ends, by ``timeout`` for one, no process that it has started is left, nor a folder that a ``with`` removes.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from artesian.census import Machine, discover
from processes import leaving_nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure. ``value`` is a median and ``spread`` its p20 and p80; None where there is none.

    ``bar`` is what the figure should reach, ``peer_value`` what ``peer`` did in the same run.
    """

    case: str
    value: float | None
    unit: str
    better: Literal["lower", "higher"]
    bar: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    spread: tuple[float, float] | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the figure reaches its bar; None where there is no bar or no figure."""
        if self.bar is None or self.value is None:
            return None
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar


def measured(
    case: str,
    samples: Sequence[float],
    unit: str,
    better: Literal["lower", "higher"],
    *,
    bar: float | None = None,
    peer: str | None = None,
    peer_samples: Sequence[float] = (),
) -> Result:
    """Return the result of ``samples``, at least one: median, p20 and p80; the peer's median beside it."""
    return Result(
        case=case,
        value=statistics.median(samples),
        unit=unit,
        better=better,
        bar=bar,
        peer=peer,
        peer_value=statistics.median(peer_samples) if peer_samples else None,
        spread=(_quantile(samples, 0.2), _quantile(samples, 0.8)) if len(samples) > 1 else None,
    )


def main(name: str, run: Callable[[bool], Sequence[Result]]) -> None:
    """Read the arguments, run the benchmark, and print its results on stdout."""
    parser = argparse.ArgumentParser(
        prog=f"benchmarks/{name}.py", description=sys.modules["__main__"].__doc__
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="default: table")
    parser.add_argument("--quick", action="store_true", help="smaller sizes: under 60 s, less telling")
    arguments = parser.parse_args()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    if arguments.quick:
        say("quick: smaller sizes, fewer samples; quote figures of a full run only")
    machine = discover()
    with leaving_nothing():
        results = run(arguments.quick)
    if arguments.output == "json":
        document: dict[str, Any] = {
            "name": name,
            "commit": _commit(),
            "machine": _facts(machine),
            "started_at": started_at,
            "results": [asdict(result) for result in results],
        }
        if arguments.quick:
            document["quick"] = True
        print(json.dumps(document, indent=2))
    else:
        _print_table(f"{name} (quick)" if arguments.quick else name, results, machine)


def say(text: str) -> None:
    """Tell on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def _facts(machine: Machine) -> dict[str, Any]:
    names = {f"{count} x {name}" for name, count in machine.device_counts.items() if machine.accelerators}
    return {
        "cpu": machine.host.cpu_model,
        "cores": machine.host.usable_cores,
        "memory_bytes": machine.host.usable_memory_bytes,
        "accelerator": ", ".join(sorted(names)) or None,
    }


def _commit() -> str | None:
    """Return the commit, marked where the files differ from it; None outside of a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    found = subprocess.run(
        [git, "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() if found.returncode == 0 else None


def _quantile(samples: Sequence[float], share: float) -> float:
    """Return the quantile, interpolated between the two samples next to it."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _print_table(title: str, results: Sequence[Result], machine: Machine) -> None:
    facts = _facts(machine)
    memory = "unknown memory" if facts["memory_bytes"] is None else f"{facts['memory_bytes'] / 2**30:.0f} GiB"
    caption = f"{facts['cpu'] or 'unknown CPU'}, {facts['cores']} cores, {memory}, {facts['accelerator'] or 'no accelerator'}"
    table = Table(title=title, caption=caption)
    table.add_column("case")
    table.add_column("value", justify="right")
    table.add_column("p20–p80", justify="right")
    table.add_column("unit")
    table.add_column("bar", justify="right")
    table.add_column("peer")
    for result in results:
        spread = "–" if result.spread is None else "–".join(map(_figure, result.spread))
        verdict = {True: " met", False: " missed", None: ""}[result.is_met]
        sign = "≤ " if result.better == "lower" else "≥ "
        bar = "–" if result.bar is None else f"{sign}{_figure(result.bar)}{verdict}"
        peer = "–" if result.peer is None else f"{_figure(result.peer_value)}: {result.peer}"
        table.add_row(result.case, _figure(result.value), spread, result.unit, bar, peer)
    Console().print(table)
