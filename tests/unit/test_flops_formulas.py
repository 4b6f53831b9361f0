"""FLOPs of a decoder: published parameter counts, both conventions of attention, what does not count."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.formulas.flops import (
    AttentionCount,
    DecoderShape,
    MoEShape,
    active_matmul_parameters,
    training_flops_per_token,
)

LLAMA3_8B = DecoderShape(
    layers=32,
    dim=4096,
    heads=32,
    key_heads=8,
    head_dim=128,
    hidden_dim=14_336,
    vocab_size=128_256,
    dense_layers=32,
)
MIXTRAL_8X7B = DecoderShape(
    layers=32,
    dim=4096,
    heads=32,
    key_heads=8,
    head_dim=128,
    hidden_dim=14_336,
    vocab_size=32_000,
    dense_layers=0,
    moe=MoEShape(routed=8, shared=0, top_k=2, hidden_dim=14_336),
)

contexts = st.integers(min_value=1, max_value=1 << 20)


def test_llama_3_8b_has_its_published_parameters_without_embeddings_and_norms() -> None:
    embeddings, norms = 128_256 * 4096, 65 * 4096
    assert active_matmul_parameters(LLAMA3_8B) == 8_030_261_248 - embeddings - norms


def test_mixtral_has_13_billion_active_parameters() -> None:
    embeddings = 32_000 * 4096
    assert active_matmul_parameters(MIXTRAL_8X7B) + embeddings == pytest.approx(12.9e9, rel=0.005)


def test_attention_in_full_is_palms_formula() -> None:
    flops = training_flops_per_token(LLAMA3_8B, 8192, AttentionCount.FULL)
    assert flops == 6 * active_matmul_parameters(LLAMA3_8B) + 12 * 32 * 32 * 128 * 8192


@given(context=contexts)
def test_the_causal_convention_counts_half_of_the_attention_and_all_else(context: int) -> None:
    matmuls = 6 * active_matmul_parameters(LLAMA3_8B)
    full = training_flops_per_token(LLAMA3_8B, context, AttentionCount.FULL) - matmuls
    half = training_flops_per_token(LLAMA3_8B, context, AttentionCount.CAUSAL_HALF) - matmuls
    assert full == 2 * half > 0


@given(extra=st.integers(min_value=1, max_value=64))
def test_an_expert_that_is_not_chosen_costs_its_row_of_the_router_only(extra: int) -> None:
    assert MIXTRAL_8X7B.moe is not None
    more = replace(MIXTRAL_8X7B, moe=replace(MIXTRAL_8X7B.moe, routed=8 + extra))
    assert active_matmul_parameters(more) - active_matmul_parameters(MIXTRAL_8X7B) == 32 * 4096 * extra


def test_a_shared_expert_counts_like_one_more_chosen() -> None:
    assert MIXTRAL_8X7B.moe is not None
    shared = replace(MIXTRAL_8X7B, moe=replace(MIXTRAL_8X7B.moe, shared=1))
    chosen = replace(MIXTRAL_8X7B, moe=replace(MIXTRAL_8X7B.moe, top_k=3))
    assert active_matmul_parameters(shared) == active_matmul_parameters(chosen)


def test_shapes_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="dense_layers must lie between 0 and layers = 32, got 33"):
        replace(LLAMA3_8B, dense_layers=33)
    with pytest.raises(ValueError, match="without moe all 32 layers are dense"):
        replace(LLAMA3_8B, dense_layers=1)


def test_a_context_must_be_positive() -> None:
    with pytest.raises(ValueError, match="context must be positive, got 0"):
        training_flops_per_token(LLAMA3_8B, 0, AttentionCount.FULL)
