"""Predictions as pictures: of image files, and of a dataset beside its truth."""

from __future__ import annotations

import os

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from PIL import Image
from tqdm.auto import tqdm

from ..errors import InputError
from ..inference import read_image, write_image
from .overlay import add_legend, blend_labels, class_styles
from .sheet import make_sheet


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


def prediction_sheet(predictor: DefaultPredictor, dataset_name: str, num_images: int) -> np.ndarray:
    """Images spread evenly over a dataset, each beside its truth and its prediction.

    Args:
        predictor: as from build_predictor.
        dataset_name: a registered dataset with labels.
        num_images: rows of the sheet, at most.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    records = DatasetCatalog.get(dataset_name)
    num_classes = predictor.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    names, colors = class_styles(MetadataCatalog.get(dataset_name), num_classes)
    chosen = np.linspace(0, len(records) - 1, min(num_images, len(records))).round().astype(int)
    rows = []
    for record in (records[i] for i in chosen):
        image = read_image(record["file_name"])
        truth = np.asarray(Image.open(record["sem_seg_file_name"]))
        prediction = predictor(image)["sem_seg"].argmax(dim=0).cpu().numpy()
        rgb = np.ascontiguousarray(image[:, :, ::-1])
        blended = [blend_labels(rgb, labels, colors, 0.7) for labels in (truth, prediction)]
        rows.append([rgb, blended[0], add_legend(blended[1], truth, names, colors)])
    return make_sheet(rows, ["image", "truth", "prediction"])
