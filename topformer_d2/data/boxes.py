"""Datasets of boxes in COCO's JSON format: reading them, and dropping boxes that are none."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ..errors import InputError
from .categories import Categories

logger = logging.getLogger(__name__)


def load_boxes(name: str, json_file: str, image_root: str) -> list[dict]:
    """Detectron2 records of a COCO JSON, whose category ids may have gaps.

    Raises:
        InputError: the file is missing, or is no COCO JSON, or its categories are not those that
            `name` was registered with.
    """
    if not PathManager.isfile(json_file):
        raise InputError(f"{os.path.abspath(json_file)} does not exist")
    try:
        return load_coco_json(json_file, image_root, name)
    except (AssertionError, KeyError, TypeError, ValueError) as e:
        raise InputError(
            f"{json_file} is no COCO JSON for dataset {name!r}: {type(e).__name__}: {e}"
        ) from e


def register_boxes(
    name: str, json_file: str, image_root: str, categories: Categories | None = None, **metadata
) -> None:
    """Register a COCO JSON and its images as a dataset.

    Args:
        name: what DATASETS.TRAIN and DATASETS.TEST call it.
        json_file: boxes in COCO's format; segmentation is not read.
        image_root: folder that its file names are relative to.
        categories: the classes with the JSON's category ids as source_ids, so that they are known
            where the dataset is not; None = as the JSON has them, once it is read.
        metadata: further fields of its Detectron2 metadata.
    """
    DatasetCatalog.register(name, lambda: load_boxes(name, json_file, image_root))
    if categories is not None:
        metadata |= categories.thing_metadata()
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata
    )


def drop_bad_boxes(records: list[dict]) -> list[dict]:
    """Records without the boxes that have no area inside their image; one warning counts them.

    The records given stay as they are. A box that reaches out of its image is kept (the loader
    clips it).
    """
    dropped: Counter[str] = Counter()
    kept = []
    for record in records:
        annotations = record.get("annotations", [])
        good = [a for a in annotations if _has_area_inside(a, record)]
        if len(good) < len(annotations):
            dropped[record["file_name"]] += len(annotations) - len(good)
            record = {**record, "annotations": good}
        kept.append(record)
    if dropped:
        files = ", ".join(list(dropped)[:3])
        logger.warning(
            "dropped %d boxes of no area or outside their image, in %d images: %s%s",
            *(sum(dropped.values()), len(dropped), files, ", ..." if len(dropped) > 3 else ""),
        )
    return kept


def corners(annotation: dict) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) in pixels of an annotation's "bbox" in its "bbox_mode"."""
    a, b, c, d = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:
        return a, b, a + c, b + d
    if annotation["bbox_mode"] == BoxMode.XYXY_ABS:
        return a, b, c, d
    return tuple(BoxMode.convert([a, b, c, d], annotation["bbox_mode"], BoxMode.XYXY_ABS))


def _has_area_inside(annotation: dict, record: dict) -> bool:
    x0, y0, x1, y1 = corners(annotation)
    width, height = record.get("width", math.inf), record.get("height", math.inf)
    # A comparison with NaN is false.
    return bool(min(x1, width) > max(x0, 0) and min(y1, height) > max(y0, 0))
