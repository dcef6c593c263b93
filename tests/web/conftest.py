"""Pages of real models, and pictures for them."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from topformer_d2 import Predictor, get_config
from topformer_d2.checkpoint import save_state_dict
from topformer_d2.web import model_for_web, runtime_files, write_site

JOINT = "multitask_lite_topformer_t_synthetic"


def picture(path, height, width, seed=0):
    """Write smooth colours with some noise, which have regions of several classes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 12, (height, width, 1)).astype(np.float32)
    image = image.clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(path), image)
    return image


def save_joint(cfg, path):
    """Weights of an untrained joint model whose boxes have scores far enough from each other."""
    torch.manual_seed(0)
    model = build_model(cfg)
    nn.init.normal_(model.sem_seg_head.classifier.weight)
    nn.init.normal_(model.head.cls_score.weight, std=0.3)
    nn.init.constant_(model.head.cls_score.bias, -3.0)
    save_state_dict(model.state_dict(), str(path))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Sites by name, with Predictors of the same weights."""
    root, made = tmp_path_factory.mktemp("sites"), {}

    def make(name):
        if name in made:
            return made[name]
        weights = None
        if name == JOINT:
            cfg = get_config(JOINT, ["MODEL.DEVICE", "cpu"])
            weights = save_joint(cfg, root / "joint.pth")
        folder = root / name
        folder.mkdir()
        model, info = model_for_web(name, weights, folder)
        write_site(folder / "site", model, info, name, runtime_files(None))
        predictor = Predictor(str(model)) if weights is None else Predictor(name, weights)
        made[name] = folder / "site", predictor
        return made[name]

    return make
