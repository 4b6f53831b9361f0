"""Models to train: small enough to read, shaped like the large ones.

``decoder``     a decoder language model and its configuration
``attention``   grouped-query causal attention with rotary embedding
``moe``         DeepSeek's mixture of experts, balanced without an auxiliary loss; the dense layer

Shapes are in the names: B batch, T positions, D model width, H heads, K key heads, Q size of a head,
F width of a feed-forward layer, N tokens (B * T), E routed experts, S experts a token is sent to,
V vocabulary; ``_XD`` means any leading dimensions.
"""

from artesian.train.models.attention import Attention, AttentionConfig
from artesian.train.models.decoder import Decoder, DecoderConfig
from artesian.train.models.moe import MoE, MoEConfig, keep_balanced

__all__ = [
    "Attention",
    "AttentionConfig",
    "Decoder",
    "DecoderConfig",
    "MoE",
    "MoEConfig",
    "keep_balanced",
]
