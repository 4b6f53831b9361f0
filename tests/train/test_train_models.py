"""The decoder and its experts: causality, equality with a naive reference, balance, and FLOPs."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from artesian.formulas.flops import active_matmul_parameters
from artesian.operators import swiglu
from artesian.train.models import (
    Attention,
    AttentionConfig,
    Decoder,
    DecoderConfig,
    MoE,
    MoEConfig,
    keep_balanced,
)

SMALL = DecoderConfig(
    vocab_size=64,
    dim=32,
    layers=3,
    dense_layers=1,
    hidden_dim=48,
    max_context=32,
    attention=AttentionConfig(heads=4, key_heads=2, head_dim=8),
    moe=MoEConfig(routed=6, shared=1, top_k=2, hidden_dim=16),
)
DENSE = replace(SMALL, moe=None)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def tokens(batch: int = 2, positions: int = 16) -> Tensor:
    return torch.randint(0, SMALL.vocab_size, (batch, positions))


def some_moe(config: MoEConfig | None = None) -> MoE:
    moe = MoE(32, config or MoEConfig(routed=6, shared=1, top_k=2, hidden_dim=16))
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return moe


# -- the decoder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, DENSE], ids=["experts", "dense"])
def test_a_future_token_changes_no_past_logits(config: DecoderConfig) -> None:
    model = Decoder(config).eval()
    before = tokens()
    after = before.clone()
    after[:, 9] = (after[:, 9] + 1) % config.vocab_size
    changed = (model(before) - model(after)).abs().amax(dim=(0, 2))
    assert changed[:9].max() < 1e-6
    assert changed[9:].min() > 1e-6


def test_logits_have_one_row_per_token_and_start_near_a_uniform_guess() -> None:
    model = Decoder(SMALL)
    batch = tokens(4, 17)
    logits = model(batch[:, :-1])
    assert logits.shape == (4, 16, 64)
    loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    assert loss.item() == pytest.approx(4.16, abs=0.2)  # ln 64


def test_more_positions_than_configured_are_refused() -> None:
    with pytest.raises(ValueError, match="max_context is 32, got 33 positions"):
        Decoder(SMALL)(tokens(1, 33))


def test_grouped_queries_equal_attention_with_the_keys_repeated() -> None:
    config = AttentionConfig(heads=4, key_heads=2, head_dim=8)
    grouped, full = Attention(32, config), Attention(32, replace(config, key_heads=4))
    q, k, v = torch.split(grouped.qkv.weight.view(-1, 8, 32), [4, 2, 2])
    with torch.no_grad():
        full.qkv.weight.copy_(
            torch.cat((q, k.repeat_interleave(2, 0), v.repeat_interleave(2, 0))).flatten(0, 1)
        )
        full.out.weight.copy_(grouped.out.weight)
    x, tables = torch.randn(2, 10, 32), (torch.randn(10, 4), torch.randn(10, 4))
    torch.testing.assert_close(grouped(x, *tables), full(x, *tables))


@pytest.mark.parametrize("config", [SMALL, DENSE], ids=["experts", "dense"])
def test_the_formula_counts_the_flops_that_torch_counts(config: DecoderConfig) -> None:
    model = Decoder(config)
    batch = tokens(2, 16)
    with FlopCounterMode(display=False) as counter:
        model(batch).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    matmuls = sum(flops for operator, flops in counts.items() if "attention" not in str(operator))
    assert matmuls == 6 * active_matmul_parameters(config.shape) * batch.numel()


def test_the_formulas_parameters_are_the_models_matrices() -> None:
    embedding = DENSE.vocab_size * DENSE.dim
    matrices = sum(weight.numel() for weight in Decoder(DENSE).parameters() if weight.dim() > 1)
    assert active_matmul_parameters(DENSE.shape) == matrices - embedding


def test_a_few_steps_on_one_batch_learn_it() -> None:
    model = Decoder(SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    keep_balanced(model, optimizer)
    batch = tokens(2, 17)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# -- the experts ------------------------------------------------------------------------------------


def naive(moe: MoE, x_ND: Tensor) -> Tensor:  # noqa: N803
    """Return what the layer should compute, one token and one expert at a time."""
    rows = []
    for x in x_ND:
        affinities = torch.sigmoid(moe.router.weight @ x)
        chosen = torch.argsort(affinities + moe.bias_E, descending=True)[: moe.config.top_k]
        out = torch.zeros_like(x)
        for expert in chosen:
            gate, up = (moe.gate_up_EFD[expert] @ x).chunk(2)
            out = out + affinities[expert] / affinities[chosen].sum() * (
                moe.down_EDF[expert] @ swiglu(gate, up)
            )
        if moe.shared is not None:
            out = out + moe.shared(x)
        rows.append(out)
    return torch.stack(rows)


@pytest.mark.parametrize(
    "config",
    [
        MoEConfig(routed=6, shared=1, top_k=2, hidden_dim=16),
        MoEConfig(routed=4, shared=2, top_k=4, hidden_dim=8),
        MoEConfig(routed=5, shared=0, top_k=1, hidden_dim=8),
    ],
)
def test_the_layer_equals_a_naive_one_in_value_and_gradients(config: MoEConfig) -> None:
    moe = some_moe(config).double()
    moe.bias_E.copy_(torch.randn(config.routed) * 0.1)
    x = torch.randn(3, 8, 32, dtype=torch.float64, requires_grad=True)
    # The router computes in fp32, whatever the rest does.
    expected = naive(moe, x.flatten(0, 1)).view_as(x)
    torch.testing.assert_close(moe(x), expected, rtol=1e-5, atol=1e-5)
    parameters = [x, *moe.parameters()]
    direction = torch.randn_like(x)
    ours = torch.autograd.grad((moe(x) * direction).sum(), parameters)
    theirs = torch.autograd.grad((expected * direction).sum(), parameters, materialize_grads=True)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


def test_the_gates_of_a_token_sum_to_one_and_its_experts_differ() -> None:
    moe = some_moe()
    experts_NS, gates_NS = moe.route(torch.randn(100, 32))  # noqa: N806
    torch.testing.assert_close(gates_NS.sum(1), torch.ones(100))
    assert gates_NS.min() > 0
    assert (experts_NS[:, 0] != experts_NS[:, 1]).all()


def test_the_bias_changes_the_choice_and_not_the_gates() -> None:
    moe = some_moe(MoEConfig(routed=6, shared=0, top_k=6, hidden_dim=8))
    x = torch.randn(50, 32)
    experts, gates = moe.route(x)
    before = gates.gather(1, experts.argsort(1))
    moe.bias_E.copy_(torch.randn(6))
    experts, gates = moe.route(x)
    torch.testing.assert_close(gates.gather(1, experts.argsort(1)), before)
    moe = some_moe()
    moe.bias_E[3] = 10.0
    assert (moe.route(x)[0] == 3).any(dim=1).all()


def test_the_bias_of_a_crowded_expert_falls_and_that_of_an_idle_one_rises() -> None:
    moe = some_moe(MoEConfig(routed=4, shared=0, top_k=1, hidden_dim=8, balance_rate=0.5))
    moe.balance(torch.tensor([7.0, 3.0, 5.0, 5.0]))
    assert moe.bias_E.tolist() == [-0.5, 0.5, 0.0, 0.0]


def test_balancing_evens_the_load_out() -> None:
    moe = some_moe(MoEConfig(routed=8, shared=0, top_k=2, hidden_dim=4, balance_rate=0.01))
    optimizer = torch.optim.SGD(moe.parameters(), lr=0.0)
    keep_balanced(moe, optimizer)
    x = torch.randn(512, 32) + 0.5
    imbalance = []
    for _ in range(100):
        moe(x)
        imbalance.append(float(moe.load_E.max() / moe.load_E.mean()))
        optimizer.step()
    assert imbalance[0] > 1.5
    assert imbalance[-1] < 1.15


def test_the_load_is_counted_in_training_only_and_starts_anew_after_a_step() -> None:
    moe = some_moe()
    optimizer = torch.optim.SGD(moe.parameters(), lr=0.0)
    handle = keep_balanced(moe, optimizer)
    x = torch.randn(10, 32)
    moe.eval()(x)
    assert moe.load_E.sum() == 0
    moe.train()
    moe(x)
    moe(x)
    assert moe.load_E.sum() == 2 * 10 * 2
    optimizer.step()
    assert moe.load_E.sum() == 0
    handle.remove()
    moe(x)
    optimizer.step()
    assert moe.load_E.sum() == 20


def test_the_bias_is_part_of_a_checkpoint_and_the_load_is_not() -> None:
    names = set(some_moe().state_dict())
    assert "bias_E" in names
    assert "load_E" not in names


def test_an_expert_without_tokens_has_a_gradient_of_zeros() -> None:
    moe = some_moe(MoEConfig(routed=6, shared=0, top_k=1, hidden_dim=8))
    moe.bias_E[2] = 10.0  # all tokens go to expert 2
    moe(torch.randn(5, 32)).sum().backward()
    for weight in (moe.gate_up_EFD, moe.down_EDF):
        assert weight.grad is not None
        used = weight.grad.abs().amax(dim=(1, 2)) > 0
        assert used.tolist() == [False, False, True, False, False, False]
    assert moe.router.weight.grad is not None


def test_every_expert_learns_when_there_are_tokens_for_all() -> None:
    moe = some_moe()
    moe(torch.randn(200, 32)).square().sum().backward()
    for weight in (moe.gate_up_EFD, moe.down_EDF):
        assert weight.grad is not None
        assert (weight.grad.abs().amax(dim=(1, 2)) > 0).all()


def test_a_model_without_experts_needs_no_balancing() -> None:
    model = Decoder(DENSE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keep_balanced(model, optimizer)
    model(tokens()).sum().backward()
    optimizer.step()


def test_sizes_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="top_k must lie between 1 and routed = 4, got 5"):
        MoEConfig(routed=4, top_k=5)
    with pytest.raises(ValueError, match="shared must not be negative"):
        MoEConfig(shared=-1)
    with pytest.raises(ValueError, match="heads must be a positive multiple of key_heads, got 4 and 3"):
        AttentionConfig(heads=4, key_heads=3)
    with pytest.raises(ValueError, match="head_dim must be even, got 7"):
        AttentionConfig(head_dim=7)
