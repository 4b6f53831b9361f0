"""The fp32 matrix product through numpy alone, for machines without torch."""

import numpy as np

from artesian.census.kernels import Kernel, matmul_name, product_error, sampled

BACKEND = f"numpy {np.__version__}"


def matmul(size: int) -> Kernel:
    """Return C = A @ B of random fp32 matrices [size, size]."""
    rng = np.random.default_rng()
    a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    c = np.zeros((size, size), dtype=np.float32)

    def run() -> None:
        np.matmul(a, b, out=c)

    def error() -> float:
        rows, columns = sampled(size), sampled(size)
        worst = product_error(
            a[rows].astype(np.float64),
            b[:, columns].astype(np.float64),
            c[np.ix_(rows, columns)].astype(np.float64),
            "fp32",
        )
        c.fill(0)
        return worst

    return Kernel(name=matmul_name(size, "fp32"), work=2 * size**3, run=run, error=error)
