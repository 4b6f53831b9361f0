"""Where samples come from, by position: map-style datasets in an order of the job's, and streams.

Both are read by position, so that one cursor serves both; a stream is read forwards only.
"""

import copy
import ctypes
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch

from artesian.train.data import SampleOrder, mix
from artesian.train.errors import DataError


class MapDataset(Protocol):
    """Samples by index, such as a ``torch.utils.data.Dataset`` of the map style."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class Stream(Protocol):
    """Samples one after the other, the same on every rank, with a state to go on from.

    Such as an ``IterableDataset`` of Hugging Face's ``datasets``. ``state_dict`` tells how far the iteration
    in progress is, and an iterator made after ``load_state_dict`` goes on from there.
    """

    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class MapSource:
    """A map-style dataset, shuffled anew for each pass.

    What a dataset draws from the random generators of torch, numpy and Python (augmentation) depends on the
    sample's position and the seed alone: it is the same after a restart, and on another number of ranks.
    """

    def __init__(self, dataset: MapDataset, *, seed: int = 0) -> None:
        """Raises DataError for a dataset without samples."""
        if len(dataset) < 1:
            raise DataError(
                "the dataset has no samples", hint="check the path and the filters that it is made of"
            )
        self.dataset = dataset
        self._seed = seed
        self._order = SampleOrder(len(dataset), seed)

    def read(self, position: int) -> Any:
        """Return the sample at ``position``, and leave the generators where it has left them."""
        number = mix(mix(self._seed) + position)
        torch.default_generator.manual_seed(number >> 1)
        random.seed(number)
        np.random.seed(number & 0xFFFFFFFF)
        return self.dataset[self._order[position]]

    def read_all(self, positions: Sequence[int]) -> list[Any]:
        """Return the samples at ``positions``; the generators are left as they were found."""
        with own_random():
            return [self.read(position) for position in positions]

    def state_dict(self) -> dict[str, Any]:
        """Return what the order depends on."""
        return {"samples": len(self.dataset), "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise DataError where the order is another one: samples would come twice, or never."""
        if dict(state) != self.state_dict():
            raise DataError(
                f"the checkpoint's position is one in other data: it was saved with {_told(state)}, "
                f"this run has {_told(self.state_dict())}",
                hint="give the same dataset and seed, or begin a new run from the model alone",
            )


_MT19937_BYTES = 624 * 4 + 4
"""Of the struct that numpy's generator keeps its state in."""
_OWN = np.random.MT19937(0)
_alone: bytes | None = None
"""The state at which numpy's generator was last seen to keep no second normal number back."""


@contextmanager
def own_random() -> Iterator[None]:
    """Give back the states of torch's (CPU), numpy's and Python's generators at the end. Main thread only."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    bring_numpys_back = _put_numpys_aside()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        bring_numpys_back()


def _put_numpys_aside() -> Callable[[], None]:
    """Have numpy's functions draw from another generator, and return what brings theirs back as it was.

    To read a state and to set it takes numpy longer than all else that is done for a small batch. Another generator in
    its place takes nothing, but loses the second normal number that may be kept back: only the state tells of it, and
    that none is kept as long as the generator has not moved.
    """
    global _alone  # noqa: PLW0603  a fact about the process
    numpy_random: Any = np.random  # whose stubs do not have all of it
    theirs = numpy_random.get_bit_generator()
    found = (
        ctypes.string_at(theirs.ctypes.state_address, _MT19937_BYTES)
        if isinstance(theirs, np.random.MT19937)
        else None
    )
    if found is None or found != _alone:
        state = np.random.get_state(legacy=False)
        if state["has_gauss"]:
            return lambda: np.random.set_state(state)
        _alone = found
    numpy_random.set_bit_generator(_OWN)
    return lambda: numpy_random.set_bit_generator(theirs)


class StreamSource:
    """A stream, read forwards, begun anew when it ends.

    Every rank reads all of it and keeps its share: so a resize needs no resharding, and a sample is
    neither lost nor repeated. Keep the stream's records small, and decode them in ``transform``, which only
    sees what the rank keeps.
    """

    def __init__(self, stream: Stream, *, transform: Callable[[Any], Any] | None = None) -> None:
        """Raises DataError for a stream without ``state_dict`` and ``load_state_dict``."""
        if not isinstance(stream, Stream):
            raise DataError(
                f"a stream must have state_dict and load_state_dict, {type(stream).__name__} has not",
                hint="without them nobody can say where to go on; datasets.IterableDataset has both",
            )
        self._stream = stream
        self._transform = transform
        self._iterator: Iterator[Any] | None = None
        self._position = 0
        self._passes = 0

    def read_all(self, positions: Sequence[int]) -> list[Any]:
        """Return the samples at ``positions``, which must rise and lie at or after where reading has got to.

        Raises ValueError unless they do, DataError when a whole pass has no sample.
        """
        found = []
        for position in positions:
            if position < self._position:
                raise ValueError(f"a stream is at {self._position}, and cannot go back to {position}")
            self.skip_to(position)
            record = self._next()
            found.append(record if self._transform is None else self._transform(record))
        return found

    def skip_to(self, position: int) -> None:
        """Read on up to ``position``, and keep nothing."""
        while self._position < position:
            self._next()

    def state_dict(self) -> dict[str, Any]:
        """Return how far reading has got, with the stream's own state."""
        return {
            "position": self._position,
            "passes": self._passes,
            "stream": copy.deepcopy(self._stream.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``. Raises DataError where it is not a stream's."""
        try:
            position, passes, stream = int(state["position"]), int(state["passes"]), state["stream"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the checkpoint's position is not one in a stream: {_told(state)}",
                hint="give the same kind of dataset as in the run that saved it",
            ) from error
        self._stream.load_state_dict(copy.deepcopy(stream))
        self._position, self._passes, self._iterator = position, passes, None

    def _next(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._stream)
        try:
            sample = next(self._iterator)
        except StopIteration:
            self._passes += 1
            if callable(set_epoch := getattr(self._stream, "set_epoch", None)):
                set_epoch(self._passes)
            self._iterator = iter(self._stream)
            try:
                sample = next(self._iterator)
            except StopIteration:
                raise DataError(
                    "the stream ended without a sample",
                    hint="a stream must begin anew when it is iterated again",
                ) from None
        self._position += 1
        return sample


def source_of(
    dataset: "MapDataset | Stream | MapSource | StreamSource", *, seed: int = 0
) -> MapSource | StreamSource:
    """Return the source that fits: a dataset with a length and indices is of the map style.

    Raises DataError for what is neither that nor a stream.
    """
    if isinstance(dataset, MapSource | StreamSource):
        return dataset
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return MapSource(cast(MapDataset, dataset), seed=seed)
    return StreamSource(dataset)


def _told(state: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in state.items() if not isinstance(value, dict))
