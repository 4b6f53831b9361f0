"""Global batches, dealt to the ranks: exactly once, prepared ahead or not.

::

    loader = Loader(dataset, global_batch=512, rank=member.rank, world_size=member.world_size)
    for batch in loader:
        (loss_of(batch.data) * batch.weight).backward()
        if batch.ends_step:
            optimizer.step()
            loader.commit()

What was handed out is not what is committed: a sample that was handed out and not committed comes again.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from artesian.train.ahead import ahead_of
from artesian.train.cursor import Cursor, Share, Taken, deal
from artesian.train.errors import DataError
from artesian.train.sources import MapDataset, MapSource, Stream, StreamSource, source_of

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a rank runs one forward and backward pass on.

    Multiply the mean loss with ``weight``: it is 1 where the ranks share the global batch evenly in one
    pass. ``samples`` counts those that are used, 0 for a rank that only keeps the others company.
    ``ends_step`` says that the optimizer's step follows. ``taken`` is the global batch, of all ranks.
    """

    data: Any
    weight: float
    samples: int
    ends_step: bool
    taken: Taken


@dataclass(frozen=True, slots=True)
class _Step:
    """A global batch that is ready: this rank's part, and what is true once it is committed."""

    data: list[Any]
    shares: list[Share]
    taken: Taken
    after: Cursor
    source_state: dict[str, Any] | None


_Plan = tuple[list[Share], Taken, Cursor]


