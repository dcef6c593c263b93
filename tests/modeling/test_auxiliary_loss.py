"""The auxiliary loss of the SIM outputs: its value, and that only training knows it."""

import pytest
import torch

from topformer_d2 import get_config
from topformer_d2.analysis import complexity
from topformer_d2.checkpoint import SafeCheckpointer, convert_to_official, save_state_dict
from topformer_d2.errors import InputError
from topformer_d2.modeling import build_model, pixel_cross_entropy

KEY = "MODEL.SEM_SEG_LOSS.AUXILIARY_WEIGHT"
JOINT = "multitask_lite_topformer_t"


def build(weight, name="seg_topformer_t", *opts):
    torch.manual_seed(0)
    return build_model(get_config(name, ["MODEL.DEVICE", "cpu", KEY, str(weight), *opts]))


def test_value_is_the_mean_of_the_coarser_features_losses():
    head = build(0.4).sem_seg_head.train()
    generator = torch.Generator().manual_seed(0)
    features = {
        name: torch.randn(2, 128, 8 >> i, 8 >> i, generator=generator)
        for i, name in enumerate(head.in_features)
    }
    targets = torch.randint(0, 150, (2, 64, 64), generator=generator)
    losses = head(features, targets)[1]
    assert [*head.auxiliary] == ["sim4", "sim5"]
    each = [
        pixel_cross_entropy(head.auxiliary[name](features[name]), targets, 255)
        for name in head.auxiliary
    ]
    torch.testing.assert_close(losses["loss_auxiliary"], 0.4 * sum(each) / 2)
    losses["loss_auxiliary"].backward()
    assert all(p.grad.abs().sum() > 0 for p in head.auxiliary.parameters())


def test_the_rest_starts_and_predicts_as_without():
    plain, with_loss = build(0.0), build(0.4)
    own, other = plain.state_dict(), with_loss.state_dict()
    assert {k for k in other if k not in own} == {
        f"sem_seg_head.auxiliary.sim{n}.{kind}" for n in (4, 5) for kind in ("weight", "bias")
    }
    assert all(torch.equal(own[key], other[key]) for key in own)
    costs = [complexity(each, 64, 64) for each in (plain, with_loss)]
    assert costs[0] == costs[1]
    assert [*convert_to_official(own)] == [*convert_to_official(other)]


@pytest.mark.parametrize("weights", [(0.0, 0.4), (0.4, 0.0)], ids=str)
def test_weights_load_quietly_with_and_without_it(weights, tmp_path, caplog):
    saved, loading = map(build, weights)
    with torch.no_grad():
        saved.sem_seg_head.classifier.weight.fill_(7)
    path = str(tmp_path / "weights.pth")
    save_state_dict(saved.state_dict(), path)
    caplog.clear()
    SafeCheckpointer(loading, require_all=True).load(path)
    assert (loading.sem_seg_head.classifier.weight == 7).all()
    assert "auxiliary" not in caplog.text


def test_a_joint_model_has_it_as_well():
    model = build(0.4, JOINT).train()
    features = {
        name: torch.randn(1, 128, 8 >> i, 8 >> i)
        for i, name in enumerate(model.sem_seg_head.in_features)
    }
    classes = model.sem_seg_head.classifier.out_channels
    losses = model._segment(features)[1](torch.randint(0, classes, (1, 64, 64)))
    assert [*losses] == ["loss_sem_seg", "loss_auxiliary"] and losses["loss_auxiliary"] > 0


def test_one_feature_has_no_coarser_one():
    opts = ("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['sim3']")
    with pytest.raises(InputError, match=rf"{KEY} is 0\.4, .*\['sim3'\] alone"):
        build(0.4, "seg_topformer_t", *opts)
