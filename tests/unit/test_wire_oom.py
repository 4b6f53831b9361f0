"""Who the out-of-memory killer has ended: not every SIGKILL on a machine where it was at work."""

from pathlib import Path

import pytest

from artesian.wire.oom import oom_counts, was_oom_killed


def a_machine(root: Path, *, machine: int, own: int | None, log: str = "", version: int = 2) -> str:
    """Describe a machine as files: its counters, and its kernel's log."""
    events = "memory.events" if version == 2 else "memory.oom_control"
    group = root / ("sys/fs/cgroup/job" if version == 2 else "sys/fs/cgroup/memory/job")
    for folder in (group, root / "proc/self", root / "dev"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "proc/vmstat").write_text(f"pgfault 12\noom_kill {machine}\n")
    (root / "proc/self/cgroup").write_text("0::/job\n" if version == 2 else "4:memory:/job\n0::/\n")
    if own is not None:
        (group / events).write_text(f"low 0\noom_kill {own}\n")
    (root / "dev/kmsg").write_text(log)
    return str(root)


@pytest.mark.parametrize("version", [1, 2])
def test_a_kill_in_our_own_memory_cgroup_is_ours(tmp_path: Path, version: int) -> None:
    before = oom_counts(a_machine(tmp_path, machine=3, own=1, version=version))
    assert before == (1, 3)
    assert was_oom_killed(7, before, root=a_machine(tmp_path, machine=4, own=2, version=version))


def test_a_kill_elsewhere_on_the_machine_is_not_ours(tmp_path: Path) -> None:
    before = oom_counts(a_machine(tmp_path, machine=3, own=1))
    log = "6,1,2,-;Memory cgroup out of memory: Killed process 70 (hog) total-vm:1kB"
    assert not was_oom_killed(7, before, root=a_machine(tmp_path, machine=4, own=1, log=log))


def test_a_process_that_had_moved_to_another_cgroup_is_named_by_the_kernels_log(tmp_path: Path) -> None:
    before = oom_counts(a_machine(tmp_path, machine=3, own=1))
    log = "6,1,2,-;Memory cgroup out of memory: Killed process 7 (hog) total-vm:1kB"
    assert was_oom_killed(7, before, root=a_machine(tmp_path, machine=4, own=1, log=log))


def test_an_old_line_of_the_log_is_no_witness_where_nothing_was_counted_since(tmp_path: Path) -> None:
    log = "6,1,2,-;Out of memory: Killed process 7 (hog) total-vm:1kB"
    root = a_machine(tmp_path, machine=3, own=1, log=log)
    assert not was_oom_killed(7, oom_counts(root), root=root)


def test_where_nothing_tells_it_is_not_claimed(tmp_path: Path) -> None:
    assert oom_counts(str(tmp_path)) == (None, None)
    assert not was_oom_killed(7, (None, None), root=str(tmp_path))


def test_this_machine_tells() -> None:
    own, machine = oom_counts()
    assert machine is None or machine >= 0
    assert own is None or own >= 0