class Loader:
    """Deals global batches to ranks; its state is one position, the same on all ranks."""

    def __init__(
        self,
        dataset: MapDataset | Stream | MapSource | StreamSource,
        *,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int | None = None,
        seed: int = 0,
        ahead: int = 0,
        workers: int = 1,
        collate: Collate = default_collate,
    ) -> None:
        """Deal ``global_batch`` samples a step to ``world_size`` ranks, evenly or nearly so.

        ``micro_batch`` is the most samples of one backward pass. ``ahead`` global batches are prepared in
        the background: those of a map-style dataset by ``workers`` processes, which get the dataset by fork,
        those of a stream by a thread. All ranks give the same arguments, but their rank.

        Raises DataError for a dataset that is empty or can be neither indexed nor resumed, ValueError for
        arguments out of range.
        """
        if global_batch < 1 or ahead < 0 or workers < 1:
            raise ValueError(
                f"global_batch and workers must be positive and ahead not negative, "
                f"got {global_batch}, {workers} and {ahead}"
            )
        self._source = source_of(dataset, seed=seed)
        self._global_batch = global_batch
        self._micro_batch = micro_batch
        self._ahead, self._workers = ahead, workers
        self._collate = collate
        self._committed = self._handed = Cursor()
        self._source_state = self._handed_state = self._stream_state()
        self._unsettled = self._dropped = self._iterations = 0
        self._is_within_step = self._is_closed = False
        self._passed_over: tuple[range, ...] = ()
        """By ``rewind``: an earlier state, which knows nothing of them, does not bring them back."""
        self._feed: Generator[_Step] | None = None
        self.resize(rank, world_size)

    @property
    def cursor(self) -> Cursor:
        """The samples that are committed."""
        return self._committed

    def resize(self, rank: int, world_size: int) -> None:
        """Deal to another gang from here on; what was handed out and not committed comes again."""
        deal(Cursor().take(1)[0], rank=rank, world_size=world_size, micro_batch=self._micro_batch)
        self._rank, self._world_size = rank, world_size
        self.rewind()

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's batches from the last committed step on, without end.

        It goes on where ``rewind``, ``resize`` and ``load_state_dict`` say, also in the middle of a loop, and
        ends with ``close`` or when it is iterated anew.
        """
        self.rewind()
        self._is_closed = False
        self._iterations += 1
        mine = self._iterations
        while not self._is_closed and self._iterations == mine:
            feed = self._feed = self._steps()
            for step in feed:
                for batch in self._hand_out(step):
                    yield batch
                    if self._feed is not feed:
                        break
                if self._feed is not feed:
                    break

    def _hand_out(self, step: _Step) -> Iterator[Batch]:
        last = len(step.shares) - 1
        for number, (data, share) in enumerate(zip(step.data, step.shares, strict=True)):
            self._is_within_step = number < last
            if number == last:
                self._handed = step.after.having_excluded(self._dropped) if self._dropped else step.after
                self._handed_state = step.source_state
                self._unsettled += len(step.taken)
            yield Batch(
                data=data,
                weight=share.weight,
                samples=len(share.positions) if share.weight else 0,
                ends_step=number == last,
                taken=step.taken,
            )

    def commit(self) -> None:
        """Say that a step of the optimizer has used all that was handed out.

        Raises ValueError in the middle of a global batch: the rest of its samples would be lost.
        """
        if self._is_within_step:
            raise ValueError(
                "commit must follow the last micro-batch of a step (batch.ends_step), got an earlier one"
            )
        self._committed, self._source_state = self._handed, self._handed_state
        self._unsettled = 0

    def drop(self) -> None:
        """Say that what was handed out since the last commit will not be used: it is passed over, and counted.

        Raises ValueError as ``commit`` does.
        """
        dropped = self._unsettled
        self.commit()
        self._committed = self._handed = self._committed.having_excluded(dropped)
        self._dropped += dropped  # what is prepared already does not know of them

    def rewind(self, exclude: Iterable[range] = ()) -> None:
        """Go back to the last committed step, or to what ``load_state_dict`` brought; pass over ``exclude`` from there on.

        What was passed over once stays so, also where a later call goes back to before it.
        """
        self._end_feed()
        self._passed_over = (*self._passed_over, *exclude)
        self._committed = self._handed = self._committed.excluding(self._passed_over)
        self._handed_state = self._source_state
        self._unsettled, self._dropped, self._is_within_step = 0, 0, False
        if isinstance(self._source, StreamSource) and self._source_state is not None:
            self._source.load_state_dict(self._source_state)

    def close(self) -> None:
        """End the iteration, and what prepares batches in the background."""
        self._is_closed = True
        self._end_feed()

    def _end_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def state_dict(self) -> dict[str, Any]:
        """Return the committed position as plain data; the same on all ranks, so that one may save it."""
        source = self._source.state_dict() if self._source_state is None else self._source_state
        return {"cursor": self._committed.state_dict(), "source": source}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, on any number of ranks and with any global batch.

        Raises DataError where it does not fit the dataset.
        """
        try:
            cursor, source = state["cursor"], state["source"]
        except KeyError as error:
            raise DataError(f"the checkpoint has no position in the data: {error} is missing") from error
        committed = Cursor.from_state(cursor)
        self._source.load_state_dict(source)
        self._committed = committed
        self._source_state = None if isinstance(self._source, MapSource) else dict(source)
        self.rewind()

    def seek(self, position: int) -> None:
        """Go on from the sample at ``position``, for checkpoints that have nothing but that.

        Raises DataError for a stream, which only its own state brings back.
        """
        if isinstance(self._source, StreamSource):
            raise DataError(
                "the checkpoint has no state of the stream", hint="it was saved by a run on other data"
            )
        self._committed = Cursor(position=position)
        self.rewind()

    # -- preparing ------------------------------------------------------------------------------------

    def _plans(self) -> Iterator[_Plan]:
        cursor = self._handed
        while True:
            taken, cursor = cursor.take(self._global_batch)
            shares = deal(taken, rank=self._rank, world_size=self._world_size, micro_batch=self._micro_batch)
            yield shares, taken, cursor

    def _steps(self) -> Generator[_Step]:
        if isinstance(self._source, StreamSource):
            steps = self._read(self._source)
            return ahead_of(steps, self._ahead) if self._ahead else steps
        return self._read_by_workers(self._source) if self._ahead else self._read(self._source)

    def _read(self, source: MapSource | StreamSource) -> Generator[_Step]:
        for shares, taken, after in self._plans():
            # A stream only goes forwards: each sample is read once, whatever shares it is in.
            wanted = sorted({position for share in shares for position in share.positions})
            samples = dict(zip(wanted, source.read_all(wanted), strict=True))
            data = [self._collate([samples[position] for position in share.positions]) for share in shares]
            state = None
            if isinstance(source, StreamSource):
                source.skip_to(after.position)
                state = source.state_dict()
            yield _Step(data, shares, taken, after, state)

    def _read_by_workers(self, source: MapSource) -> Generator[_Step]:
        under_way: deque[_Plan] = deque()

        def positions() -> Iterator[list[list[int]]]:
            for plan in self._plans():
                under_way.append(plan)
                yield [list(share.positions) for share in plan[0]]

        loader = DataLoader(
            _SeededReads(source, self._collate),
            batch_sampler=positions(),
            num_workers=self._workers,
            prefetch_factor=-(-self._ahead // self._workers),
            collate_fn=_unchanged,
            # Without one of its own it would draw from the job's generator, and change what is drawn next.
            generator=torch.Generator(),
        )
        for data in loader:
            shares, taken, after = under_way.popleft()
            yield _Step(data, shares, taken, after, None)

    def _stream_state(self) -> dict[str, Any] | None:
        return self._source.state_dict() if isinstance(self._source, StreamSource) else None


class _SeededReads(Dataset[Any]):
    """A map-style dataset as worker processes read it: one step's shares at a time."""

    def __init__(self, source: MapSource, collate: Collate) -> None:
        self._source, self._collate = source, collate

    def __getitem__(self, position: int) -> Any:
        return self._source.read(position)

    def __getitems__(self, shares: list[list[int]]) -> list[Any]:
        return [self._collate([self._source.read(position) for position in share]) for share in shares]


def _unchanged(data: list[Any]) -> list[Any]:
    return data
