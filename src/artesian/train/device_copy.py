"""Copies from a CUDA device straight into shared memory, on a stream beside the one that computes.

The buffers are registered with the driver as pinned memory, so that the device writes into them itself
and the copy overlaps with computing.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from artesian.train.segment import Buffer


class Pins:
    """The buffers that are registered with the driver."""

    def __init__(self) -> None:
        self._addresses: dict[Buffer, int] = {}

    def add(self, buffer: Buffer) -> None:
        """Pin the buffer, once. Where the driver refuses, the copy works, with a staging area of the driver's."""
        if buffer in self._addresses:
            return
        address = torch.frombuffer(buffer.map, dtype=torch.uint8).data_ptr()
        refused = int(_driver().cudaHostRegister(address, len(buffer.map), 0))
        self._addresses[buffer] = 0 if refused else address

    def remove(self, buffer: Buffer) -> None:
        """Let the driver forget the buffer, before it is unmapped."""
        if address := self._addresses.pop(buffer, 0):
            with contextlib.suppress(RuntimeError):  # the driver is shutting down: it has forgotten it
                _driver().cudaHostUnregister(address)


class DeviceCopy:
    """Copies of tensors on their way from CUDA devices into a buffer."""

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]], buffer: Buffer, pins: Pins) -> None:
        """Start to copy each second tensor to the first, after the work that is queued on its device."""
        pins.add(buffer)
        self._pairs = pairs  # no memory of a source is reused while it is copied
        self._events: dict[torch.device, torch.cuda.Event] = {}
        for device in {source.device for _, source in pairs}:
            stream = _side_stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for target, source in pairs:
                    if source.device == device:
                        target.copy_(source, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(stream)
            self._events[device] = event

    def order_before_current_stream(self) -> None:
        """Let the devices' next work wait for the copies, without this thread waiting for them."""
        for device, event in self._events.items():
            torch.cuda.current_stream(device).wait_event(event)

    def synchronize(self) -> None:
        """Wait for the copies."""
        for event in self._events.values():
            event.synchronize()
        self._pairs = ()


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _streams[device]


def _driver() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
