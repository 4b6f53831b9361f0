"""Cycles in which a policy could not decide as it should: counted by the simulator, and told by all that shows them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner, Result

from artesian.cli.simulate import simulate as command
from artesian.model.fleet import Fleet
from artesian.policy.pools import Pools
from artesian.policy.registry import in_rounds, policy
from artesian.policy.solver import FloatArray, LinearProgram, SolverFailed
from artesian.server.ui.simulate import comparison
from artesian.server.ui.texts import Texts
from artesian.sim import report, simulate
from builders import a_node
from simulations import a_sim_job

SAID = "fair share of throughput came to nothing"
JOBS = "submit_s,duration_s,devices,name\n" + "".join(
    f"{20 * number},300,H100:1,j{number}\n" for number in range(6)
)
FLEET = "name,nodes,accelerator,devices,cpus,memory\ntrain,1,H100,2,96,1TB\n"


@contextmanager
def failing(at: Callable[[int], bool]) -> Iterator[None]:
    """The solver fails in those of its calls, counted from 0."""
    sound, calls = LinearProgram.solve, 0

    def solve(program: LinearProgram) -> FloatArray:
        nonlocal calls
        calls += 1
        if at(calls - 1):
            raise SolverFailed("told so by a test")
        return sound(program)

    with mock.patch.object(LinearProgram, "solve", solve):
        yield


def test_cycles_with_a_notice_are_counted_and_the_first_is_kept() -> None:
    jobs = [a_sim_job(f"j{number}", "1", at=50.0 * number, takes=100.0) for number in range(4)]
    fleet = Fleet(nodes=(a_node(devices=1),))
    noticed = []

    class Noting:
        def __init__(self) -> None:
            self.inner = in_rounds("max-min", round_s=1e6)

        def plan(self, snapshot: object) -> object:
            noticed.append((plan := self.inner.plan(snapshot)).notice)  # type: ignore[arg-type]
            return plan

        def explain(self, snapshot: object, job_id: str) -> object:
            return self.inner.explain(snapshot, job_id)  # type: ignore[arg-type]

    with failing(lambda call: call % 3 == 1):
        result = simulate(fleet, jobs, Noting())  # type: ignore[arg-type]
    found = report(result)
    told = [notice for notice in noticed if notice is not None]
    assert 0 < len(told) < len(noticed)
    assert (found.cycles, found.noticed, found.notice) == (len(noticed), len(told), told[0])
    assert found.to_dict()["noticed_cycles"] == len(told)


def test_a_policy_that_always_could_decide_has_none() -> None:
    jobs = [a_sim_job("j", "1", takes=100.0)]
    for chosen in (policy("easy"), in_rounds("max-min")):
        found = report(simulate(Fleet(nodes=(a_node(devices=1),)), jobs, chosen))
        assert (found.noticed, found.notice, found.notice_text) == (0, None, None)
        assert found.cycles > 0


def test_the_notice_of_one_pool_counts_for_all() -> None:
    jobs = [a_sim_job(f"j{number}", "1", takes=100.0) for number in range(2)]
    with failing(lambda _: True):
        chosen = Pools({"default": in_rounds("max-min")}, policy("fifo"))
        found = report(simulate(Fleet(nodes=(a_node(devices=1),)), jobs, chosen))
    assert found.noticed > 0
    assert found.notice is not None
    assert SAID in found.notice


def run(folder: Path, *more: str, at: Callable[[int], bool] = lambda _: True) -> Result:
    (folder / "jobs.csv").write_text(JOBS)
    (folder / "fleet.csv").write_text(FLEET)
    words = ["--jobs", str(folder / "jobs.csv"), "--fleet", str(folder / "fleet.csv")]
    with failing(at):
        found = CliRunner().invoke(command, [*words, "--policy", "fifo,max-min", *more])
    assert found.exit_code == 0, found.output
    return found


def test_the_table_counts_them_and_stderr_says_what_the_policy_said(tmp_path: Path) -> None:
    found = run(tmp_path)
    header, fifo, fair = found.stdout.splitlines()[1:4]
    assert header.split()[-1] == "noticed"
    cycles = json.loads(run(tmp_path, "-o", "json").stdout)["policies"]
    assert fifo.endswith(f"0 of {cycles[0]['cycles']}")
    assert fair.endswith(f"{cycles[1]['noticed_cycles']} of {cycles[1]['cycles']}")
    assert cycles[1]["noticed_cycles"] > 0
    assert [line.startswith("max-min: in ") for line in found.stderr.splitlines() if SAID in line] == [True]


def test_a_table_without_any_has_no_column_for_them(tmp_path: Path) -> None:
    found = run(tmp_path, at=lambda _: False)
    assert "noticed" not in found.stdout
    assert SAID not in found.stderr


def test_the_page_says_what_the_policy_said(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs the extra plot")
    page = tmp_path / "page.html"
    run(tmp_path, "--html", str(page))
    assert f"cycles it could not decide as it should: {SAID}" in page.read_text()
    run(tmp_path, "--html", str(page), at=lambda _: False)
    assert SAID not in page.read_text()


@pytest.mark.parametrize(
    ("language", "words"), [("en", "could not decide as it should"), ("zh", "未能按策略决策")]
)
def test_the_dashboards_comparison_says_it_too(tmp_path: Path, language: str, words: str) -> None:
    texts = Texts(language)  # type: ignore[arg-type]
    shown = str(comparison(json.loads(run(tmp_path, "-o", "json").stdout), texts))
    assert words in shown
    assert SAID in shown
    sound = json.loads(run(tmp_path, "-o", "json", at=lambda _: False).stdout)
    assert words not in str(comparison(sound, texts))
