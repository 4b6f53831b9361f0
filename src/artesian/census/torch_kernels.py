"""Kernels through torch, on any of its devices. Imported in the probe's process only."""

import torch

from artesian.census.kernels import (
    RUN_S,
    FloatArray,
    Kernel,
    Stopwatch,
    matmul_name,
    product_error,
    sampled,
    triad_error,
)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SIZES = (256, 512, 1024, 2048, 4096, 8192)
_TRIAD_SCALE = 3.0
_TRIAD_SAMPLES = 65_536


def use_threads(threads: int) -> str:
    """Let torch compute on ``threads`` threads, and return what it calls itself."""
    torch.set_num_threads(threads)
    return f"torch {torch.__version__}"


def fitting_size(device: str, dtype: str, stopwatch: Stopwatch, max_size: int) -> int:
    """Return the largest matrix size up to ``max_size`` whose product takes about one timed run."""
    sizes = [size for size in _SIZES if size <= max_size]
    probe = matmul(device, dtype, min(1024, sizes[-1]))
    probe.run()  # warm-up
    seconds, _ = stopwatch.time(probe.run, 1)
    flops = probe.work / seconds
    return max((size for size in sizes if 2 * size**3 / flops <= 1.25 * RUN_S), default=sizes[0])


def matmul(device: str, dtype: str, size: int) -> Kernel:
    """Return C = A @ B of random matrices [size, size] on ``device``; ``fp32`` is IEEE, not TF32."""
    torch.set_float32_matmul_precision("highest")
    a, b = (torch.randn(size, size, device=device, dtype=_DTYPES[dtype]) for _ in range(2))
    c = torch.zeros_like(a)

    def run() -> None:
        torch.mm(a, b, out=c)

    def error() -> float:
        rows, columns = torch.from_numpy(sampled(size)), torch.from_numpy(sampled(size))
        on_device = rows.to(device), columns.to(device)
        block = c[on_device[0]][:, on_device[1]]
        worst = product_error(_float64(a[on_device[0]]), _float64(b[:, on_device[1]]), _float64(block), dtype)
        c.zero_()
        return worst

    return Kernel(name=matmul_name(size, dtype), work=2 * size**3, run=run, error=error)


def triad(device: str, array_bytes: int) -> Kernel:
    """Return STREAM's triad a = b + s * c over fp32 arrays; it counts two reads and one write."""
    length = array_bytes // 4
    b, c = (_random(length, device) for _ in range(2))
    a = _random(length, device)

    def run() -> None:
        torch.add(b, c, alpha=_TRIAD_SCALE, out=a)

    def error() -> float:
        sample = torch.from_numpy(sampled(length, _TRIAD_SAMPLES)).to(device)
        worst = triad_error(_float64(a[sample]), _float64(b[sample]), _float64(c[sample]), _TRIAD_SCALE)
        a.zero_()
        return worst

    name = f"triad a=b+s*c, fp32, 3 arrays of {array_bytes / 2**20:g} MiB, 2 reads and 1 write counted"
    return Kernel(name=name, work=3 * length * 4, run=run, error=error)


def copy(device: str, array_bytes: int) -> Kernel:
    """Return a copy on the device; it counts one read and one write, and compares every element."""
    length = array_bytes // 4
    source, target = _random(length, device), torch.zeros(length, device=device)

    def run() -> None:
        target.copy_(source)

    def error() -> float:
        is_equal = torch.equal(source, target)
        target.zero_()
        return 0.0 if is_equal else float("inf")

    name = f"copy of {array_bytes / 2**20:g} MiB, 1 read and 1 write counted"
    return Kernel(name=name, work=2 * length * 4, run=run, error=error)


def _random(length: int, device: str) -> torch.Tensor:
    # A random block, repeated by a parallel copy: so each thread touches its own part first, which
    # decides the NUMA node it lies on, as STREAM does it. Random numbers for all would take seconds.
    block = torch.randn(min(length, 2**20), device=device)
    tensor = torch.empty(length, device=device)
    whole = length - length % block.numel()
    tensor[:whole].view(-1, block.numel()).copy_(block.expand(whole // block.numel(), -1))
    tensor[whole:].copy_(block[: length - whole])
    return tensor


def _float64(tensor: torch.Tensor) -> FloatArray:
    array: FloatArray = tensor.cpu().double().numpy()
    return array
