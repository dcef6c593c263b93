"""Predictions as pictures: of image files, and of a dataset beside its truth."""

from __future__ import annotations

import itertools
import os
from collections import Counter

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from tqdm.auto import tqdm

from ..data.files import read_image, read_label, write_image
from ..errors import InputError
from .overlay import add_legend, blend_labels, class_styles
from .sheet import make_sheet


def output_names(paths: list[str]) -> list[str]:
    """A name for each file's outputs: its path below the folder that all share, no extension.

    Files that differ in the extension alone keep it.
    """
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    relative = [os.path.relpath(os.path.abspath(path), root) for path in paths]
    stems = Counter(os.path.splitext(path)[0] for path in relative)
    return [
        path if stems[os.path.splitext(path)[0]] > 1 else os.path.splitext(path)[0]
        for path in relative
    ]


def predict_files(predictor: DefaultPredictor, paths: list[str], output: str) -> list[str]:
    """Write, for each image, `<name>_label.png` and `<name>_overlay.jpg` below `output`.

    Label maps hold class indices, 8 bit up to 256 classes and 16 bit above; output_names names
    them.

    Args:
        predictor: as from build_predictor.
        paths: image files.
        output: folder, made where it is missing.

    Returns:
        One line for each image that could not be read; those are skipped.

    Raises:
        InputError: an output would overwrite an input.
    """
    targets = [
        (os.path.join(output, f"{name}_label.png"), os.path.join(output, f"{name}_overlay.jpg"))
        for name in output_names(paths)
    ]
    inputs = {os.path.realpath(path) for path in paths}
    for target in itertools.chain(*targets):
        if os.path.realpath(target) in inputs:
            raise InputError(f"--output would overwrite the input {target}: use another folder")
    num_classes = predictor.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    datasets = predictor.cfg.DATASETS.TEST
    metadata = MetadataCatalog.get(datasets[0]) if datasets else {}
    names, colors = class_styles(metadata, num_classes)
    problems = []
    for path, (label_file, overlay_file) in zip(tqdm(paths, unit="image"), targets, strict=True):
        try:
            image = read_image(path)
        except InputError as e:
            problems.append(str(e))
            continue
        label = predictor(image)["sem_seg"].argmax(dim=0).cpu().numpy()
        label = label.astype(np.uint8 if num_classes <= 256 else np.uint16)
        picture = blend_labels(image[:, :, ::-1], label, colors)
        picture = add_legend(picture, label, names, colors)
        write_image(label_file, label)
        write_image(overlay_file, picture[:, :, ::-1])
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
        truth = read_label(record["sem_seg_file_name"])
        prediction = predictor(image)["sem_seg"].argmax(dim=0).cpu().numpy()
        rgb = np.ascontiguousarray(image[:, :, ::-1])
        blended = [blend_labels(rgb, labels, colors, 0.7) for labels in (truth, prediction)]
        rows.append([rgb, blended[0], add_legend(blended[1], truth, names, colors)])
    return make_sheet(rows, ["image", "truth", "prediction"])
