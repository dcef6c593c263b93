"""Test-time augmentation: the mean over views, the protocol's sizes, bounded memory."""

import json
import weakref

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from torch.nn import functional as F

from tests.helpers import topformer
from topformer_d2 import get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.data.augmentation import FitForTest
from topformer_d2.engine import Trainer
from topformer_d2.errors import InputError
from topformer_d2.evaluation import SegmentationTTA, evaluate_with_tta
from topformer_d2.evaluation.tta import build_resizes

CLASSES = 6


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_input(pixels, **size):
    return {"image": torch.from_numpy(pixels.copy()).permute(2, 0, 1), **size}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model(get_config("seg_topformer_t_synthetic", ["MODEL.DEVICE", "cpu"])).eval()
    # An untrained classifier is near 0 everywhere; here each class has its pixels.
    classifier = model.sem_seg_head.classifier
    with torch.no_grad():
        logits = model([as_input(noise(61, 83))])[0]["sem_seg"]
        classifier.weight *= 2 / logits.std()
        classifier.bias -= 2 / logits.std() * logits.mean((1, 2))
    return model


@pytest.fixture(scope="module")
def pixels():
    return noise(61, 83)


def config(*opts):
    small = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "2048", "MODEL.DEVICE", "cpu"]
    return get_config("seg_topformer_t_synthetic", [*small, *opts])


@torch.no_grad()
def direct(model, pixels, sizes, output):
    """Every view by hand: (height, width) of the view, and whether it is flipped."""
    total = 0
    for (height, width), flipped in sizes:
        view = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        x = torch.from_numpy(view).permute(2, 0, 1).float()[None]
        x = x.flip(-1) if flipped else x
        logits = model.sem_seg_head.layers(model.backbone((x - model.pixel_mean) / model.pixel_std))
        for size in ((height, width), output):
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        probabilities = logits[0].softmax(0)
        total = total + (probabilities.flip(-1) if flipped else probabilities)
    return total / len(sizes)


@pytest.mark.parametrize("output", [(61, 83), (50, 70)])
def test_the_mean_of_all_views(model, pixels, output):
    cfg = config("TEST.AUG.MIN_SIZES", "(40, 61)", "TEST.AUG.FLIP", "True")
    tta = SegmentationTTA(cfg, model)
    found = tta([as_input(pixels, height=output[0], width=output[1])])[0]["sem_seg"]
    sizes = [((h, w), flip) for h, w in ((40, 54), (61, 83)) for flip in (False, True)]
    torch.testing.assert_close(found, direct(model, pixels, sizes, output), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(0), torch.ones(output))
    # Each size and each flip counts.
    for views in (sizes[:2], sizes[2:], sizes[::2], sizes[1::2]):
        assert (direct(model, pixels, views, output) - found).abs().max() > 0.02


def test_one_view_is_the_protocol_s(model, pixels):
    cfg = config("TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", "False")
    cfg.INPUT.TEST_SIZE_DIVISOR = 32
    resized = FitForTest(64, 2048, 32).get_transform(pixels).apply_image(pixels)
    assert resized.shape == (64, 96, 3)
    with torch.no_grad():
        plain = model([as_input(resized, height=61, width=83)])[0]["sem_seg"]
    found = SegmentationTTA(cfg, model)([as_input(pixels)])[0]["sem_seg"]
    torch.testing.assert_close(found, plain.softmax(0))


def test_a_flipped_image_gives_the_flipped_answer(model, pixels):
    cfg = config("TEST.AUG.MIN_SIZES", "(48, 80)", "TEST.AUG.FLIP", "True")
    tta = SegmentationTTA(cfg, model)
    here, there = (tta([as_input(x)])[0]["sem_seg"] for x in (pixels, pixels[:, ::-1]))
    torch.testing.assert_close(here, there.flip(-1), atol=2e-5, rtol=1e-3)


def sizes_of(cfg, height, width):
    image = np.zeros((height, width, 3), np.uint8)
    return [r.get_transform(image).apply_image(image).shape[:2] for r in build_resizes(cfg)]


def test_sizes_keep_the_protocol_s_shape():
    ade20k = get_config("seg_topformer_t")
    assert sizes_of(ade20k, 512, 680) == [
        *((256, 352), (384, 512), (512, 704), (640, 864), (768, 1024), (896, 1216)),
    ]
    # PASCAL Context's limit is the long side.
    assert sizes_of(get_config("seg_topformer_t_pascal_context60"), 375, 500)[:3] == [
        *((195, 260), (293, 390), (390, 520)),
    ]
    small = get_config("seg_topformer_t", ["TEST.AUG.MIN_SIZES", "(1024,)"])
    small.TEST.AUG.MAX_SIZE = 1000
    assert sizes_of(small, 512, 512) == [(1024, 1024)]  # 1000, then up to a multiple of 32
    whole = get_config("seg_topformer_t", ["INPUT.MIN_SIZE_TEST", "0"])
    whole.TEST.AUG.MIN_SIZES = (256,)
    assert sizes_of(whole, 512, 512) == [(256, 256)]


