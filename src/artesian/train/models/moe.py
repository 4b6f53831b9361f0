"""Feed-forward layers: the dense one, and DeepSeek's mixture of experts.

Each token goes through the shared experts and the ``top_k`` routed experts that its affinities choose
(DeepSeekMoE, arXiv:2401.06066). The load is balanced without an auxiliary loss: a bias per expert, which
only takes part in the choice, rises while the expert gets less than its share and falls while it gets
more (DeepSeek-V3, arXiv:2412.19437, section 2.1.2).
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from artesian.operators import swiglu


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEConfig:
    """``top_k`` of ``routed`` experts and all ``shared`` ones serve a token; each is ``hidden_dim`` wide.

    ``balance_rate`` is what an expert's bias moves by in a step; DeepSeek-V3 trained with 0.001.
    """

    routed: int = 8
    shared: int = 1
    top_k: int = 2
    hidden_dim: int = 128
    balance_rate: float = 1e-3

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.routed:
            raise ValueError(f"top_k must lie between 1 and routed = {self.routed}, got {self.top_k}")
        if self.shared < 0 or self.hidden_dim < 1:
            raise ValueError(
                f"shared must not be negative and hidden_dim positive, got {self.shared}, {self.hidden_dim}"
            )


class SwiGLU(nn.Module):
    """The dense feed-forward layer: down(silu(gate(x)) * up(x)), gate and up in one product."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * hidden_dim, bias=False)
        self.down = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x_XD: Tensor) -> Tensor:
        """Return [..., D] for ``x_XD``."""
        out_XD: Tensor = self.down(swiglu(*self.gate_up(x_XD).chunk(2, dim=-1)))
        return out_XD


class MoE(nn.Module):
    """Shared and routed experts in place of one feed-forward layer.

    The routed experts' weights are stacked, [E, ...]: so an expert that got no token has a gradient of
    zeros, not none, and every rank reduces the same tensors in every step.
    """

    bias_E: Tensor

    def __init__(self, dim: int, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        experts, hidden = config.routed, config.hidden_dim
        self.router = nn.Linear(dim, experts, bias=False)
        self.gate_up_EFD = nn.Parameter(torch.empty(experts, 2 * hidden, dim))
        self.down_EDF = nn.Parameter(torch.empty(experts, dim, hidden))
        self.shared = SwiGLU(dim, config.shared * hidden) if config.shared else None
        self.register_buffer("bias_E", torch.zeros(experts))
        # Tokens of this rank since the last balancing. No buffer: DDP would overwrite it with rank 0's, and
        # a checkpoint has no need of it, for balancing is part of a step.
        self.load_E = torch.zeros(experts)
        for weight in (self.gate_up_EFD, self.down_EDF):
            nn.init.normal_(weight, std=0.02)

    def forward(self, x_XD: Tensor) -> Tensor:
        """Return [..., D] for ``x_XD``; in training, count the load of each expert."""
        x_ND = x_XD.reshape(-1, x_XD.shape[-1])
        experts_NS, gates_NS = self.route(x_ND)
        counts_E = torch.bincount(experts_NS.flatten(), minlength=self.config.routed)
        if self.training:
            self.load_E = self.load_E.to(counts_E.device) + counts_E
        out_ND = self._run_routed(x_ND, experts_NS, gates_NS, counts_E.tolist())
        if self.shared is not None:
            out_ND = out_ND + self.shared(x_ND)
        return out_ND.view_as(x_XD)

    def route(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the experts of each token and their gates, both [N, S]; the gates of a token sum to 1.

        Affinities are sigmoids, in fp32; the bias moves the choice only, never a gate.
        """
        with torch.autocast(x_ND.device.type, enabled=False):
            affinities_NE = F.linear(x_ND.float(), self.router.weight.float()).sigmoid()
        experts_NS = (affinities_NE.detach() + self.bias_E).topk(self.config.top_k).indices
        chosen_NS = affinities_NE.gather(1, experts_NS)
        return experts_NS, chosen_NS / chosen_NS.sum(1, keepdim=True)

    @torch.no_grad()
    def balance(self, load_E: Tensor) -> None:
        """Move each expert's bias a step towards an equal load, given the load of all ranks together."""
        self.bias_E += self.config.balance_rate * torch.sign(load_E.mean() - load_E)
        self.load_E = torch.zeros_like(load_E)

    def _run_routed(
        self,
        x_ND: Tensor,
        experts_NS: Tensor,
        gates_NS: Tensor,
        counts: list[int],
    ) -> Tensor:
        """Run each expert once, on its tokens side by side, and add up what came out by token."""
        order = experts_NS.flatten().argsort(stable=True)
        sorted_x = x_ND.index_select(0, order // self.config.top_k)
        parts = [
            F.linear(swiglu(*F.linear(tokens, gate_up_FD).chunk(2, dim=-1)), down_DF)
            for tokens, gate_up_FD, down_DF in zip(
                torch.split(sorted_x, counts), self.gate_up_EFD.unbind(), self.down_EDF.unbind(), strict=True
            )
        ]
        # Put back by a permutation, not added by index: the same bits in every run, on every device.
        out_NSD = torch.cat(parts).index_select(0, order.argsort()).view(*experts_NS.shape, -1)
        return (gates_NS.to(out_NSD.dtype).unsqueeze(-1) * out_NSD).sum(1)


def keep_balanced(model: nn.Module, optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Balance all MoE layers of ``model`` before every step of ``optimizer``, alike on all ranks.

    The loads of all layers are summed over the ranks in one all-reduce, so the biases stay the same
    everywhere; they are buffers, and so part of a checkpoint. Returns the handle that ends it.
    """
    layers = [module for module in model.modules() if isinstance(module, MoE)]

    def balance(*_: object) -> None:
        loads = torch.stack([layer.load_E for layer in layers])
        if dist.is_initialized():
            dist.all_reduce(loads)
        for layer, load_E in zip(layers, loads, strict=True):
            layer.balance(load_E)

    return optimizer.register_step_pre_hook(balance if layers else lambda *_: None)
