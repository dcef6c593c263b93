"""Datasets that have boxes and pixel labels of the same images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..errors import InputError, printable
from ..logs import get_logger
from ..tasks import BOXES, PIXELS, TASKS
from .boxes import load_boxes
from .categories import Categories
from .coco_json import JSON_READER
from .registered import register_dataset
from .sem_seg import label_fields

logger = get_logger(__name__)


def load_multitask(
    name: str, json_file: str, image_root: str, label_root: str, *, with_outlines: bool = False
) -> list[dict]:
    """Detectron2 records of a COCO JSON, each with the label PNG of its image's stem.

    Raises:
        InputError: as load_boxes, label_fields and join_labels.
    """
    records = load_boxes(name, json_file, image_root, with_outlines=with_outlines)
    return join_labels(name, records, label_fields(label_root), json_file, label_root)


def join_labels(
    name: str,
    records: list[dict],
    labels: Mapping[str, Mapping],
    listed_by: str,
    label_root: str,
) -> list[dict]:
    """Records of boxes, each with the pixel label of its image's stem.

    An image without a label has "tasks" ("instances",), and a warning counts them. A label whose
    image is not listed is not used.

    Args:
        name: of the dataset.
        records: of its boxes; changed in place.
        labels: {stem of an image: the fields of its record that name its label}.
        listed_by: the file that the records are of, for messages.
        label_root: the folder of the labels, for messages.

    Raises:
        InputError: no image has a label, or two have the same.
    """
    without: list[str] = []
    image_of: dict[str, str] = {}
    for record in records:
        stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
        if stem not in labels:
            record["tasks"] = (BOXES.name,)
            without.append(record["file_name"])
            continue
        if stem in image_of:  # in subfolders
            label = labels[stem][PIXELS.record_key]
            raise InputError(
                f"{image_of[stem]} and {record['file_name']} of {listed_by} share a stem: which "
                f"one is the label {label} of?"
            )
        image_of[stem] = record["file_name"]
        record |= labels[stem]
    if without:
        folder = os.path.abspath(label_root)
        what = (
            f"dataset {name!r}: {len(without)} of {len(records)} images have no label in {folder}"
        )
        if len(without) == len(records):
            raise InputError(f"{what}; {listed_by} lists {without[0]}, for one")
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
        json_file: boxes in COCO's format; segmentation is read by load_records with outlines
            alone.
        image_root: folder that its file names are relative to.
        label_root: folder of label PNGs (8 bit, training ids) with the images' stems.
        stuff: the classes of the pixels.
        things: the classes of the boxes, the JSON's category ids as source_ids; None = as the JSON
            has them, once it is read.
        metadata: further fields of its Detectron2 metadata.
    """
    if things is not None:
        metadata |= things.thing_metadata()
    register_dataset(
        name,
        lambda: load_multitask(name, json_file, image_root, label_root),
        list(TASKS),
        json_file=json_file,
        image_root=image_root,
        sem_seg_root=label_root,
        json_reader=JSON_READER,
        outlined_records=partial(
            load_multitask, name, json_file, image_root, label_root, with_outlines=True
        ),
        **stuff.stuff_metadata(),
        **metadata,
    )
