"""Reference operators in plain torch: any device, any dtype, differentiable, written to be read.

Shapes are in the names: B batch, T positions, H heads, Q size of a head, D model width, F width of a
feed-forward layer; ``_XD`` means any leading dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x_XD: Tensor, weight_D: Tensor, eps: float = 1e-6) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) * weight over the last dimension, in the dtype of ``x_XD``.

    The mean is taken in fp32 (Zhang and Sennrich, arXiv:1910.07467; fp32 as in Llama).
    """
    x = x_XD.float()
    normal_XD = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return (normal_XD * weight_D.float()).to(x_XD.dtype)


def rope_tables(
    positions: int, head_dim: int, theta: float = 10_000.0, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of rotary embedding, each [positions, head_dim / 2] in fp32.

    Pair i of a head turns by position * theta^(-2i / head_dim) (Su et al., arXiv:2104.09864, eq. 15).

    Raises ValueError when ``head_dim`` is odd.
    """
    if head_dim % 2:
        raise ValueError(f"head_dim must be even, got {head_dim}")
    rates = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)
    angles = torch.outer(torch.arange(positions, dtype=torch.float64, device=device), rates)
    return angles.cos().float(), angles.sin().float()


def apply_rope(x_BHTQ: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Return ``x_BHTQ`` with element i and i + Q/2 of each head turned by the angle of their position.

    ``cos_TR`` and ``sin_TR`` are ``rope_tables`` of the positions, R = Q / 2. Halves rather than
    neighbours are paired, as in Llama's published weights and GPT-NeoX. The product of two vectors so
    turned depends on the distance of their positions alone.
    """
    cos_TR, sin_TR = cos_TR.to(x_BHTQ.dtype), sin_TR.to(x_BHTQ.dtype)
    first, second = x_BHTQ.chunk(2, dim=-1)
    return torch.cat((first * cos_TR - second * sin_TR, second * cos_TR + first * sin_TR), dim=-1)


def swiglu(gate_XF: Tensor, up_XF: Tensor) -> Tensor:
    """Return silu(gate) * up, element by element (Shazeer, arXiv:2002.05202)."""
    return F.silu(gate_XF) * up_XF
