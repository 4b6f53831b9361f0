"""What watches the ranks: stragglers, replicas that differ, and guards, in real gangs over gloo."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from artesian.model.ledger import Stage
from artesian.train import Run
from artesian.train.divergence import Divergence, ReplicaCheck, checksum, differing
from artesian.train.guards import Action, Guard, Policy
from artesian.train.loader import Loader
from artesian.train.membership import current
from artesian.train.stragglers import (
    ComputeTimer,
    Straggler,
    StragglerPolicy,
    Stragglers,
    StragglerWatch,
    slow_ranks,
)
from artesian.wire.channel import ProgressReader
from artesian.wire.messages import ReplicasDiverged, StepCommitted, StragglerFound, WorkerStarted
from builders import Kernel, a_node, ended
from gang_harness import in_gang
from worker_messages import a_training, account, losses

# -- stragglers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times_s", "slow"),
    [
        ([1.0, 1.1, 0.9, 1.0], {}),
        ([1.0, 1.0, 2.0, 1.0], {2: 2.0}),
        ([1.0, 2.0], {1: 2.0}),
        ([1.0, None, 2.0, 1.0], {2: 2.0}),
        ([None, 5.0, None], {}),
        ([0.0, 0.0, 1.0], {}),
        ([], {}),
    ],
)
def test_a_rank_is_slow_against_the_middle_one(times_s: list[float | None], slow: dict[int, float]) -> None:
    assert slow_ranks(times_s, factor=1.3) == slow


@given(times_s=st.lists(st.floats(0.01, 10), min_size=2, max_size=12), scale=st.floats(0.1, 10))
def test_who_is_slow_depends_on_ratios_alone_and_is_never_the_majority(
    times_s: list[float], scale: float
) -> None:
    slow = slow_ranks(times_s, factor=1.5)
    assert len(slow) <= len(times_s) / 2
    assert all(ratio > 1.5 for ratio in slow.values())
    unclear = any(abs(a / b - 1.5) < 1e-6 for a in times_s for b in times_s)
    assert unclear or set(slow_ranks([each * scale for each in times_s], factor=1.5)) == set(slow)


def test_a_slow_rank_is_named_by_all_once_it_has_been_slow_for_long_enough() -> None:
    def work(rank: int) -> list[list[Straggler]]:
        watch = Stragglers(dist.group.WORLD, every=2, factor=1.3, patience=2)
        told = []
        for step in range(16):
            is_slow = (rank == 1 and step >= 4) or (rank == 2 and step in (4, 5))
            told.append(watch.note(2.0 if is_slow else 1.0))
        return told

    told = in_gang(4, work)
    assert all(each == told[0] for each in told)
    assert [step for step, found in enumerate(told[0]) if found] == [9, 11, 13, 15]
    assert told[0][9] == [Straggler(rank=1, ratio=2.0, windows=2, fresh=2, excess_s=4.0)]
    assert told[0][11] == [Straggler(rank=1, ratio=2.0, windows=3, fresh=1, excess_s=2.0)]
    assert str(told[0][15][0]) == "rank 1 computes 2.00 times as long as the others (5 windows in a row)"


def test_a_rank_that_is_alone_or_tells_nothing_is_no_straggler() -> None:
    watch = Stragglers(None, every=1, patience=1)
    assert [watch.note(1.0), watch.note(None), watch.note(9.0), watch.note(1.0)] == [[]] * 4


@pytest.mark.parametrize("bad", [{"every": 0}, {"patience": 0}, {"factor": 1.0}])
def test_stragglers_need_arguments_in_range(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive and factor above 1"):
        Stragglers(None, **bad)


def test_compute_time_ends_with_the_first_parameters_gradient_though_others_are_waited_for() -> None:
    def work(rank: int) -> bool:
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
        replica = DistributedDataParallel(model)
        timer = ComputeTimer(model, torch.device("cpu"))
        assert timer.read_s() is None
        times = []
        for _ in range(4):
            timer.begin()
            inputs = torch.ones(4, 8)
            if rank == 1:
                for _ in range(60):
                    inputs = (torch.ones(200, 200) @ torch.ones(200, 200))[:4, :8] / 200
            replica(inputs).sum().backward()
            times.append(timer.read_s() or 0.0)
        timer.begin()
        assert timer.read_s() is None, "no backward pass yet"
        timer.remove()
        replica(torch.ones(4, 8)).sum().backward()
        assert timer.read_s() is None
        rows = [torch.zeros(1) for _ in range(2)]
        dist.all_gather(rows, torch.tensor([sorted(times)[1]]))
        return bool(rows[1] > rows[0])

    assert in_gang(2, work) == [True, True]


def test_two_slow_ranks_are_told_of_apart_each_with_its_own_excess() -> None:
    def work(rank: int) -> list[list[Straggler]]:
        watch = Stragglers(dist.group.WORLD, every=1, factor=1.3, patience=1)
        return [watch.note((1.0, 3.0, 1.0, 2.0, 1.0)[rank]) for _ in range(3)]

    told = in_gang(5, work)[4]
    assert [[(found.rank, found.ratio, found.excess_s) for found in each] for each in told] == [
        [],
        *[[(1, 3.0, 2.0), (3, 2.0, 1.0)]] * 2,
    ]


def test_every_slow_window_is_told_by_rank_0_and_people_and_the_agent_hear_of_it_less_and_less_often(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def work(rank: int) -> tuple[list[dict[str, float]], list[str]]:
        told: list[dict[str, float]] = []
        asked: list[str] = []
        model = torch.nn.Linear(1, 1)
        watch = StragglerWatch(
            StragglerPolicy(every=2, patience=2, replaces=True),
            model,
            current(torch.device("cpu")),
            lambda **words: told.append(words),
            asked.append,
        )
        for step in range(1, 23):
            watch.begin()
            model(torch.ones(1, 1)).sum().backward()
            assert watch._timer._begin is not None
            watch._timer._begin, watch._timer._end = 0.0, 2.0 if rank == 1 else 1.0
            watch.note(step)
        watch.close()
        return told, asked

    first, second = in_gang(2, work)
    # The word on a window comes with the end of the next, and names the steps that it is about.
    assert [(each["rank"], each["step"], each["ratio"], each["steps"]) for each in first[0]] == [
        (1, step, 2.0, step) for step in range(4, 22, 2)
    ]
    assert [(each["window"], each["excess_s"]) for each in first[0]] == [(4, 4.0), *[(2, 2.0)] * 8]
    assert first[1] == second[0] == []
    said = [line for line in capfd.readouterr().err.splitlines() if "computes 2.00 times" in line]
    assert [line.split(" (")[1] for line in said] == [f"{n} windows in a row)" for n in (2, 4, 8)]
    assert [text.split(" (")[1] for text in second[1]] == [f"{n} windows in a row)" for n in (2, 4, 8)]


def test_after_going_back_the_steps_told_are_those_that_were_slow() -> None:
    def work(rank: int) -> list[int]:
        told: list[int] = []
        model = torch.nn.Linear(1, 1)
        watch = StragglerWatch(
            StragglerPolicy(every=2, patience=1),
            model,
            current(torch.device("cpu")),
            lambda **words: told.append(words["step"]),
            None,
        )
        for step in (1, 2, 3, 4, 2, 3, 4):  # a guard has gone back from 4 to 1
            watch.begin()
            model(torch.ones(1, 1)).sum().backward()
            watch._timer._begin, watch._timer._end = 0.0, 2.0 if rank == 1 else 1.0
            watch.note(step)
        watch.close()
        return told

    assert in_gang(2, work)[0] == [2, 4]


def test_a_run_finds_the_rank_that_computes_longer(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        model = torch.nn.Linear(2, 1)
        replica = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        policy = StragglerPolicy(every=2, patience=2)
        with Run.from_env(
            model=replica, optimizer=optimizer, progress_dir=tmp_path, stragglers=policy
        ) as run:
            assert run._slow is not None
            timer = run._slow._timer
            for batch in run.batches(Points(), global_batch=2, steps=8):
                time.sleep(0.02 * (1 + rank))
                (replica(batch.nan_to_num()) ** 2).sum().backward()
                timer._begin, timer._end = 0.0, 0.02 * (1 + rank)  # whatever a busy machine adds to either
                run.commit()

    in_gang(2, work)
    read = ProgressReader(tmp_path).read()
    assert [told.seeks_stragglers for told in read if isinstance(told, WorkerStarted)] == [True, True]
    found = [told for told in read if isinstance(told, StragglerFound)]
    assert [(told.rank, told.step, told.steps, told.window) for told in found] == [(1, 4, 4, 4), (1, 6, 6, 2)]
    for told in found:
        assert told.ratio > 1.3
        assert told.excess_s is not None
        assert told.excess_s > 0
    began_s = min(told.at_s for told in read if isinstance(told, WorkerStarted))
    ended_s = max(told.end_s for told in read if isinstance(told, StepCommitted))
    kernel = Kernel(a_node(devices=2))
    kernel.submit(a_training(), at_s=began_s)
    kernel.step(ended(at_s=ended_s))
    lost = losses(account(kernel.state, {1: read}, since=began_s, until=ended_s), Stage.PRODUCTIVE)
    # Rank 0 has waited on its device, in steps that were at least as long.
    assert lost["straggler"] == pytest.approx(sum(told.excess_s or 0.0 for told in found), abs=1e-4)


def test_a_model_without_a_parameter_to_train_cannot_be_timed() -> None:
    with pytest.raises(ValueError, match="must have a parameter that is trained"):
        ComputeTimer(torch.nn.ReLU(), torch.device("cpu"))


# -- replicas --------------------------------------------------------------------------------------------

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.int64]


@given(
    dtype=st.sampled_from(DTYPES),
    size=st.integers(1, 50),
    where=st.integers(0, 2**20),
    which=st.integers(0, 1),
)
def test_one_flipped_bit_anywhere_changes_the_checksum(
    dtype: torch.dtype, size: int, where: int, which: int
) -> None:
    tensors = [torch.arange(size).to(dtype), torch.ones(3, size).to(dtype)]
    before = checksum(tensors)
    assert checksum([each.clone() for each in tensors]) == before
    raw = tensors[which].reshape(-1).view(torch.uint8)
    raw[where % len(raw)] ^= 1 << (where % 8)
    assert checksum(tensors) != before
    assert -(2**63) <= before < 2**63


def test_a_checksum_sees_order_dtypes_and_values_that_compare_equal() -> None:
    a, b = torch.ones(2), torch.zeros(2)
    assert checksum([a, b]) != checksum([b, a])
    assert checksum([torch.zeros(2)]) != checksum([-torch.zeros(2)])
    assert checksum([torch.full((2,), math.nan)]) == checksum([torch.full((2,), math.nan)])
    assert checksum([torch.tensor([1 + 2j])]) != checksum([torch.tensor([1 + 3j])])
    assert checksum([torch.tensor([True])]) != checksum([torch.tensor([False])])
    assert checksum([torch.ones(2, 3).T]) == checksum([torch.ones(3, 2)])
    assert checksum([]) == 0
    odd = torch.arange(32.0).bfloat16()
    assert checksum([odd[1:30]]) == checksum([odd[1:30].clone()]), "wherever its storage begins"


@pytest.mark.parametrize(
    ("sums", "ranks", "is_certain"),
    [
        ([5], (), True),
        ([5, 5, 5], (), True),
        ([5, 7, 5], (1,), True),
        ([5, 7], (0, 1), False),
        ([1, 2, 3], (0, 1, 2), False),
        ([4, 4, 5, 6, 4], (2, 3), True),
    ],
)
def test_the_majority_says_who_differs(sums: list[int], ranks: tuple[int, ...], is_certain: bool) -> None:
    assert differing(sums) == (ranks, is_certain)


def test_a_replica_that_goes_astray_is_named_by_all() -> None:
    def work(rank: int) -> list[Divergence | None]:
        torch.manual_seed(3)
        model = torch.nn.Linear(4, 4)
        check = ReplicaCheck(model, dist.group.WORLD, every=2)
        told = []
        for step in range(1, 8):
            if rank == 2 and step == 4:
                with torch.no_grad():
                    model.weight[0, 0] = torch.nextafter(model.weight[0, 0], torch.tensor(9.0))
            told.append(check.note(step))
        return told

    told = in_gang(3, work)
    assert told[0] == told[1] == told[2]
    found = Divergence(step=4, ranks=(2,), is_certain=True)
    assert told[0] == [None, None, None, None, found, None, Divergence(step=6, ranks=(2,), is_certain=True)]
    assert str(found) == "after step 4, the parameters of rank 2 differ from those of the others"
    unsure = Divergence(step=4, ranks=(0, 1), is_certain=False)
    assert str(unsure).endswith("ranks 0, 1 differ, and no majority says which is right")


def test_a_run_says_once_that_a_replica_went_astray_and_again_when_another_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(rank: int) -> None:
        torch.manual_seed(3)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with Run.from_env(
            model=model, optimizer=optimizer, progress_dir=tmp_path, check_replicas_every=2
        ) as run:
            for _ in run.batches(Points(), global_batch=3, steps=12):
                if (rank, run.step) in {(2, 3), (1, 7)}:
                    with torch.no_grad():
                        model.weight += 1
                run.commit()

    in_gang(3, work)
    read = ProgressReader(tmp_path).read()
    assert [told.checks_replicas for told in read if isinstance(told, WorkerStarted)] == [True] * 3
    found = [told for told in read if isinstance(told, ReplicasDiverged)]
    assert [(told.rank, told.step, told.ranks, told.is_certain) for told in found] == [
        (0, 4, (2,), True),
        (0, 8, (0,), True),
    ]
    printed = capfd.readouterr().err
    assert printed.count("after step 4, the parameters of rank 2 differ") == 1
    assert printed.count("differ from those of the others") == 2


def test_replicas_are_compared_every_so_many_steps() -> None:
    with pytest.raises(ValueError, match="every must be positive"):
        ReplicaCheck(torch.nn.Linear(1, 1), None, every=0)


# -- guards and data in a gang ---------------------------------------------------------------------------


class Points(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([1.0, math.nan if index == 13 else index / 64.0])


def trained(rank: int, world_size: int) -> tuple[list[float], list[int]]:
    """Train through one pass with a bad sample in it; return the weights, and the steps that were skipped."""
    torch.manual_seed(0)
    model: torch.nn.Module = torch.nn.Linear(2, 1).double()
    replica = DistributedDataParallel(model) if world_size > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(Policy(), control=dist.group.WORLD if world_size > 1 else None)
    loader = Loader(Points(), global_batch=5, rank=rank, world_size=world_size, micro_batch=2)
    skipped = []
    total = 0.0
    for batch in loader:
        loss = ((replica(batch.data.double()) - 1) ** 2).mean()
        (loss * batch.weight).backward()
        total += loss.item() * batch.weight
        if not batch.ends_step:
            continue
        step = loader.cursor.position // 5 + 1
        if guard.inspect(total, step=step, taken=batch.taken).action is Action.SKIP:
            loader.drop()
            skipped.append(step)
        else:
            optimizer.step()
            loader.commit()
        optimizer.zero_grad()
        total = 0.0
        if loader.cursor.position >= 60:
            loader.close()
    assert loader.cursor.excluded_samples == 5 * len(skipped)
    weights: list[float] = [each for parameter in model.parameters() for each in parameter.flatten().tolist()]
    return weights, skipped


def test_three_ranks_with_uneven_shares_train_as_one_and_skip_the_same_bad_batch() -> None:
    alone, skipped = trained(0, 1)
    assert len(skipped) == 1
    assert all(map(math.isfinite, alone))
    for weights, skipped_too in in_gang(3, lambda rank: trained(rank, 3)):
        assert skipped_too == skipped
        assert weights == pytest.approx(alone, rel=1e-12)
