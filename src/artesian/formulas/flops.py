"""FLOPs of a decoder language model per trained token: what MFU is counted in.

A matrix product of a parameter with a token is 2 FLOPs forward and 4 backward, so 6 per active
parameter (Kaplan et al., arXiv:2001.08361, section 2.1). Only matrices count, the output head among
them; looking an embedding up, norms, rotary embedding and softmax do not, and of a mixture of experts only what a
token goes through. Recomputed activations do not count either: these are the model's FLOPs, not the
hardware's.

Attention is 12 * layers * heads * head_dim * context on top (PaLM, arXiv:2204.02311, appendix B): in
full. A causal mask makes half of it void, and Megatron-LM counts the other half
(``num_floating_point_operations`` in its megatron/training/training.py). The same run differs by a tenth between the two, so say which.
"""

from dataclasses import dataclass
from enum import Enum


class AttentionCount(Enum):
    """How much of the product of queries and keys is counted; the value is the share."""

    FULL = 1.0
    """Every position with every other: PaLM's convention."""
    CAUSAL_HALF = 0.5
    """Only what a causal mask leaves: Megatron-LM's convention, and artesian's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEShape:
    """A mixture of experts, each gated (SwiGLU) and ``hidden_dim`` wide."""

    routed: int
    shared: int
    top_k: int
    hidden_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """Sizes of a decoder with gated feed-forward layers, ``hidden_dim`` wide where they are dense.

    The first ``dense_layers`` of ``layers`` are dense, the others are ``moe``; without it all are.
    """

    layers: int
    dim: int
    heads: int
    key_heads: int
    head_dim: int
    hidden_dim: int
    vocab_size: int
    dense_layers: int
    moe: MoEShape | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.dense_layers <= self.layers:
            raise ValueError(
                f"dense_layers must lie between 0 and layers = {self.layers}, got {self.dense_layers}"
            )
        if self.moe is None and self.dense_layers != self.layers:
            raise ValueError(
                f"without moe all {self.layers} layers are dense, got dense_layers = {self.dense_layers}"
            )


def active_matmul_parameters(shape: DecoderShape) -> int:
    """Return N_active: the elements of all matrices that one token is multiplied with."""
    attention = 2 * shape.dim * shape.head_dim * (shape.heads + shape.key_heads)  # q and out; k and v
    total = shape.layers * attention + shape.dense_layers * 3 * shape.dim * shape.hidden_dim
    if shape.moe is not None:
        experts = shape.moe.top_k + shape.moe.shared
        router = shape.dim * shape.moe.routed
        total += (shape.layers - shape.dense_layers) * (
            router + experts * 3 * shape.dim * shape.moe.hidden_dim
        )
    return total + shape.dim * shape.vocab_size


def training_flops_per_token(shape: DecoderShape, context: int, attention: AttentionCount) -> float:
    """Return the FLOPs of one token's forward and backward pass, in sequences of ``context`` tokens.

    Raises ValueError when ``context`` is not positive.
    """
    if context < 1:
        raise ValueError(f"context must be positive, got {context}")
    full_attention = 12 * shape.layers * shape.heads * shape.head_dim * context
    return 6 * active_matmul_parameters(shape) + attention.value * full_attention
