"""The cursor of samples: exactly once, over any sequence of resizes, rollbacks and exclusions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.train import DataError
from artesian.train.cursor import Cursor, Share, Taken, deal

ranks = st.integers(min_value=1, max_value=9)
ranges = st.tuples(st.integers(0, 200), st.integers(0, 30)).map(
    lambda pair: range(pair[0], pair[0] + pair[1])
)


def whole(count: int) -> Taken:
    return Cursor().take(count)[0]


def used(shares: list[Share]) -> list[int]:
    return [position for share in shares if share.weight for position in share.positions]


@given(
    total=st.integers(min_value=1, max_value=60),
    world_size=ranks,
    micro_batch=st.none() | st.integers(min_value=1, max_value=8),
)
def test_the_ranks_share_a_batch_without_gap_or_overlap_and_weigh_every_sample_alike(
    total: int, world_size: int, micro_batch: int | None
) -> None:
    dealt = [
        deal(whole(total), rank=rank, world_size=world_size, micro_batch=micro_batch)
        for rank in range(world_size)
    ]
    assert sorted(p for shares in dealt for p in used(shares)) == list(range(total))
    assert len({len(shares) for shares in dealt}) == 1, "all ranks take part in equally many collectives"
    sizes = [len(used(shares)) for shares in dealt]
    assert max(sizes) - min(sizes) <= 1
    for share in (share for shares in dealt for share in shares):
        assert share.positions, "no rank is left without a batch"
        assert micro_batch is None or len(share.positions) <= micro_batch
        # Averaged over the ranks, each sample of the share weighs 1 / total.
        if share.weight:
            assert share.weight / world_size / len(share.positions) == pytest.approx(1 / total)


@given(share=st.integers(min_value=1, max_value=40), world_size=ranks)
def test_a_batch_that_splits_evenly_needs_no_weights(share: int, world_size: int) -> None:
    for rank in range(world_size):
        (only,) = deal(whole(share * world_size), rank=rank, world_size=world_size)
        assert only.weight == 1.0
        assert list(only.positions) == list(range(rank * share, (rank + 1) * share))


class Story:
    """A job told by what happens to it: committed positions, and what a restart would go on from."""

    def __init__(self) -> None:
        self.cursor = Cursor()
        self.saved = (Cursor(), 0)
        self.committed: list[int] = []

    def step(self, global_batch: int, world_size: int, *, is_committed: bool) -> None:
        taken, after = self.cursor.take(global_batch)
        if is_committed:
            for rank in range(world_size):
                self.committed += used(deal(taken, rank=rank, world_size=world_size))
            self.cursor = after

    def save(self) -> None:
        self.saved = Cursor.from_state(self.cursor.state_dict()), len(self.committed)

    def roll_back(self, excluded: list[range]) -> None:
        self.cursor = self.saved[0].excluding(excluded)
        del self.committed[self.saved[1] :]
        self.save()


events = st.one_of(
    st.tuples(st.just("step"), st.integers(1, 25), ranks, st.booleans()),
    st.tuples(st.just("save")),
    st.tuples(st.just("roll back"), st.lists(ranges, max_size=3)),
)


@given(st.lists(events, max_size=60))
def test_every_sample_is_used_once_or_excluded_whatever_resizes_and_rollbacks_there_are(
    story: list[tuple[object, ...]],
) -> None:
    job = Story()
    for event in story:
        match event:
            case ("step", int(batch), int(world_size), bool(is_committed)):
                job.step(batch, world_size, is_committed=is_committed)
            case ("save",):
                job.save()
            case ("roll back", list(excluded)):
                job.roll_back(excluded)
    position = job.cursor.position
    assert len(job.committed) == len(set(job.committed)), "none twice"
    assert set(job.committed) <= set(range(position))
    assert len(job.committed) + job.cursor.excluded_samples == position, "none forgotten"
    assert all(each.start >= position for each in job.cursor.excluded)


@given(start=st.integers(0, 50), excluded=st.lists(ranges, max_size=6), counts=st.lists(st.integers(1, 30)))
def test_what_is_excluded_is_passed_over_and_counted(
    start: int, excluded: list[range], counts: list[int]
) -> None:
    cursor = Cursor(position=start).excluding(excluded)
    out = {position for each in excluded for position in each}
    expected = iter(position for position in range(start, 10_000) if position not in out)
    for count in counts:
        taken, cursor = cursor.take(count)
        assert list(taken) == [next(expected) for _ in range(count)]
        assert len(taken) == count
        assert cursor.excluded_samples == len([p for p in out if start <= p < cursor.position])


def test_a_cursor_is_a_value_that_taking_does_not_change() -> None:
    cursor = Cursor()
    _, after = cursor.take(4)
    assert (cursor.position, after.position) == (0, 4)
    assert Cursor.from_state(after.excluding([range(9, 12)]).state_dict()) == after.excluding([range(9, 12)])


@pytest.mark.parametrize("state", [{}, {"position": 1, "excluded": [[1]], "excluded_samples": 0}])
def test_a_damaged_state_is_told(state: dict[str, object]) -> None:
    with pytest.raises(DataError, match="the position in the data is damaged"):
        Cursor.from_state(state)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="count must be positive, got 0"):
        Cursor().take(0)
    with pytest.raises(ValueError, match="rank must be at least 0 and below the world size 2, got 2"):
        deal(whole(4), rank=2, world_size=2)
    with pytest.raises(ValueError, match="micro_batch must be positive, got 0"):
        deal(whole(4), rank=0, world_size=2, micro_batch=0)
