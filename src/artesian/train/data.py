"""Training data: text as bytes, in an order that the job owns.

The order is a function of the seed and a position; the position is all that a checkpoint has to hold,
and it counts the samples of the whole job, whatever number of ranks they were dealt to.
"""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artesian.train.errors import DataError

_SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"})
_SEPARATOR = b"\0"
_MASK = (1 << 64) - 1


class ByteText:
    """Windows of ``context`` + 1 bytes of text; a byte is a token, so the vocabulary is 256.

    Window i holds the tokens i * context to (i + 1) * context: each token is predicted once in a pass.
    Files follow one another in the order of their paths, a NUL byte between them, up to ``max_bytes``.
    Files that hold a NUL byte themselves are binary: ``skipped_files`` counts them.
    """

    vocab_size = 256

    def __init__(
        self, folder: Path | str | None = None, *, context: int = 256, max_bytes: int = 16 * 2**20
    ) -> None:
        """Read the files below ``folder``; without one, the ``.py`` files of Python's standard library.

        Raises DataError when the folder is missing, or holds less text than one window.
        """
        if context < 1:
            raise ValueError(f"context must be positive, got {context}")
        self.context = context
        self.folder = Path(sysconfig.get_paths()["stdlib"] if folder is None else folder)
        self.files = 0
        self.skipped_files = 0
        if not self.folder.is_dir():
            raise DataError(
                f"the data folder {self.folder} does not exist or is not a folder",
                hint="name a folder of text, or none to train on Python's standard library",
            )
        text = bytearray()
        for path in _standard_library(self.folder) if folder is None else _all_files(self.folder):
            content = path.read_bytes()
            if _SEPARATOR in content:
                self.skipped_files += 1
                continue
            self.files += 1
            text += content + _SEPARATOR
            if len(text) >= max_bytes:
                del text[max_bytes:]
                break
        if len(text) <= context:
            raise DataError(
                f"the data folder {self.folder} holds {len(text)} bytes of text in {self.files} files "
                f"({self.skipped_files} binary ones skipped), one window needs {context + 1}",
                hint="add text, or lower the context",
            )
        self._tokens = torch.frombuffer(text, dtype=torch.uint8)

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self.context

    def __getitem__(self, index: int) -> Tensor:
        """Return window ``index`` as int64, [context + 1]."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} windows, got {index}")
        start = index * self.context
        return self._tokens[start : start + self.context + 1].long()


class SampleOrder:
    """A shuffled order of ``size`` samples, pass after pass, as a function of the position.

    Each pass has every sample once, in an order of its own. Nothing is stored: a Feistel network
    permutes [0, 4^k), and what it sends outside of [0, size) is sent on until it falls inside
    (cycle walking: Black and Rogaway, CT-RSA 2002). It depends on no library's random generator, so a
    newer torch resumes an older run's order.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size must be positive, got {size}")
        self._size = size
        self._seed = seed
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)

    def __getitem__(self, position: int) -> int:
        """Return the sample at ``position``, which counts on from pass to pass."""
        if position < 0:
            raise IndexError(f"position must not be negative, got {position}")
        number, index = divmod(position, self._size)
        key = mix(mix(self._seed & _MASK) + number)
        index = self._permute(index, key)
        while index >= self._size:
            index = self._permute(index, key)
        return index

    def _permute(self, index: int, key: int) -> int:
        mask = (1 << self._half_bits) - 1
        left, right = index >> self._half_bits, index & mask
        for round_number in range(4):
            left, right = right, left ^ (mix(key + (round_number << 32) + right) & mask)
        return left << self._half_bits | right


def rank_share(start: int, global_batch: int, rank: int, world_size: int) -> range:
    """Return the positions that ``rank`` trains on of the global batch that begins at ``start``.

    The global batch stays what it is when the number of ranks changes. It must split evenly: gradients
    are averaged over ranks, and uneven shares would weigh samples unequally.

    Raises ValueError when ``global_batch`` is no positive multiple of ``world_size``.
    """
    if global_batch < 1 or global_batch % world_size:
        raise ValueError(
            f"the global batch must be a positive multiple of the {world_size} ranks, got {global_batch}"
        )
    share = global_batch // world_size
    return range(start + rank * share, start + (rank + 1) * share)


def mix(value: int) -> int:
    """Return 64 bits that each depend on every bit of ``value`` (SplitMix64's finaliser)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


def _standard_library(folder: Path) -> Iterator[Path]:
    return (path for path in _all_files(folder, _SKIPPED_FOLDERS) if path.suffix == ".py")


def _all_files(folder: Path, skipped: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the regular files below ``folder`` in the order of their paths, hidden ones left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skipped and not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def to_device(batch: Any, device: torch.device) -> Any:
    """Return ``batch`` with the tensors in it on ``device``; lists and tuples as lists."""
    match batch:
        case Tensor():
            return batch.to(device, non_blocking=True)
        case dict():
            return {key: to_device(value, device) for key, value in batch.items()}
        case list() | tuple():
            return [to_device(value, device) for value in batch]
        case _:
            return batch
