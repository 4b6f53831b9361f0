"""One snapshot on its way from the live tensors into a buffer of shared memory.

Small tensors are copied when it is made, large ones piece by piece, by its thread and by whoever must wait for them.
"""

import ctypes
import itertools
import threading
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from artesian.train.device_copy import DeviceCopy, Pins
from artesian.train.errors import CheckpointError
from artesian.train.image import Layout
from artesian.train.segment import Buffer, Snapshot

_PIECE_BYTES = 8 << 20
_AT_ONCE_BYTES = 64 << 10
"""Tensors up to this size are copied inside of ``begin``: forward passes change some (statistics of norms)."""

_DONE = threading.Event()
"""What is done from the beginning: making an event takes longer than copying a small tensor."""
_DONE.set()


class Room:
    """A buffer as a layout's tensors see it: made once, as making the views takes longer than filling them."""

    def __init__(self, buffer: Buffer, layout: Layout) -> None:
        self.buffer = buffer
        self.layout = layout
        with torch.inference_mode(mode=False):  # whoever made them within it could not write to them outside
            whole = torch.frombuffer(buffer.map, dtype=torch.uint8)
            image = whole[len(buffer.map) - buffer.image_bytes :]
            self.places = [(slot.view(image), slot.size_bytes) for slot in layout.slots]
            """A view for each tensor, and how many bytes it takes."""


class SnapshotCopy:
    """Pieces that any thread may take, and an end."""

    def __init__(
        self,
        room: Room,
        tensors: Mapping[str, Tensor],
        document: bytes,
        step: int,
        changing: set[str],
        pins: Pins,
    ) -> None:
        """``changing`` are the places whose tensors are written to beside the steps: copied at once, however large."""
        self.is_finished = _DONE
        """Set when it is committed or has failed; whoever leaves that to a thread gives it an event of its own."""
        self.is_told = False
        self.error: CheckpointError | None = None
        self.changed: set[str] = set()
        self.layout = room.layout
        self._buffer = buffer = room.buffer
        self._document = document
        self._step = step
        buffer.image[: len(document)] = document
        self._pieces: list[Callable[[], object]] = []
        self._watched: dict[str, tuple[Tensor, int]] = {}
        targets: list[Tensor] = []
        sources: list[Tensor] = []
        on_device: list[tuple[Tensor, Tensor]] = []
        for (place, tensor), (target, size_bytes) in zip(tensors.items(), room.places, strict=True):
            if tensor.is_cuda:
                on_device.append((target, tensor))
            elif not tensor.is_cpu:
                target.copy_(tensor)
                continue
            elif size_bytes <= _AT_ONCE_BYTES or place in changing:
                targets.append(target)
                sources.append(tensor)
                continue
            else:
                self._pieces += _pieces(target, tensor, size_bytes)
            self._watched[place] = (tensor, _version(tensor))
        if targets:
            torch._foreach_copy_(targets, sources)
        self._device = DeviceCopy(on_device, buffer, pins) if on_device else None
        self._left = len(self._pieces)
        self._next = itertools.count()
        self._lock = threading.Lock()
        self._are_pieces_copied = threading.Event() if self._pieces else _DONE

    @property
    def is_copied(self) -> bool:
        """Whether nothing is left to copy."""
        return self._device is None and self._are_pieces_copied.is_set()

    def help(self) -> None:
        """Copy the pieces that nobody has taken yet, and wait for those that somebody has."""
        if self._are_pieces_copied.is_set():
            return
        for index in self._next:  # the count is shared: a piece goes to one thread
            if index >= len(self._pieces):
                break
            try:
                self._pieces[index]()
            except Exception as error:
                self.fail(error)
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self._are_pieces_copied.set()
        self._are_pieces_copied.wait()

    def fail(self, error: Exception) -> None:
        """Note what has gone wrong with it, for whoever waits."""
        text = f"the snapshot of step {self._step} failed: {type(error).__name__}: {error}"
        self.error = self.error or CheckpointError(text)

    def release(self) -> None:
        """Let the tensors change from here on."""
        self.help()
        with self._lock:
            self._check()
        if self._device is not None:
            self._device.order_before_current_stream()

    def run(self, sequence: int) -> Snapshot | None:
        """Copy, and commit the snapshot unless it was spoiled."""
        self.help()
        if self._device is not None:
            self._device.synchronize()
        with self._lock:
            self._check()
        if self.error is not None:
            return None
        return self._buffer.commit(sequence, self._step, self._document)

    def _check(self) -> None:
        """Find what was written to while it was copied. Once: after ``release`` it may be."""
        watched, self._watched = self._watched, {}
        self.changed |= {place for place, (tensor, was) in watched.items() if _version(tensor) != was}
        if watched and self.changed:
            names = ", ".join(sorted(self.changed)[:3])
            self.error = CheckpointError(
                f"the snapshot of step {self._step} was spoiled: {len(self.changed)} tensors changed while "
                f"they were copied ({names})",
                hint="call `wait` before the optimizer's step; from now on they are copied inside of `begin`",
            )


def _pieces(target: Tensor, tensor: Tensor, size_bytes: int) -> list[Callable[[], object]]:
    if not tensor.is_contiguous():
        return [partial(target.copy_, tensor)]
    to, source = target.data_ptr(), tensor.data_ptr()
    return [
        partial(_move, to + at, source + at, min(_PIECE_BYTES, size_bytes - at))
        for at in range(0, size_bytes, _PIECE_BYTES)
    ]


# ctypes lets go of the GIL, and one thread's memmove is as quick as the memory.
_move = ctypes.memmove


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
