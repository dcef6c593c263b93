"""Datasets that have boxes and pixel labels of the same images."""

from __future__ import annotations

import os
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError, printable
from ..logs import get_logger
from .boxes import load_boxes
from .categories import Categories
from .coco_json import JSON_READER
from .sem_seg import label_files

logger = get_logger(__name__)


def load_multitask(name: str, json_file: str, image_root: str, label_root: str) -> list[dict]:
    """Detectron2 records of a COCO JSON, each with the label PNG of its image's stem.

    An image without a label has "tasks" ("instances",), and a warning counts them. A label whose
    image the JSON does not list is not used.

    Raises:
        InputError: as load_boxes does, no image has a label, or two have the same.
    """
    records, labels = load_boxes(name, json_file, image_root), label_files(label_root)
    without: list[str] = []
    image_of: dict[str, str] = {}
    for record in records:
        stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
        if stem not in labels:
            record["tasks"] = ("instances",)
            without.append(record["file_name"])
            continue
        if stem in image_of:  # in subfolders
            raise InputError(
                f"{image_of[stem]} and {record['file_name']} of {json_file} share a stem: which "
                f"one is the label {labels[stem]} of?"
            )
        image_of[stem] = record["file_name"]
        record["sem_seg_file_name"] = labels[stem]
    if without:
        folder = os.path.abspath(label_root)
        what = (
            f"dataset {name!r}: {len(without)} of {len(records)} images have no label in {folder}"
        )
        if len(without) == len(records):
            raise InputError(f"{what}; {json_file} lists {without[0]}, for one")
        logger.warning(
            "%s and are used for their boxes alone, %s among them",
            *(printable(what), printable(without[0], newlines=True)),
        )
    return records


def register_multitask(
    name: str,
    json_file: str,
    image_root: str,
    label_root: str,
    *,
    stuff: Categories,
    things: Categories | None = None,
    **metadata: Any,
) -> None:
    """Register boxes and pixel labels of the same images as one dataset.

    Args:
        name: what DATASETS.TRAIN and DATASETS.TEST call it.
        json_file: boxes in COCO's format; segmentation is not read.
        image_root: folder that its file names are relative to.
        label_root: folder of label PNGs (8 bit, training ids) with the images' stems.
        stuff: the classes of the pixels.
        things: the classes of the boxes, the JSON's category ids as source_ids; None = as the JSON
            has them, once it is read.
        metadata: further fields of its Detectron2 metadata.
    """
    DatasetCatalog.register(name, lambda: load_multitask(name, json_file, image_root, label_root))
    if things is not None:
        metadata |= things.thing_metadata()
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        sem_seg_root=label_root,
        # What Detectron2's own tools can evaluate of both; "tasks" is for this toolkit.
        evaluator_type="coco",
        tasks=("sem_seg", "instances"),
        json_reader=JSON_READER,
        **stuff.stuff_metadata(),
        **metadata,
    )
