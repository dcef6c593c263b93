"""Baselines are exported as they are built, at free sizes and at an odd one."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from topformer_d2.errors import InputError
from topformer_d2.export import export_model
from topformer_d2.export.reference import as_listed

# Not by importing them, which takes seconds in each process that collects tests.
if not all(map(find_spec, ("timm", "transformers"))):
    pytest.skip("baselines need timm and transformers", allow_module_level=True)

KINDS = {  # of networks: convolutions, attention; the others are slow
    "baseline_lraspp_mobilenetv3_large",
    "baseline_segformer_mit_b0",
}
BASELINES = sorted(path.stem for path in Path("configs").glob("baseline_*.yaml"))


@pytest.mark.parametrize("size", [pytest.param(None, marks=pytest.mark.slow), (97, 131)])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in KINDS else pytest.mark.slow) for n in BASELINES],
)
def test_baselines_untrained(untrained, tmp_path, name, size):
    cfg, _, weights = untrained(name)
    _, differences = export_model(cfg, weights, str(tmp_path / "model.onnx"), size=size)
    assert all(found.share < 0.7 for found in differences)
    # Of a detector that finds nothing, the head's raw outputs.
    assert "boxes" not in {found.output for found in differences}
    assert differences[0].value < 1e-4 * differences[0].scale


def test_a_baseline_with_preprocessing(untrained, tmp_path):
    cfg, _, weights = untrained("baseline_semantic_fpn_mobilenetv2", "INPUT.MIN_SIZE_TEST", "96")
    path = str(tmp_path / "model.onnx")
    _, (found,) = export_model(cfg, weights, path, with_preprocessing=True)
    assert found.share < 1


def test_the_reference_is_of_topformer_alone(untrained):
    _, model, _ = untrained("baseline_lraspp_mobilenetv3_large")
    with pytest.raises(InputError, match="`reference` is for TopFormer"):
        as_listed(model)
