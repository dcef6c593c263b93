"""Detectors that give NaN say so: decoded, NaN is an image without boxes."""

import pytest
import torch
from detectron2.modeling import build_model

from topformer_d2 import InputError, get_config
from topformer_d2.checkpoint import SafeCheckpointer, save_state_dict
from topformer_d2.modeling import adapt

NAMES = [
    "det_retinanet_topformer_t",
    "det_retinanet_lite_topformer_t",
    "multitask_lite_topformer_t_synthetic",
]


def build(name):
    return build_model(get_config(name, ["MODEL.DEVICE", "cpu"])).eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("key", "value"), [("cls_score.bias", float("nan")), ("bbox_pred.weight", float("inf"))]
)
def test_outputs_that_are_not_finite_are_refused(name, key, value):
    model = adapt(build(name))
    image = {"image": torch.rand(3, 64, 96) * 255}
    with torch.no_grad():
        model([image])
        dict(model.head.named_parameters())[key].view(-1)[-1] = value
        with pytest.raises(InputError, match=r"NaN or infinite .*weights or the image"):
            model([image])


@pytest.mark.parametrize("require_all", [False, True])
def test_weights_that_are_not_finite_are_not_loaded(tmp_path, require_all):
    model = build(NAMES[1])
    weights = model.state_dict()
    weights["head.bbox_pred.weight"] = torch.full_like(weights["head.bbox_pred.weight"], torch.nan)
    path = str(tmp_path / "m.pth")
    save_state_dict(weights, path)
    with pytest.raises(InputError, match=r"m\.pth has NaN .* 1 tensors: head\.bbox_pred\.weight"):
        SafeCheckpointer(model, require_all=require_all).load(path)