class Counting(nn.Module):
    """Gives new logits at each call, and says how many earlier ones still exist."""

    def __init__(self):
        super().__init__()
        self.given, self.alive = [], []

    def forward(self, inputs):
        self.alive.append(sum(reference() is not None for reference in self.given))
        logits = torch.zeros(CLASSES, inputs[0]["height"], inputs[0]["width"], requires_grad=True)
        self.given.append(weakref.ref(logits))
        return [{"sem_seg": logits * 2}]


def test_one_view_is_held_at_a_time(pixels):
    counting = Counting()
    cfg = config()
    result = SegmentationTTA(cfg, counting)([as_input(pixels)] * 2)
    assert len(counting.alive) == 2 * 6 * 2
    assert max(counting.alive) == 0
    assert not result[0]["sem_seg"].requires_grad  # a graph would hold all of them


def test_mode_is_the_model_s(model):
    assert not SegmentationTTA(config(), model).training
    assert not model.training


def test_evaluation_by_the_keys(tiny_config, tmp_path):
    cfg = tiny_config("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64,)")
    cfg.TEST.AUG.FLIP = False
    torch.manual_seed(0)
    model = build_model(cfg)
    nn.init.normal_(model.sem_seg_head.classifier.weight)
    plain = Trainer.test(cfg, model)["sem_seg"]
    one_view = evaluate_with_tta(cfg, model)
    assert one_view == {"sem_seg_TTA": pytest.approx(plain, nan_ok=True)}
    cfg.TEST.AUG.FLIP = True
    assert evaluate_with_tta(cfg, model)["sem_seg_TTA"]["pACC"] != plain["pACC"]
    file = tmp_path / "output/inference_TTA/synthetic_sem_seg_val/sem_seg_evaluation.json"
    assert np.sum(json.loads(file.read_text())["confusion"]) == 4 * 64 * 80


def test_a_joint_model_is_evaluated_on_its_pixels(tmp_path):
    cfg = get_config(
        "multitask_lite_topformer_t_synthetic",
        [
            *("DATASETS.TEST", "('synthetic_sem_seg_val', 'synthetic_boxes_val')"),
            *("TEST.AUG.MIN_SIZES", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "MODEL.DEVICE", "cpu"),
            *("INPUT.MAX_SIZE_TEST", "80", "DATALOADER.NUM_WORKERS", "0"),
            *("OUTPUT_DIR", str(tmp_path)),
        ],
    )
    results = evaluate_with_tta(cfg, build_model(cfg))
    assert list(results) == ["synthetic_sem_seg_val/sem_seg_TTA"]
    assert results["synthetic_sem_seg_val/sem_seg_TTA"]["pACC"] >= 0


@pytest.mark.usefixtures("with_charts")
@pytest.mark.parametrize("enabled", ["True", "False"])
def test_after_training_when_asked(tiny_config, tmp_path, enabled):
    cfg = tiny_config("SOLVER.MAX_ITER", "1", "TEST.AUG.ENABLED", enabled)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.storage.latest()["sem_seg/mIoU"]
    assert ("sem_seg_TTA/mIoU" in trainer.storage.latest()) == (enabled == "True")
    folder = tmp_path / "output/inference_TTA/synthetic_sem_seg_val"
    drawn = {path.name for path in folder.glob("*.png")}
    assert drawn == ({"confusion.png", "iou.png"} if enabled == "True" else set())


@pytest.mark.usefixtures("with_charts")
def test_eval_only(model, tmp_path):
    weights = tmp_path / "model.pth"
    save_state_dict(model.state_dict(), str(weights))
    result = topformer(
        *("train", "--config-file", "configs/seg_topformer_t_synthetic.yaml"),
        *("--eval-only", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path),
        *("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64, 96)"),
    )
    assert result.returncode == 0, result.stderr
    assert "Task: sem_seg_TTA" in result.stdout + result.stderr
    for folder in ("inference", "inference_TTA"):
        names = ("sem_seg_evaluation.json", "confusion.png", "iou.png")
        files = [tmp_path / folder / "synthetic_sem_seg_val" / name for name in names]
        assert all(file.exists() for file in files)


def test_what_it_cannot_do_is_said_before_training(tiny_detector, tiny_config):
    with pytest.raises(InputError, match=r"TEST\.AUG\.ENABLED is for segmentation.*LiteRetinaNet"):
        Trainer(tiny_detector("TEST.AUG.ENABLED", "True"))
    for opts in (["INPUT.MIN_SIZE_TEST", "0"], ["TEST.AUG.MIN_SIZES", "(0, 64)"]):
        with pytest.raises(InputError, match=r"TEST\.AUG\.MIN_SIZES is"):
            Trainer(tiny_config("TEST.AUG.ENABLED", "True", *opts))
