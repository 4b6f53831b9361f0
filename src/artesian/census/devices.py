"""Accelerators: asked of NVIDIA's library directly, of the other vendors' through gpustack-runtime."""

from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from artesian import catalog
from artesian.census.machine import FoundDevice

_PCI_VENDORS = {
    "0x10de": "nvidia",
    "0x1002": "amd",
    "0x19e5": "ascend",
    "0xcabc": "cambricon",
    "0x1d94": "hygon",
    "0x1e3e": "iluvatar",
    "0x9999": "metax",
    "0x1ed5": "mthreads",
    "0x1ded": "thead",
}
_COMPUTE_CLASSES = ("0x12", "0x0302", "0x0380")
"""Processing accelerators, 3D controllers, other display controllers: cards without a screen."""
_DISPLAY_CLASS = "0x03"
"""Also integrated graphics and the screens of management controllers: no accelerator is missed there."""

_MEMORY_RATIO = (0.85, 1.10)
"""Reported memory over the catalogue's; ECC and reserved memory take up to a tenth."""


def pci_devices(root: Path) -> tuple[Counter[str], Counter[str]]:
    """Return how many devices of each vendor are on the PCI bus: surely accelerators, and perhaps."""
    sure: Counter[str] = Counter()
    perhaps: Counter[str] = Counter()
    try:
        entries = list((root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return sure, perhaps
    for entry in entries:
        try:
            vendor = _PCI_VENDORS.get((entry / "vendor").read_text().strip().lower())
            kind = (entry / "class").read_text().strip().lower() if vendor else ""
        except OSError:
            continue  # the device was unplugged between the listing and the read
        if vendor and kind.startswith(_COMPUTE_CLASSES):
            sure[vendor] += 1
        if vendor and kind.startswith((*_COMPUTE_CLASSES, _DISPLAY_CLASS)):
            perhaps[vendor] += 1
    return sure, perhaps


def nvidia_devices(nvml: Any, expected: int, problems: list[str]) -> list[FoundDevice]:
    """Return the devices that ``nvml`` (the module ``pynvml``) knows.

    A library that is missing means no devices, unless the PCI bus shows ``expected`` of them; a driver
    that does not answer, or a device that does not, is appended to ``problems``.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        is_missing = error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND
        if expected:
            problems.append(f"nvidia: {expected} on the PCI bus, but NVML does not start: {error}")
        elif not is_missing:
            problems.append(f"nvidia: NVML is installed but does not start: {error}")
        return []
    try:
        return _nvml_devices(nvml, problems)
    except nvml.NVMLError as error:
        problems.append(f"nvidia: NVML does not list its devices: {error}")
        return []
    finally:
        nvml.nvmlShutdown()


def _nvml_devices(nvml: Any, problems: list[str]) -> list[FoundDevice]:
    driver = _as_text(nvml.nvmlSystemGetDriverVersion())
    devices = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = _as_text(nvml.nvmlDeviceGetName(handle))
            uuid = _as_text(nvml.nvmlDeviceGetUUID(handle))
            memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
        except nvml.NVMLError as error:
            problems.append(f"nvidia device {index} does not answer: {error}")
            continue
        devices.append(found_device("nvidia", index, uuid, name, memory, driver, problems))
    return devices


def other_devices(
    sure: Counter[str],
    perhaps: Counter[str],
    problems: list[str],
    *,
    module: str = "gpustack_runtime.detector",
) -> list[FoundDevice]:
    """Return the devices of vendors other than NVIDIA.

    ``sure`` and ``perhaps`` are what the PCI bus shows. Cards that no library finds are appended to
    ``problems``; utilization is not asked for (a failed read there is 0, which would be a lie).
    """
    sure = Counter({vendor: count for vendor, count in sure.items() if vendor != "nvidia"})
    if not any(vendor != "nvidia" for vendor in perhaps):
        return []  # the library looks at the PCI bus first as well; its import takes a tenth of a second
    try:
        detector = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            problems.append(f"{module} is installed but does not import: {error}")
        elif sure:
            problems.append(f"{_listed(sure)} on the PCI bus: install artesian[accelerators] to see them")
        return []
    except (ImportError, OSError) as error:
        problems.append(f"{module} is installed but does not import: {error}")
        return []
    found = [
        found_device(
            str(device.manufacturer),
            device.index,
            device.uuid or None,
            device.name,
            device.memory * 2**20 or None,  # MiB; 0 where the read failed
            device.driver_version or None,
            problems,
        )
        for device in detector.detect_devices(fast=False, usage=False)
        if str(device.manufacturer) != "nvidia"
    ]
    unseen = sure - Counter({vendor: sure[vendor] for vendor in {device.vendor for device in found}})
    if unseen:
        problems.append(
            f"{_listed(unseen)} on the PCI bus, but the vendor's library finds none: is its driver up?"
        )
    return found


def found_device(
    vendor: str,
    index: int,
    uuid: str | None,
    name: str,
    memory_bytes: int | None,
    driver: str | None,
    problems: list[str],
) -> FoundDevice:
    """Return the device, with its catalogued model where name and memory agree with the catalogue.

    Memory decides as well, because drivers show the two chips of one card (MI250X, 910C) as two
    devices under the card's name; the card's peak would be claimed twice.
    """
    accelerator = catalog.find(name)
    if accelerator is not None and memory_bytes is not None and accelerator.memory_bytes is not None:
        low, high = _MEMORY_RATIO
        if not low <= memory_bytes / accelerator.memory_bytes <= high:
            problems.append(
                f"{vendor} device {index} calls itself {name} but has {memory_bytes / 2**30:.0f} GiB, where the "
                f"catalogue has {accelerator.memory_bytes / 2**30:.0f}: taking its peak for unknown"
            )
            accelerator = None
    return FoundDevice(
        vendor=vendor,
        index=index,
        uuid=uuid,
        name=name,
        memory_bytes=memory_bytes,
        driver=driver,
        model=None if accelerator is None else accelerator.model,
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(
        f"{count} {vendor} device{'s' * (count > 1)}" for vendor, count in sorted(counts.items())
    )


def _as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
