"""These tests are collected only where NVIDIA's library finds a device; everywhere else there is nothing to skip."""

from artesian.census import discover

if not any(device.vendor == "nvidia" for device in discover().accelerators):
    collect_ignore_glob = ["test_*.py"]
