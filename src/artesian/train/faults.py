"""What a device says of its own health: memory errors and Xid events, through NVIDIA's management library.

The library comes with the driver and is loaded only here, by ctypes. Where it is missing, or does not tell, a
figure is None: unknown is not healthy.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS, _TIMEOUT = 0, 10
_UNCORRECTED, _VOLATILE = 1, 0
_XID_EVENT = 0x8
_LOOK_EVERY_S = 10.0
_USER_XIDS = frozenset({13, 31, 43, 45, 68, 69, 137})
"""Xids of the application's own making, or that only tell that it was ended; NVIDIA's "XID Errors" lists them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFaults:
    """Faults of one device; None is unknown.

    ``uncorrected_errors`` counts ECC errors that could not be corrected, since the driver was loaded;
    ``is_remap_pending`` says that a row of memory awaits a reset to be replaced, ``has_remap_failed`` that none was
    left to replace it. ``xids`` are the critical Xid events since this process began to watch.
    """

    uncorrected_errors: int | None = None
    is_remap_pending: bool | None = None
    has_remap_failed: bool | None = None
    xids: tuple[int, ...] | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the device should not be used; empty where nothing is known against it.

        Xids that stand for an error of the application are none.
        """
        found = []
        if self.uncorrected_errors:
            found.append(f"{self.uncorrected_errors} uncorrected memory errors")
        if self.is_remap_pending:
            found.append("a row of memory awaits a reset to be remapped")
        if self.has_remap_failed:
            found.append("a row of memory could not be remapped")
        if own := [xid for xid in self.xids or () if xid not in _USER_XIDS]:
            found.append(f"Xid {', '.join(map(str, own))}")
        return tuple(found)


class _EventData(ctypes.Structure):
    _fields_ = [
        ("device", ctypes.c_void_p),
        ("event_type", ctypes.c_ulonglong),
        ("event_data", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class FaultWatch:
    """Watches one device. Where there is no NVIDIA library or no such device, all it tells is None."""

    def __init__(self, uuid: str | None, library: Any = None) -> None:
        """Watch the device with this UUID, as ``torch.cuda.get_device_properties(i).uuid`` has it.

        An index would not do: the library does not know of CUDA_VISIBLE_DEVICES. ``library`` stands in for
        NVIDIA's in tests.
        """
        self._library = library if library is not None else _loaded()
        self._device = ctypes.c_void_p()
        self._events: ctypes.c_void_p | None = None
        self._xids: list[int] = []
        self._is_known = self._find(uuid)
        if self._is_known:
            self._register()

    @classmethod
    def of(cls, device: Any) -> Self:
        """Return a watch of a ``torch.device``; of one that is not CUDA's it tells nothing."""
        import torch

        if device.type != "cuda" or torch.version.cuda is None:
            return cls(None)
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return cls(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")

    def read(self) -> DeviceFaults:
        """Return what the device tells now; it does not wait."""
        if not self._is_known:
            return DeviceFaults()
        pending, failed = self._remaps()
        return DeviceFaults(
            uncorrected_errors=self._uncorrected(),
            is_remap_pending=pending,
            has_remap_failed=failed,
            xids=self._read_xids(),
        )

    def _find(self, uuid: str | None) -> bool:
        if self._library is None or uuid is None or self._library.nvmlInit_v2() != _SUCCESS:
            return False
        code = self._library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._device))
        return bool(code == _SUCCESS)

    def _register(self) -> None:
        events = ctypes.c_void_p()
        if self._library.nvmlEventSetCreate(ctypes.byref(events)) != _SUCCESS:
            return
        kind = ctypes.c_ulonglong(_XID_EVENT)
        if self._library.nvmlDeviceRegisterEvents(self._device, kind, events) == _SUCCESS:
            self._events = events

    def _uncorrected(self) -> int | None:
        count = ctypes.c_ulonglong()
        code = self._library.nvmlDeviceGetTotalEccErrors(
            self._device, _UNCORRECTED, _VOLATILE, ctypes.byref(count)
        )
        return count.value if code == _SUCCESS else None

    def _remaps(self) -> tuple[bool | None, bool | None]:
        corrected, uncorrected, pending, failed = (ctypes.c_uint() for _ in range(4))
        code = self._library.nvmlDeviceGetRemappedRows(
            self._device, *map(ctypes.byref, (corrected, uncorrected, pending, failed))
        )
        return (bool(pending.value), bool(failed.value)) if code == _SUCCESS else (None, None)

    def _read_xids(self) -> tuple[int, ...] | None:
        if self._events is None:
            return None
        data = _EventData()
        while (code := self._library.nvmlEventSetWait_v2(self._events, ctypes.byref(data), 0)) == _SUCCESS:
            if (xid := int(data.event_data)) not in self._xids:  # a device may tell the same for days
                self._xids.append(xid)
        # Anything but "nothing happened" means that the device cannot tell any more.
        return tuple(self._xids) if code == _TIMEOUT else None


class Lookout:
    """Looks at a device while it is in use, and tells each fault that has come since, once.

    What was against it before is for the check before a job to find (``preflight``).
    """

    def __init__(self, watch: FaultWatch, tell: Callable[[str], object]) -> None:
        """``tell`` is called with the words."""
        self._watch = watch
        self._tell = tell
        self.before = watch.read().reasons
        """What was against the device when it was taken into use."""
        self._told: set[str] = set()
        """Without their figures: a count that grows is the same fault."""

    def look(self) -> None:
        """Read the device, and tell what is new."""
        for reason in self._watch.read().reasons:
            kind = reason.lstrip("0123456789 ")
            if reason not in self.before and kind not in self._told:
                self._told.add(kind)
                self._tell(reason)

    def start(self) -> None:
        """Look every ten seconds from here on, in a thread of its own: a library whose device is lost may not return."""

        def run() -> None:
            while True:
                time.sleep(_LOOK_EVERY_S)
                self.look()

        threading.Thread(target=run, name="artesian-faults", daemon=True).start()


def _loaded() -> Any:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
