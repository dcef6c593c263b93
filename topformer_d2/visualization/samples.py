"""Samples of a dataset beside their labels and boxes, as their files have them or augmented."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode

from ..data.class_table import DatasetClasses
from ..data.images import read_image
from ..data.label_checks import check_label_size
from ..data.mapper import TaskMapper
from ..data.registered import load_records, spread_evenly
from ..data.scene import Scene
from ..data.seeded import SeededMap, kinds_of
from ..data.suspects import Suspect
from ..errors import InputError
from .mistakes import captioned, outlined
from .painter import Painter
from .sheet import make_sheet


def sample_sheet(
    cfg: CfgNode, dataset_name: str, num_images: int, *, draws: int = 0, seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Images spread evenly over a dataset, each beside its truth; a row for each.

    Args:
        cfg: a config with the toolkit's keys, whose tasks and classes fit the dataset.
        dataset_name: a registered dataset.
        num_images: rows of the sheet, at most.
        draws: 0 = as the files have it; else how often each image is augmented, as training does:
            this is what the model gets, less normalisation and padding.
        seed: of the augmentation; row r's draw d is position r * draws + d of the training stream
            of that seed.

    Returns:
        The sheet (H, W, 3) uint8 RGB, and the image file of each row.

    Raises:
        InputError: a file cannot be read, or its truth does not fit it.
    """
    painter = Painter(cfg, dataset_name)
    all_records = load_records(dataset_name)
    indices = spread_evenly(range(len(all_records)), num_images)
    records = [all_records[i] for i in indices]
    if not draws:
        return _raw_sheet(painter, records)
    # From all of them, since a sample can be made of several.
    samples = SeededMap(all_records, TaskMapper(cfg, is_train=True), seed, kinds_of(all_records))
    rows = [
        _row(painter, [_augmented(samples[r * draws + d, i], cfg) for d in range(draws)])
        for r, i in enumerate(indices)
    ]
    titles = [f"draw {d + 1}" for d in range(draws)]
    sheet = make_sheet(rows, [column for title in titles for column in (title, "truth")])
    return sheet, [record["file_name"] for record in records]


def dataset_sheet(dataset_name: str, num_images: int) -> tuple[np.ndarray, list[str]]:
    """sample_sheet of a dataset as its files have it, in its own classes, without a config."""
    painter = Painter(DatasetClasses.of_dataset(dataset_name))
    return _raw_sheet(painter, spread_evenly(load_records(dataset_name), num_images))


def _raw_sheet(painter: Painter, records: Sequence[dict]) -> tuple[np.ndarray, list[str]]:
    rows = []
    for record in records:
        # As the files have it: boxes that reach out, too, which the mapper clips.
        image = read_image(record["file_name"], "RGB")
        scene = Scene.from_record(record, painter.tasks)
        if scene.label is not None:
            label_file, size = record["sem_seg_file_name"], image.shape[:2]
            check_label_size(scene.label, size, label_file, record["file_name"])
        rows.append(_row(painter, [(image, scene)]))
    return make_sheet(rows, ["image", "truth"]), [record["file_name"] for record in records]


def _row(painter: Painter, drawn: Sequence[tuple[np.ndarray, Scene]]) -> list[np.ndarray]:
    """Images, each followed by its truth; the last has the legend of all."""
    row = []
    for image, scene in drawn:
        row += [image, painter.draw(image, scene, opacity=0.7)]
    row[-1] = painter.add_legend(row[-1], *(scene for _, scene in drawn))
    return row


def suspect_sheet(cfg: CfgNode, dataset_name: str, suspects: Sequence[Suspect]) -> np.ndarray:
    """Suspected label errors of a dataset: each image with the place outlined, beside its labels.

    Args:
        cfg: as sample_sheet's.
        dataset_name: a registered dataset, which has the images.
        suspects: a row of the sheet for each, at least one.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: the dataset has no such image, or a file cannot be read.
    """
    painter = Painter(cfg, dataset_name)
    records = {record["file_name"]: record for record in load_records(dataset_name)}
    rows = []
    for suspect in suspects:
        if suspect.file_name not in records:
            raise InputError(
                f"{dataset_name!r} has no image {suspect.file_name}: name the `dataset` that was "
                "evaluated"
            )
        image = read_image(suspect.file_name, "RGB")
        scene = Scene.from_record(records[suspect.file_name], painter.tasks)
        drawn = painter.add_legend(painter.draw(image, scene, opacity=0.7), scene)
        row = [outlined(picture, suspect.box) for picture in (image, drawn)]
        rows.append([captioned(row[0], suspect.text), row[1]])
    return make_sheet(rows, ["image", "truth"])


def _augmented(sample: dict, cfg: CfgNode) -> tuple[np.ndarray, Scene]:
    """The image (H, W, 3) uint8 RGB of a training sample, and its truth."""
    image = sample["image"].numpy().transpose(1, 2, 0)
    image = image[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else image
    return np.ascontiguousarray(image), Scene.from_sample(sample)
