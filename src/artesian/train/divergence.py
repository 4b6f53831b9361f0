"""Replicas that should be the same to the bit, and are not: a flipped bit, a missed collective.

Each rank adds its parameters up as whole numbers, every so many steps, and all compare the 64 bits. Any one bit
that differs changes them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from artesian.train.data import mix
from artesian.train.exchange import Exchange

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """After ``step``, ``ranks`` had other parameters than the majority.

    Where there is none, as of two ranks, ``ranks`` are all, and ``is_certain`` is False.
    """

    step: int
    ranks: tuple[int, ...]
    is_certain: bool

    def __str__(self) -> str:
        names = ", ".join(map(str, self.ranks))
        if self.is_certain:
            return f"after step {self.step}, the parameters of rank {names} differ from those of the others"
        return f"after step {self.step}, the parameters of ranks {names} differ, and no majority says which is right"


def checksum(tensors: Iterable[Tensor]) -> int:
    """Return 64 bits, signed, of the bits of ``tensors``, in their order; of a DTensor's local part.

    It reads every byte once, on the tensors' own device, and waits for the device once.
    """
    sums = []
    for tensor in tensors:
        local = tensor.detach()
        if hasattr(local, "to_local"):
            local = local.to_local()
        flat = local.reshape(-1)
        if flat.is_complex():
            flat = torch.view_as_real(flat).reshape(-1)
        words = flat if flat.dtype == torch.bool else flat.view(_WORDS[flat.element_size()])
        sums.append(words.sum(dtype=torch.int64))
    if not sums:
        return 0
    devices = {each.device for each in sums}
    gathered = [each.cpu() for each in sums] if len(devices) > 1 else sums
    state = 0
    for number in torch.stack(gathered).tolist():
        state = mix(state ^ (number & (2**64 - 1)))
    return state - 2**64 if state >= 2**63 else state


def differing(sums: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """Return the ranks whose checksum is not the majority's, and whether there is a majority."""
    (value, count), *others = Counter(sums).most_common()
    if not others:
        return (), True
    if 2 * count <= len(sums):
        return tuple(range(len(sums))), False
    return tuple(rank for rank, each in enumerate(sums) if each != value), True


class ReplicaCheck:
    """Compares the ranks' parameters every ``every`` steps, in the background."""

    def __init__(
        self, model: torch.nn.Module, control: dist.ProcessGroup | None, *, every: int = 100
    ) -> None:
        """``control`` is a group of CPUs of the ranks that hold the same parameters.

        Buffers are not compared: those of batch normalisation differ by design.

        Raises ValueError unless every is positive.
        """
        if every < 1:
            raise ValueError(f"every must be positive, got {every}")
        self._model = model
        self._exchange = Exchange(control)
        self._every = every
        self._sent_step = 0

    def note(self, step: int) -> Divergence | None:
        """Say that ``step`` is applied; return what was found after an earlier one, the same on all ranks.

        All ranks call it after each step. The answer about a step comes with the next one.
        """
        found = None
        if (rows := self._exchange.settle()) is not None:
            ranks, is_certain = differing(rows)
            if ranks:
                found = Divergence(step=self._sent_step, ranks=ranks, is_certain=is_certain)
        if step % self._every == 0:
            self._exchange.send(checksum(self._model.parameters()))
            self._sent_step = step
        return found
