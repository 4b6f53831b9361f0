"""Causal attention: grouped queries, rotary positions, torch's own scaled dot product."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artesian.operators import apply_rope


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """``key_heads`` key and value heads serve ``heads`` query heads of ``head_dim`` elements each."""

    heads: int = 4
    key_heads: int = 2
    head_dim: int = 48
    rope_theta: float = 10_000.0

    def __post_init__(self) -> None:
        if min(self.heads, self.key_heads, self.head_dim) < 1 or self.heads % self.key_heads:
            raise ValueError(
                f"heads must be a positive multiple of key_heads, got {self.heads} and {self.key_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, got {self.head_dim}")


class Attention(nn.Module):
    """Self-attention over [B, T, D] in which position t sees the positions up to t."""

    def __init__(self, dim: int, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(dim, (config.heads + 2 * config.key_heads) * config.head_dim, bias=False)
        self.out = nn.Linear(config.heads * config.head_dim, dim, bias=False)

    def forward(self, x_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        """Return what each position of ``x_BTD`` attends to, [B, T, D]; the tables are ``rope_tables``."""
        config = self.config
        batch, positions, _ = x_BTD.shape
        heads_BHTQ = self.qkv(x_BTD).view(batch, positions, -1, config.head_dim).transpose(1, 2)
        q_BHTQ, k_BKTQ, v_BKTQ = torch.split(
            heads_BHTQ, [config.heads, config.key_heads, config.key_heads], dim=1
        )
        q_BHTQ, k_BKTQ = apply_rope(q_BHTQ, cos_TR, sin_TR), apply_rope(k_BKTQ, cos_TR, sin_TR)
        out_BHTQ = F.scaled_dot_product_attention(
            q_BHTQ, k_BKTQ, v_BKTQ, is_causal=True, enable_gqa=config.heads != config.key_heads
        )
        mixed: Tensor = self.out(out_BHTQ.transpose(1, 2).reshape(batch, positions, -1))
        return mixed
