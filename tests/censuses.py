"""Censuses of made-up machines, for tests."""

from dataclasses import replace

from artesian.census import Census, Figure, FoundDevice, Host, Machine, Measurement, NumaNode

HOST = Host(
    hostname="node-1",
    architecture="x86_64",
    cpu_model="A CPU",
    sockets=1,
    physical_cores=4,
    logical_cpus=8,
    usable_cpus=(0, 1, 2, 3),
    cpu_quota=None,
    core_cpus=(0, 1),
    usable_cores=2,
    memory_bytes=2**34,
    memory_limit_bytes=None,
    last_level_cache_bytes=2**25,
    numa_nodes=(NumaNode(index=0, logical_cpus=8, cores=4, memory_bytes=2**34),),
)
H100 = FoundDevice(
    vendor="nvidia",
    index=0,
    uuid="GPU-0",
    name="NVIDIA H100 80GB HBM3",
    memory_bytes=81559 * 2**20,
    driver="570",
    model="H100-SXM5-80GB",
)
DOUBTFUL = replace(H100, vendor="ascend", name="910B1", model="910B1")


def figure(best: float, *, valid_runs: int = 5, is_correct: bool = True) -> Figure:
    """A figure of five runs."""
    return Figure(
        kernel="matmul",
        best=best,
        median=best * 0.98,
        runs=5,
        valid_runs=valid_runs,
        is_correct=is_correct,
        worst_error=0.2 if is_correct else None,
    )


CORES = Measurement(
    accelerator="cpu",
    index=None,
    uuid=None,
    devices=2,
    fp32_flops=figure(200e9),
    bf16_flops=figure(400e9, valid_runs=0),
    memory_bytes_per_s=figure(40e9),
    is_contended=True,
    contention="matmul: other processes took 40% of the CPUs",
)
FAST = Measurement(
    accelerator=H100.name,
    index=0,
    uuid="GPU-0",
    devices=1,
    fp32_flops=figure(50e12),
    bf16_flops=figure(791.2e12),
    memory_bytes_per_s=figure(3.015e12),
    is_contended=False,
)


def census(device: FoundDevice | None, measurement: Measurement) -> Census:
    """A census of HOST with one device, or with none but its cores."""
    devices = () if device is None else (device,)
    return Census(
        machine=Machine(host=HOST, accelerators=devices), measurements=(measurement,), at_s=1_700_000_000.5
    )
