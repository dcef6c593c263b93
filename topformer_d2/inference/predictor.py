"""Detectron2's DefaultPredictor set up for the official protocol, and run over files."""

from __future__ import annotations

import os

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from tqdm.auto import tqdm

from ..checkpoint import SafeCheckpointer
from ..data import build_test_augmentation
from ..errors import InputError
from ..visualization import add_legend, blend_labels, class_styles
from .files import read_image, write_image


def build_predictor(cfg, weights: str) -> DefaultPredictor:
    """A DefaultPredictor that resizes as evaluation does and reads `weights` safely.

    Args:
        cfg: a config with the toolkit's keys; its MODEL.WEIGHTS is not used.
        weights: .pth (no pickled code) or .safetensors file.

    Raises:
        InputError: the weights cannot be read or do not fit.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = ""
    predictor = DefaultPredictor(cfg)
    SafeCheckpointer(predictor.model).load(weights)
    predictor.aug = build_test_augmentation(cfg)
    return predictor


def predict_folder(predictor: DefaultPredictor, paths: list[str], output: str) -> list[str]:
    """Write, for each image, its label map `<stem>.png` and its `<stem>_overlay.jpg`.

    Label maps hold class indices, 8 bit up to 256 classes and 16 bit above. Of images that share
    a stem, each keeps its extension in its outputs' names.

    Args:
        predictor: as from build_predictor.
        paths: image files.
        output: folder, made where it is missing.

    Returns:
        One line for each image that could not be read; those are skipped.
    """
    os.makedirs(output, exist_ok=True)
    num_classes = predictor.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    datasets = predictor.cfg.DATASETS.TEST
    metadata = MetadataCatalog.get(datasets[0]) if datasets else {}
    names, colors = class_styles(metadata, num_classes)
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    problems = []
    for path, stem in zip(tqdm(paths, unit="image"), stems, strict=True):
        try:
            image = read_image(path)
        except InputError as e:
            problems.append(str(e))
            continue
        label = predictor(image)["sem_seg"].argmax(dim=0).cpu().numpy()
        label = label.astype(np.uint8 if num_classes <= 256 else np.uint16)
        picture = blend_labels(image[:, :, ::-1], label, colors)
        picture = add_legend(picture, label, names, colors)
        name = stem if stems.count(stem) == 1 else os.path.basename(path)
        write_image(os.path.join(output, f"{name}.png"), label)
        write_image(os.path.join(output, f"{name}_overlay.jpg"), picture[:, :, ::-1])
    return problems
