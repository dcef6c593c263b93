"""Our model computes what the official one computes, with as many parameters and operations."""

import json

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from tests.helpers import (
    PARITY,
    VARIANT_OF,
    Segmenter,
    formula_image,
    formula_weight,
    official_state_dict,
)
from topformer_d2.checkpoint import convert_official_state_dict

TOLERANCE = 1e-3


@pytest.mark.parametrize("size", [(512, 512), (333, 517)], ids=["512x512", "333x517"])
@pytest.mark.parametrize("letter", ["t", "b"])
def test_outputs_equal_the_official_ones(letter, size):
    model = Segmenter(VARIANT_OF[letter]).eval()
    model.load_state_dict(convert_official_state_dict(official_state_dict(letter))[0])
    reference = np.load(PARITY / "official_outputs.npz")
    name = f"{letter}_{size[0]}x{size[1]}"
    with torch.no_grad():
        features = model.backbone(formula_image(*size))
        logits = model.sem_seg_head.layers(features)
    assert np.abs(logits[0, :, ::8, ::8] - reference[f"{name}_logits"]).max() < TOLERANCE
    for output, step in (("sim3", 4), ("sim4", 2), ("sim5", 1)):
        sample = features[output][0, ::8, ::step, ::step]
        assert np.abs(sample - reference[f"{name}_{output}"]).max() < TOLERANCE


@pytest.mark.parametrize("letter", VARIANT_OF)
def test_converted_keys_are_exactly_ours(letter):
    converted, report = convert_official_state_dict(official_state_dict(letter))
    model = Segmenter(VARIANT_OF[letter])
    expected = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in converted.items()} == expected
    assert report.variant == VARIANT_OF[letter]
    assert (len(report.used), report.missing, report.left) == (len(expected), [], [])


# Whole model, backbone, pyramid, extractor, injection: measured on the official implementation.
PARAMETERS = {
    "tiny": (1_389_654, 1_369_920, 256_832, 1_037_056, 76_032),
    "small": (3_034_662, 2_968_464, 688_272, 2_120_064, 160_128),
    "base": (5_062_646, 4_958_048, 1_097_056, 3_586_048, 274_944),
}
# At 512x512 the whole, the backbone and the head; at 800x1333 the backbone.
GMACS = {
    "tiny": (0.5761, 0.4917, 0.0844, 2.064),
    "small": (1.1676, 0.8908, 0.2768, 3.732),
    "base": (1.8202, 1.3840, 0.4362, 5.788),
}


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_counts(variant):
    model = Segmenter(variant)
    backbone = model.backbone
    parts = (model, backbone, backbone.pyramid, backbone.semantics, backbone.injection)
    counted = tuple(sum(p.numel() for p in part.parameters()) for part in parts)
    assert counted == PARAMETERS[variant]


def count_gmacs(model, height, width):
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, height, width))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.total() / 1e9


@pytest.mark.parametrize(
    "variant", [pytest.param(v, marks=() if v == "tiny" else pytest.mark.slow) for v in GMACS]
)
def test_gmacs(variant):
    model = Segmenter(variant).eval()
    whole = count_gmacs(model, 512, 512)
    backbone = count_gmacs(model.backbone, 512, 512)
    counted = (whole, backbone, whole - backbone, count_gmacs(model.backbone, 800, 1333))
    assert counted == pytest.approx(GMACS[variant], rel=0.01)


def test_formula_weights_are_those_of_the_parity_data():
    """Guards the helper itself: a changed formula would make every comparison meaningless."""
    keys = json.loads((PARITY / "official_keys.json").read_text())["t"]
    key = "backbone.tpm.stem.0.bn.running_var"
    assert formula_weight(key, keys[key])[:2].tolist() == pytest.approx(
        [0.674917, 1.116901], abs=1e-6
    )
