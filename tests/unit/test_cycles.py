"""What the driver counts of its cycles, and the server beside it reads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.server.cycles import BUCKETS_S, CycleLog, read_cycles


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=50))
def test_every_cycle_is_in_each_bucket_that_it_fits_into(
    tmp_path_factory: pytest.TempPathFactory, cycles: list[tuple[float, bool]]
) -> None:
    path = tmp_path_factory.mktemp("cycles") / "cycles"
    log = CycleLog(path)
    for seconds, has_notice in cycles:
        log.observe(seconds, has_notice)
    times = [seconds for seconds, _ in cycles]
    found = read_cycles(path)
    assert found is not None
    assert found.counts == tuple(sum(one <= bound for one in times) for bound in (*BUCKETS_S, float("inf")))
    assert found.total_s == pytest.approx(sum(times))
    assert found.noticed == sum(has_notice for _, has_notice in cycles)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_driver_begins_at_0(tmp_path: Path) -> None:
    CycleLog(tmp_path / "cycles").observe(1.0, True)
    CycleLog(tmp_path / "cycles")
    found = read_cycles(tmp_path / "cycles")
    assert found is not None
    assert (found.counts[-1], found.noticed, found.total_s) == (0, 0, 0.0)


def test_where_no_driver_ran_or_the_file_is_another_versions_nothing_is_known(tmp_path: Path) -> None:
    assert read_cycles(tmp_path / "cycles") is None
    (tmp_path / "cycles").write_bytes(b"12345678")
    assert read_cycles(tmp_path / "cycles") is None
