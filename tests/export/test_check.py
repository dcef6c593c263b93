"""What exported files are checked on."""

import copy
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from topformer_d2 import get_config
from topformer_d2.errors import InputError
from topformer_d2.export import TOLERANCE
from topformer_d2.export.check import _preprocess, _to_input, check, sample_images
from topformer_d2.export.network import ExportNetwork, describe
from topformer_d2.inference.model_info import ModelInfo
from topformer_d2.inference.optimization import rounded_to_float16


@pytest.fixture(scope="module")
def segmenter():
    cfg = get_config("seg_topformer_t_synthetic", ["MODEL.DEVICE", "cpu"])
    return build_model(cfg).eval(), ModelInfo.from_config(cfg)


def test_resizing_is_exact_on_noise(segmenter):
    """In float32 it would be further from the exact values than the exported file's."""
    model, model_info = segmenter
    info = describe(model, model_info, size=(4, 683), with_preprocessing=True)
    image = np.random.default_rng(0).integers(0, 256, (4, 1023, 3), dtype=np.uint8)
    places = (np.arange(683) + 0.5) * (1023 / 683) - 0.5
    rows = image.transpose(2, 0, 1)[::-1].reshape(-1, 1023)  # RGB
    exact = [np.interp(places, np.arange(1023), row) for row in rows]
    exact = torch.tensor(np.array(exact)).view(3, 4, 683)
    exact = (exact - model.pixel_mean) / model.pixel_std
    given = _preprocess(torch.from_numpy(image), model, info)[0]
    assert float((given - exact).abs().max()) < 1e-6


@pytest.mark.parametrize("side, batch", [(250, 2), (768, 1)])
def test_small_images_alone_come_in_batches(segmenter, side, batch):
    model, model_info = segmenter
    info = describe(model, model_info, labels=True)
    image = np.zeros((64, side, 3), np.uint8)
    assert _to_input(image, model, info).shape == (batch, 3, 64, side)


def test_a_network_that_float32_gives_no_better_is_the_same(segmenter):
    """Its logits are differences of far larger numbers. One that is wrong is refused as before."""
    model, model_info = copy.deepcopy(segmenter)
    torch.nn.init.constant_(model.sem_seg_head.fuse.norm.bias, 1e4)
    weight = torch.nn.init.normal_(model.sem_seg_head.classifier.weight, std=0.1)
    weight.data -= weight.data.mean(dim=1, keepdim=True)
    info = describe(model, model_info)
    exact = copy.deepcopy(model).double()

    def run(x, share=1.0):
        with torch.inference_mode():
            logits = exact.network(torch.tensor(x).double()).logits
        return {"logits": share * logits.float().numpy()}

    images = list(sample_images(None))[-2:]
    (found,) = check(run, model, info, images)
    assert found.limit > TOLERANCE and found.share < 0.2
    with pytest.raises(InputError, match=r"logits: differs by"):
        check(partial(run, share=0.99), model, info, images)


def test_weights_are_rounded_once_for_all_images(segmenter, monkeypatch):
    """The limit is a multiple of what the rounding changes, each image's own."""
    model, model_info = segmenter
    info = replace(describe(model, model_info), precision="float16")
    made = Mock(wraps=rounded_to_float16)
    monkeypatch.setattr("topformer_d2.export.check.rounded_to_float16", made)
    rounded, seen = rounded_to_float16(model), []

    def run(x):
        with torch.inference_mode():
            logits, exact = (each.network(torch.tensor(x)).logits for each in (rounded, model))
            seen.append(float((logits - exact).abs().max()))
        return {"logits": logits.numpy()}

    (found,) = check(run, model, info, list(sample_images(None))[-3:])
    assert made.call_count == 1 and len(seen) == 3
    assert any(found.value == pytest.approx(each) for each in seen) and found.value > 1e-5
    assert found.limit >= 8 * found.value * 0.999


# Detectron2's own decoding, which makes scores of the logits before it takes the best ones.
DETECTOR = (
    *("det_retinanet_topformer_t", "MODEL.RETINANET.NUM_CLASSES", "5"),
    *("MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RETINANET.TOPK_CANDIDATES_TEST", "100"),
)


def check_in_pytorch(cfg, model, size):
    """The differences of boxes and scores of the network to be exported, run as it is."""
    info = describe(model, ModelInfo.from_config(cfg), size=size)
    network = ExportNetwork(model, info)

    def run(x):
        with torch.inference_mode():
            return dict(zip(info.outputs, map(np.asarray, network(torch.tensor(x))), strict=True))

    return check(run, model, info, list(sample_images(None))[-2:])


def test_which_of_equal_scores_a_level_takes_is_no_difference(trained):
    """In float32 all scores are 1, of logits that differ."""
    cfg, model, _ = trained(*DETECTOR)
    torch.nn.init.constant_(model.head.cls_score.bias, 40.0)
    boxes, scores = check_in_pytorch(cfg, model, (96, 128))
    assert boxes.value < 1e-4 and scores.value == 0.0 and "100 boxes" in boxes.where


def test_a_level_of_one_pixel_is_decoded_as_the_others(trained):
    """RetinaNet changes the logits of such a level where they lie."""
    cfg, model, _ = trained(*DETECTOR)
    torch.nn.init.zeros_(model.head.cls_score.bias)
    boxes, scores = check_in_pytorch(cfg, model, (64, 64))
    assert boxes.value < 1e-4 and scores.value < 1e-5


def test_large_images_of_a_folder_are_made_smaller(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 2048, 3), np.uint8))
    *noise, (name, image) = sample_images(str(tmp_path))
    assert len(noise) == 4 and name.endswith("a.png") and image.shape == (15, 1024, 3)


def test_a_model_of_nan_is_told(segmenter):
    model, model_info = copy.deepcopy(segmenter)
    info = describe(model, model_info)
    torch.nn.init.constant_(model.sem_seg_head.classifier.bias, float("nan"))
    with pytest.raises(InputError, match="not finite"):
        check(lambda x: {"logits": x}, model, info, sample_images(None))


def test_boxes_that_are_not_decoded_as_retinanets_are_told(segmenter, monkeypatch):
    model, model_info = segmenter
    other = Mock(tasks=("instances",), has_anchors=False)
    monkeypatch.setattr("topformer_d2.export.network.adapt", lambda _: other)
    with pytest.raises(InputError, match=r"META_ARCHITECTURE 'Mock'"):
        describe(model, model_info)
