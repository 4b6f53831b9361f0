"""The loader: what the ranks train on, prepared ahead or not, over restarts, resizes and rollbacks."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from artesian.train import DataError
from artesian.train.loader import Batch, Loader
from artesian.train.sources import StreamSource


class Numbers(Dataset[int]):
    """Sample i is i."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class Noisy(Numbers):
    """Sample i, and what the three random generators give."""

    def __getitem__(self, index: int) -> Any:
        return index, torch.rand(2), random.random(), float(np.random.rand())


class Counting(IterableDataset[int]):
    """A stream of the numbers below ``size``, which can go on from where it was."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.at = self.begin = 0
        self.epochs: list[int] = []

    def __iter__(self) -> Iterator[int]:
        self.at, self.begin = self.begin, 0
        while self.at < self.size:
            self.at += 1
            yield self.at - 1

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.begin = self.at = state["at"]


def gang(dataset: Any, world_size: int, **more: Any) -> list[Loader]:
    return [Loader(dataset(), rank=rank, world_size=world_size, **more) for rank in range(world_size)]


def train(loader: Loader, steps: int) -> list[list[int]]:
    """Commit so many steps, and return the samples that were used in each."""
    used: list[list[int]] = []
    step: list[int] = []
    for batch in loader:
        step += batch.data.tolist()[: batch.samples]
        if batch.ends_step:
            loader.commit()
            used.append(step)
            step = []
        if len(used) == steps:
            break
    loader.close()
    return used


def used_by(loaders: list[Loader], steps: int) -> list[list[int]]:
    """What all ranks together use in each step."""
    return [list(chain(*parts)) for parts in zip(*(train(each, steps) for each in loaders), strict=True)]


@pytest.mark.parametrize("dataset", [lambda: Numbers(12), lambda: Counting(12)], ids=["map", "stream"])
@pytest.mark.parametrize("ahead", [0, 3])
def test_a_gang_of_any_size_uses_the_same_global_batches(dataset: Any, ahead: int) -> None:
    alone = used_by(gang(dataset, 1, global_batch=5, ahead=ahead), 6)
    assert [len(step) for step in alone] == [5] * 6
    passes = [sample for step in alone for sample in step]
    assert sorted(passes[:12]) == sorted(passes[12:24]) == list(range(12)), "each once a pass"
    for world_size in (2, 3, 7):
        assert used_by(gang(dataset, world_size, global_batch=5, ahead=ahead), 6) == alone
    halves = used_by(gang(dataset, 2, global_batch=5, ahead=ahead, micro_batch=2), 6)
    assert [sorted(step) for step in halves] == [sorted(step) for step in alone]


@pytest.mark.parametrize("dataset", [lambda: Numbers(9), lambda: Counting(9)], ids=["map", "stream"])
@pytest.mark.parametrize("ahead", [0, 2])
def test_samples_handed_out_and_not_committed_come_again_after_a_restart(dataset: Any, ahead: int) -> None:
    whole = train(Loader(dataset(), global_batch=4), 5)
    first = Loader(dataset(), global_batch=4, ahead=ahead)
    batches = iter(first)
    for _ in range(2):
        next(batches)
        first.commit()
    next(batches)
    saved = first.state_dict()
    first.close()
    second = Loader(dataset(), global_batch=4, ahead=ahead)
    second.load_state_dict(saved)
    assert train(second, 3) == whole[2:]


actions = st.one_of(
    st.tuples(st.just("steps"), st.integers(1, 4)),
    st.tuples(st.just("lose"), st.integers(1, 3)),
    st.tuples(st.just("resize"), st.integers(1, 5)),
    st.tuples(st.just("drop")),
    st.tuples(st.just("save")),
    st.tuples(st.just("restore"), st.booleans()),
)


@settings(max_examples=60, deadline=None)
@given(
    story=st.lists(actions, max_size=12),
    is_stream=st.booleans(),
    ahead=st.sampled_from([0, 2]),
    global_batch=st.integers(1, 9),
)
def test_committed_samples_are_exactly_once_a_pass_whatever_happens(
    story: list[tuple[Any, ...]], is_stream: bool, ahead: int, global_batch: int
) -> None:
    def make() -> Any:
        return Counting(7) if is_stream else Numbers(7)

    ahead = ahead if is_stream else 0  # processes are too slow for sixty stories
    options: dict[str, Any] = {"global_batch": global_batch, "ahead": ahead}
    loaders = gang(make, 2, **options)
    used: list[int] = []
    saved = (loaders[0].state_dict(), 0)
    for action in story:
        match action:
            case ("steps", int(steps)):
                used += [sample for step in used_by(loaders, steps) for sample in step]
            case ("lose", int(batches)):
                for loader in loaders:
                    list(islice(iter(loader), batches))
            case ("resize", int(world_size)):
                state = loaders[0].state_dict()
                for loader in loaders:
                    loader.close()
                loaders = gang(make, world_size, **options)
                for loader in loaders:
                    loader.load_state_dict(state)
            case ("drop",):
                for loader in loaders:
                    next(iter(loader))
                    loader.drop()
            case ("save",):
                saved = loaders[0].state_dict(), len(used)
            case ("restore", bool(excludes)):
                end = loaders[0].cursor.position
                for loader in loaders:
                    loader.load_state_dict(saved[0])
                    start = loader.cursor.position
                    loader.rewind(exclude=[range(start, end)] if excludes else [])
                del used[saved[1] :]
                saved = loaders[0].state_dict(), len(used)
    for loader in loaders:
        loader.close()
    cursor = loaders[0].cursor
    assert all(loader.cursor == cursor for loader in loaders)
    assert len(used) + cursor.excluded_samples == cursor.position
    most = -(-cursor.position // 7)
    assert all(count <= most for count in Counter(used).values())
    if not cursor.excluded_samples:
        assert Counter(used) == Counter(
            sample for step in _reference(make(), cursor.position) for sample in step
        )


def _reference(dataset: Any, samples: int) -> list[list[int]]:
    return train(Loader(dataset, global_batch=1), samples) if samples else []


def test_a_loop_goes_on_from_where_a_rewind_has_gone_back_to() -> None:
    loader = Loader(Counting(100), global_batch=2, ahead=2)
    seen: list[list[int]] = []
    for batch in loader:
        seen.append(batch.data.tolist())
        if len(seen) == 3:
            loader.rewind(exclude=[range(4, 6)])  # the third batch was bad
            continue
        if len(seen) == 5:
            loader.close()
            continue
        loader.commit()
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert loader.cursor.position == 8
    assert loader.cursor.excluded_samples == 2


def test_what_was_passed_over_stays_so_when_an_earlier_state_is_loaded() -> None:
    loader = Loader(list(range(100)), global_batch=4)
    before = loader.state_dict()
    handed: list[list[int]] = []
    for batch in loader:
        handed.append(list(batch.taken))
        match len(handed):
            case 2:
                loader.load_state_dict(before)
                loader.rewind(exclude=[range(4, 8)])
            case 4:
                loader.load_state_dict(before)  # once more, to before both
                loader.rewind(exclude=[range(8, 12)])
            case 7:
                break
            case _:
                loader.commit()
    loader.close()
    assert handed[2:4] == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert handed[4:] == [[0, 1, 2, 3], [12, 13, 14, 15], [16, 17, 18, 19]]


def test_dropped_samples_are_counted_also_when_more_is_prepared_already() -> None:
    loader = Loader(Counting(100), global_batch=2, ahead=3)
    for number, _ in enumerate(loader):
        if number == 1:
            loader.drop()
        else:
            loader.commit()
        if number == 3:
            loader.close()
    assert (loader.cursor.position, loader.cursor.excluded_samples) == (8, 2)


def test_a_commit_in_the_middle_of_a_step_is_refused() -> None:
    loader = Loader(Numbers(8), global_batch=4, micro_batch=1)
    next(iter(loader))
    with pytest.raises(ValueError, match="must follow the last micro-batch of a step"):
        loader.commit()


# -- randomness -----------------------------------------------------------------------------------------


def drawn(loader: Loader, steps: int) -> list[Any]:
    found = []
    for batch in islice(iter(loader), steps):
        found.append([part.tolist() for part in batch.data])
        loader.commit()
    loader.close()
    return found


def test_what_a_dataset_draws_depends_on_the_sample_and_not_on_who_reads_it() -> None:
    plain = drawn(Loader(Noisy(10), global_batch=4), 4)
    assert drawn(Loader(Noisy(10), global_batch=4, ahead=2, workers=2), 4) == plain
    torch.manual_seed(99)
    assert drawn(Loader(Noisy(10), global_batch=4), 4) == plain
    assert drawn(Loader(Noisy(10), global_batch=4, seed=1), 4) != plain
    noise = [draw for step in plain for draw in step[2]]
    assert len(set(noise)) == len(noise), "each pass draws anew"


@pytest.mark.parametrize("ahead", [0, 2])
def test_reading_leaves_the_jobs_own_random_generators_alone(ahead: int) -> None:
    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]

    before = state()
    drawn(Loader(Noisy(10), global_batch=4, ahead=ahead), 3)
    assert state() == before


class Normal(Numbers):
    """Sample i, and a normal number, of which numpy makes two at a time."""

    def __getitem__(self, index: int) -> Any:
        return index, float(np.random.randn())


_DRAWS: dict[str, Callable[[], float]] = {
    "normal": lambda: float(np.random.randn()),
    "uniform": lambda: float(np.random.rand()),
    "python": random.random,
    "torch": lambda: float(torch.rand(())),
}


@given(st.lists(st.sampled_from([*_DRAWS, "read"]), max_size=20), st.integers(0, 2**32 - 1))
def test_what_a_script_draws_between_two_batches_is_what_it_would_draw_without_them(
    acts: list[str], seed: int
) -> None:
    def all_drawn(*, reads: bool) -> list[float]:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        batches = iter(Loader(Normal(50), global_batch=3))
        found = []
        for act in acts:
            if act in _DRAWS:
                found.append(_DRAWS[act]())
            elif reads:
                next(batches)
        return found

    assert all_drawn(reads=True) == all_drawn(reads=False)


# -- what does not work ---------------------------------------------------------------------------------


def test_an_error_of_the_dataset_comes_in_its_turn() -> None:
    class Broken(Counting):
        def __iter__(self) -> Iterator[int]:
            yield from (0, 1, 2)
            raise OSError("the disk is gone")

    batches = iter(Loader(Broken(9), global_batch=2, ahead=3))
    assert next(batches).data.tolist() == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_a_checkpoint_of_other_data_is_refused() -> None:
    state = Loader(Numbers(10), global_batch=2).state_dict()
    with pytest.raises(DataError, match="saved with samples 10, seed 0, this run has samples 11, seed 0"):
        Loader(Numbers(11), global_batch=2).load_state_dict(state)
    with pytest.raises(DataError, match="not one in a stream"):
        Loader(Counting(10), global_batch=2).load_state_dict(state)
    with pytest.raises(DataError, match="'source' is missing"):
        Loader(Numbers(10), global_batch=2).load_state_dict({"cursor": state["cursor"]})


def test_a_stream_that_cannot_go_on_or_never_begins_is_refused() -> None:
    with pytest.raises(DataError, match="must have state_dict and load_state_dict, list_iterator has not"):
        Loader(iter([1, 2]), global_batch=1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the stream ended without a sample"):
        next(iter(Loader(Counting(0), global_batch=1)))
    with pytest.raises(DataError, match="the dataset has no samples"):
        Loader(Numbers(0), global_batch=1)


def test_a_stream_is_told_its_pass_and_only_kept_records_are_transformed() -> None:
    seen: list[int] = []

    def negative(record: int) -> int:
        seen.append(record)
        return -record

    stream = Counting(4)
    loader = Loader(
        StreamSource(stream, transform=negative),
        global_batch=4,
        rank=1,
        world_size=2,
    )
    assert train(loader, 2) == [[-2, -3], [-2, -3]]
    assert seen == [2, 3, 2, 3]
    assert stream.epochs == [1]


@pytest.mark.parametrize("name", ["global_batch", "workers", "ahead", "rank", "micro_batch"])
def test_arguments_out_of_range_are_refused(name: str) -> None:
    arguments = {"global_batch": 2, "workers": 1, "ahead": 0, "rank": 0, "micro_batch": 1}
    bad = {"ahead": -1, "rank": 1}.get(name, 0)
    with pytest.raises(ValueError, match=name):
        Loader(Numbers(3), **{**arguments, name: bad})  # type: ignore[arg-type]


# -- gradients ------------------------------------------------------------------------------------------


def loss(weights: Tensor, batch: Batch) -> Tensor:
    values: Tensor = (batch.data.double()[:, None] * weights).sin().sum(1)
    return values.mean()


@settings(max_examples=40, deadline=None)
@given(
    world_size=st.integers(1, 6), global_batch=st.integers(1, 10), micro_batch=st.none() | st.integers(1, 3)
)
def test_weighted_and_averaged_over_the_ranks_the_gradient_is_the_mean_over_all_samples(
    world_size: int, global_batch: int, micro_batch: int | None
) -> None:
    def gradient(rank: int, size: int, micro: int | None) -> Tensor:
        weights = torch.linspace(0.1, 1.0, 4, dtype=torch.float64).requires_grad_()
        loader = Loader(Numbers(40), global_batch=global_batch, rank=rank, world_size=size, micro_batch=micro)
        for batch in loader:
            (loss(weights, batch) * batch.weight).backward()  # type: ignore[no-untyped-call]
            if batch.ends_step:
                break
        assert weights.grad is not None
        return weights.grad

    averaged = sum(gradient(rank, world_size, micro_batch) for rank in range(world_size)) / world_size
    assert isinstance(averaged, Tensor)
    torch.testing.assert_close(averaged, gradient(0, 1, None))
