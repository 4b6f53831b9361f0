"""Reference operators: against torch's own where there is one, and by their defining properties."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.operators import apply_rope, rms_norm, rope_tables, swiglu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_equals_torchs_and_keeps_the_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 5, 64).to(dtype), torch.randn(64)
    out = rms_norm(x, weight)
    assert out.dtype == dtype
    expected = F.rms_norm(x.float(), (64,), weight, eps=1e-6)
    torch.testing.assert_close(
        out.float(), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6
    )


def test_swiglu_equals_its_definition() -> None:
    torch.manual_seed(0)
    gate, up = torch.randn(2, 3, 8, dtype=torch.float64)[:, 0], torch.randn(2, 8, dtype=torch.float64)
    torch.testing.assert_close(swiglu(gate, up), gate / (1 + torch.exp(-gate)) * up)


@settings(deadline=None, max_examples=30)
@given(
    first=st.integers(min_value=0, max_value=400),
    second=st.integers(min_value=0, max_value=400),
    shift=st.integers(min_value=0, max_value=100),
)
def test_the_product_of_turned_vectors_depends_on_their_distance_alone(
    first: int, second: int, shift: int
) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 32, dtype=torch.float64)
    cos, sin = rope_tables(512, 32)
    cos, sin = cos.double(), sin.double()

    def product(q_position: int, k_position: int) -> float:
        turned_q = apply_rope(q, cos[q_position : q_position + 1], sin[q_position : q_position + 1])
        turned_k = apply_rope(k, cos[k_position : k_position + 1], sin[k_position : k_position + 1])
        return float((turned_q * turned_k).sum())

    assert product(first, second) == pytest.approx(product(first + shift, second + shift), abs=1e-4)


def test_turning_keeps_lengths_and_position_zero_as_it_is() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 8)
    turned = apply_rope(x, *rope_tables(16, 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1], x[:, :, 1])


def test_the_first_pair_turns_by_one_radian_a_position() -> None:
    cos, sin = rope_tables(4, 8, theta=500.0)
    torch.testing.assert_close(cos[:, 0], torch.arange(4.0).cos())
    torch.testing.assert_close(sin[:, 2], (torch.arange(4.0) * 500.0**-0.5).sin())


def test_a_head_of_odd_size_has_no_pairs() -> None:
    with pytest.raises(ValueError, match="head_dim must be even, got 7"):
        rope_tables(4, 7)
