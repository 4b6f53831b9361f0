"""Trace files for tests: written ones, and the real ones where there are any."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from artesian.sim.traces import TraceError

ROOT = Path(__file__).resolve().parent.parent


def real(name: str) -> Path:
    """Return the path of a public trace. Skips the test where the user has none; fails it in CI."""
    data = Path(os.environ.get("ARTESIAN_DATA") or ROOT.parent / "shared" / "data")
    path = data / "traces" / name
    if not path.exists():
        reason = f"there is no {path}: set ARTESIAN_DATA to a folder that has traces/{name} in it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def written(folder: Path, text: str | bytes, name: str = "trace.csv") -> Path:
    """Return the path of a new file with ``text`` in it."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines(*rows: Iterable[object] | str, delimiter: str = ",") -> str:
    """Return rows, each a text or its cells, as lines."""
    return "".join(
        (row if isinstance(row, str) else delimiter.join(str(cell) for cell in row)) + "\n" for row in rows
    )


def place(error: TraceError) -> tuple[str, int | None, str | None]:
    """Return file name, row and column of an error, having checked that its text names all that there are."""
    text = str(error)
    assert str(error.path) in text
    assert error.row is None or f"row {error.row}" in text
    assert error.column is None or error.column in text
    return error.path.name, error.row, error.column


SMALL_FLEET = "name,nodes,accelerator,devices,cpus,memory\npool,1,H100,4,32,256GB\n"
FOUR_JOBS = """submit_s,duration_s,devices,name,estimated_duration_s
0,100,H100:2,first,100
1,50,H100:4,big,50
2,90,H100:2,short,90
3,500,H100:2,long,500
"""
