"""Replicas that should be the same to the bit, and are not: a flipped bit, a missed collective.

Each rank adds its parameters up as whole numbers, every so many steps, and all compare the 64 bits. Any one bit
that differs changes them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from artesian.train.data import mix
from artesian.train.exchange import Exchange
from artesian.train.membership import Membership
from artesian.train.reporter import say

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
    sums = [each for tensor in tensors for each in _sums(tensor)]
    if not sums:
        return 0
    devices = {each.device for each in sums}
    gathered = [each.cpu() for each in sums] if len(devices) > 1 else sums
    state = 0
    for number in torch.stack(gathered).tolist():
        state = mix(state ^ (number & (2**64 - 1)))
    return state - 2**64 if state >= 2**63 else state


def _sums(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the sums of the tensor's bits as whole numbers of 8 bytes, and of what is left as small ones.

    Summing wide words is some 25 times as fast on a CPU as widening narrow ones.
    """
    local = tensor.detach()
    if hasattr(local, "to_local"):
        local = local.to_local()
    if local.is_complex():
        local = torch.view_as_real(local)
    flat = local.reshape(-1)
    each = 8 // flat.element_size()
    if flat.storage_offset() % each:
        flat = flat.clone()  # a part of a larger buffer, which begins within a word
    whole = len(flat) // each * each
    if whole:
        yield flat[:whole].view(torch.int64).sum()
    if whole < len(flat):
        rest = flat[whole:]
        yield rest.view(_WORDS[rest.element_size()]).sum(dtype=torch.int64)


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
        self.standing: Divergence | None = None
        """What was found last; None where all were alike."""

    def note(self, step: int) -> Divergence | None:
        """Say that ``step`` is applied; return what was found after an earlier one, the same on all ranks.

        All ranks call it after each step. The answer about a step comes with the next one.
        """
        found = None
        if (rows := self._exchange.settle()) is not None:
            ranks, is_certain = differing(rows)
            if ranks:
                found = Divergence(step=self._sent_step, ranks=ranks, is_certain=is_certain)
            self.standing = found
        if step % self._every == 0:
            self._exchange.send(checksum(self._model.parameters()))
            self._sent_step = step
        return found


class Tell(Protocol):
    """Takes in that replicas differ: see ``ReplicasDiverged``, whose fields these are."""

    def __call__(self, *, step: int, ranks: tuple[int, ...], is_certain: bool) -> None: ...


class ReplicaWatch:
    """What ``Run`` does after each step to find replicas that differ, and once there are some: rank 0 says so, once.

    It says so again when others differ, or when they differ again after all were alike.
    """

    def __init__(self, model: torch.nn.Module, member: Membership, tell: Tell, *, every: int) -> None:
        """``tell`` is called on rank 0. Raises ValueError unless every is positive."""
        self._check = ReplicaCheck(model, member.control, every=every)
        self._is_first = member.rank == 0
        self._tell = tell

    def note(self, step: int) -> None:
        """Say that ``step`` is applied; all ranks call it after each step."""
        before = self._check.standing
        found = self._check.note(step)
        if found is None or not self._is_first:
            return
        if before is None or (before.ranks, before.is_certain) != (found.ranks, found.is_certain):
            say(str(found))
            self._tell(step=found.step, ranks=found.ranks, is_certain=found.is_certain)


def compared(
    every: int | None, model: torch.nn.Module, member: Membership, tell: Tell
) -> ReplicaWatch | None:
    """Return the watch that compares the replicas every so many steps; None where ``every`` is."""
    return None if every is None else ReplicaWatch(model, member, tell, every=every)
