"""A decoder language model: the shape of Llama, with DeepSeek's experts where they are configured."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from artesian.formulas.flops import DecoderShape, MoEShape
from artesian.operators import rms_norm, rope_tables
from artesian.train.models.attention import Attention, AttentionConfig
from artesian.train.models.moe import MoE, MoEConfig, SwiGLU

_INIT_STD = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Sizes of a decoder. The first ``dense_layers`` of ``layers`` have a dense feed-forward layer of
    width ``hidden_dim``, as in DeepSeek's models; the others have experts, unless ``moe`` is None.
    """

    vocab_size: int = 256
    dim: int = 192
    layers: int = 4
    dense_layers: int = 1
    hidden_dim: int = 512
    max_context: int = 2048
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    moe: MoEConfig | None = field(default_factory=MoEConfig)

    @property
    def shape(self) -> DecoderShape:
        """The sizes that FLOPs depend on."""
        moe = self.moe
        return DecoderShape(
            layers=self.layers,
            dim=self.dim,
            heads=self.attention.heads,
            key_heads=self.attention.key_heads,
            head_dim=self.attention.head_dim,
            hidden_dim=self.hidden_dim,
            vocab_size=self.vocab_size,
            dense_layers=self.layers if moe is None else min(self.dense_layers, self.layers),
            moe=None
            if moe is None
            else MoEShape(routed=moe.routed, shared=moe.shared, top_k=moe.top_k, hidden_dim=moe.hidden_dim),
        )


class RMSNorm(nn.Module):
    """``rms_norm`` with a learned weight."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_XD: Tensor) -> Tensor:
        """Return ``x_XD`` normalised over its last dimension."""
        return rms_norm(x_XD, self.weight)


class Block(nn.Module):
    """Attention, then the feed-forward layer, each on the normalised stream and added to it."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim)
        self.attention = Attention(config.dim, config.attention)
        self.feed_forward_norm = RMSNorm(config.dim)
        self.feed_forward: nn.Module = (
            SwiGLU(config.dim, config.hidden_dim)
            if config.moe is None or layer < config.dense_layers
            else MoE(config.dim, config.moe)
        )

    def forward(self, x_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        """Return the stream after this layer, [B, T, D]."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TR, sin_TR)
        out_BTD: Tensor = x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))
        return out_BTD


class Decoder(nn.Module):
    """Tokens in, logits of the next token out. Embedding and head are not tied."""

    cos_TR: Tensor
    sin_TR: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
        cos, sin = rope_tables(config.max_context, config.attention.head_dim, config.attention.rope_theta)
        self.register_buffer("cos_TR", cos, persistent=False)
        self.register_buffer("sin_TR", sin, persistent=False)
        self._init_weights()

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return the logits [B, T, V] of the token after each of ``tokens_BT``.

        Raises ValueError for more positions than the configuration's ``max_context``.
        """
        positions = tokens_BT.shape[1]
        if positions > self.config.max_context:
            raise ValueError(f"max_context is {self.config.max_context}, got {positions} positions")
        x_BTD = self.embedding(tokens_BT)
        cos_TR, sin_TR = self.cos_TR[:positions], self.sin_TR[:positions]
        for block in self.blocks:
            x_BTD = block(x_BTD, cos_TR, sin_TR)
        logits_BTV: Tensor = self.head(self.norm(x_BTD))
        return logits_BTV

    def _init_weights(self) -> None:
        """Draw all matrices from N(0, 0.02²); those that add to the stream less, by depth (GPT-2)."""
        residual_std = _INIT_STD / math.sqrt(2 * self.config.layers)
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                continue
            adds_to_stream = name.endswith(("attention.out.weight", "down.weight", "down_EDF"))
            nn.init.normal_(weight, std=residual_std if adds_to_stream else _INIT_STD)
