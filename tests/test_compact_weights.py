"""Weights as 8-bit integers: what is lost, and that files of them are read as any other."""

import pytest
import torch

from topformer_d2.checkpoint import read_weights, save_state_dict
from topformer_d2.checkpoint.compact import from_int8, to_int8


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 5, 5, generator=generator)
        * torch.tensor([1e-3, 1.0, 1e3, 0.0]).view(-1, 1, 1, 1),
        "linear.weight": torch.randn(7, 9, generator=generator),
        "norm.weight": torch.randn(16, generator=generator).half().float(),
        "count": torch.tensor(3),
        "ids": torch.arange(6).view(2, 3),
    }


def test_a_value_moves_by_half_a_step_of_its_row(weights):
    packed = to_int8(weights)
    assert packed["conv.weight"].dtype == torch.int8 and len(packed) == len(weights) + 2
    found = from_int8(packed)
    assert list(found) == list(weights)
    for key, value in weights.items():
        if not key.endswith(("conv.weight", "linear.weight")):
            assert torch.equal(found[key], value), key
            continue
        assert found[key].dtype == torch.float32 and found[key].shape == value.shape
        rows = value.flatten(1)
        # Half a step, and what rounding the step itself to float16 leaves out at the end.
        most = rows.abs().amax(1, keepdim=True) * (0.5 / 127 + 2**-11)
        assert ((found[key].flatten(1) - rows).abs() <= most * 1.001).all(), key


def test_a_value_far_from_all_others_is_clipped():
    row = torch.randn(1, 2**16, generator=torch.Generator().manual_seed(0)).clamp_(-4, 4)
    row[0, 0] = 5.0
    packed = to_int8({"a": row})
    assert packed["a"][0, 0] == 127 and packed["a.int8_scale"] < 0.9 * 5 / 127
    plain = (row * 127 / 5).round() * 5 / 127
    error, of_plain = ((each - row).square().sum() for each in (from_int8(packed)["a"], plain))
    assert error < 0.9 * of_plain


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_stays_so(value):
    row = torch.tensor([[1.0, value], [1.0, 2.0]])
    found = from_int8(to_int8({"a": row}))["a"]
    assert found.isnan().tolist() == [[True, True], [False, False]]


def test_a_file_of_them_is_read_as_floats(weights, tmp_path):
    path = str(tmp_path / "small.safetensors")
    save_state_dict(to_int8(weights), path)
    found, expected = read_weights(path), from_int8(to_int8(weights))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_other_files_are_left_as_they_are(tmp_path):
    weights = {"a.int8_scale": torch.ones(2), "b": torch.ones(2, dtype=torch.int8)}
    assert from_int8(weights) == weights
