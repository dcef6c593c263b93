"""Datasets of boxes in COCO's JSON format: reading them, and dropping invalid boxes."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from functools import partial
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from ..errors import InputError, printable, shortened
from ..logs import get_logger
from ..tasks import BOXES
from .categories import Categories
from .coco_json import (
    JSON_READER,
    LARGEST_COORDINATE,
    check_inside,
    class_metadata,
    corners,
    read_boxes,
    read_coco,
)
from .object_outlines import read_outlines
from .registered import register_dataset
from .source_cache import without_collection

logger = get_logger(__name__)


@without_collection()
def load_boxes(
    name: str, json_file: str, image_root: str, *, with_outlines: bool = False
) -> list[dict]:
    """Detectron2 records of a COCO JSON, whose category ids may have gaps.

    Detectron2's load_coco_json keeps segmentations in every record, and leaves out each object
    whose polygon it does not like.

    Args:
        name: of the dataset.
        json_file: its path.
        image_root: folder that its file names are relative to.
        with_outlines: read segmentations, too. A warning counts those that cannot be used; then
            the object has none.

    Raises:
        InputError: the file is missing or is not a COCO JSON, an annotation is malformed, a file
            name leads out of image_root, or the categories are not those that `name` was
            registered with.
    """
    content = read_coco(json_file)
    classes = class_metadata(content)
    registered = MetadataCatalog.get(name).get("thing_classes")
    if registered is not None and registered != classes["thing_classes"]:
        raise InputError(
            f"{json_file} has the classes {classes['thing_classes']}, but dataset {name!r} is "
            f"registered with {registered}: prepare it again with these classes in this order"
        )
    MetadataCatalog.get(name).set(**classes)
    by_image = defaultdict(list)
    annotations = []
    for box in read_boxes(content, json_file):
        annotation = {
            "bbox": box.bbox,
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": box.category,
            "iscrowd": box.iscrowd,
        }
        annotations.append(annotation)
        by_image[box.image_id].append(annotation)
    if with_outlines:
        _add_outlines(annotations, json_file)
    unlisted = by_image.keys() - {image["id"] for image in content["images"]}
    if unlisted:
        count = sum(len(by_image[image_id]) for image_id in unlisted)
        what = f"{json_file}: {count} annotations are of images that it does not list"
        if len(unlisted) == len(by_image):
            raise InputError(
                f"{what}, such as {shortened(min(unlisted, key=str))}, and none of others"
            )
        logger.warning("%s; they are not used", printable(what))
    for image in content["images"]:
        check_inside(image["file_name"], image_root, json_file)
    return [
        {
            "file_name": os.path.join(image_root, image["file_name"]),
            "image_id": image["id"],
            "width": image["width"],
            "height": image["height"],
            "annotations": by_image[image["id"]],
        }
        for image in content["images"]
    ]


def _add_outlines(annotations: list[dict], json_file: str) -> None:
    """Give records' annotations, in the order of the JSON, their "segmentation"."""
    found, num_wrong = read_outlines(json_file)
    for annotation, outline in zip(annotations, found, strict=True):
        if outline is not None:
            annotation["segmentation"] = outline
    if num_wrong:
        logger.warning(
            "%s: %d of %d segmentations are neither polygons nor an RLE of the image; these "
            "objects are their boxes",
            *(printable(json_file), num_wrong, len(found)),
        )


def register_boxes(
    name: str,
    json_file: str,
    image_root: str,
    categories: Categories | None = None,
    **metadata: Any,
) -> None:
    """Register a COCO JSON and its images as a dataset.

    Args:
        name: what DATASETS.TRAIN and DATASETS.TEST call it.
        json_file: boxes in COCO's format; segmentation is read by load_records with outlines
            alone.
        image_root: folder that its file names are relative to.
        categories: the classes with the JSON's category ids as source_ids, so that they are known
            where the dataset is not; None = as the JSON has them, once it is read.
        metadata: further fields of its Detectron2 metadata.
    """
    if categories is not None:
        metadata |= categories.thing_metadata()
    register_dataset(
        name,
        lambda: load_boxes(name, json_file, image_root),
        [BOXES.name],
        json_file=json_file,
        image_root=image_root,
        json_reader=JSON_READER,
        outlined_records=partial(load_boxes, name, json_file, image_root, with_outlines=True),
        **metadata,
    )


_ANNOTATION_KEYS = ("bbox", "bbox_mode", "category_id", "iscrowd")


def clean_boxes(records: list[dict], *, with_outlines: bool = False) -> list[dict]:
    """Records with only those annotations that training can use: boxes with an area.

    Boxes that have no area inside their image are dropped, and one warning counts them; one that
    reaches out of its image is kept (the loader clips it). The records given stay as they are.

    Args:
        records: Detectron2 dataset dicts.
        with_outlines: keep "segmentation", which takes several times the memory of all else.

    Raises:
        InputError: an annotation has no box, or one of numbers that no image has.
    """
    dropped: Counter[str] = Counter()
    wanted = (*_ANNOTATION_KEYS, "segmentation") if with_outlines else _ANNOTATION_KEYS
    cleaned = []
    for record in records:
        annotations = record.get("annotations", [])
        good = [a for a in annotations if has_area_inside(a, record)]
        if len(good) < len(annotations):
            dropped[record["file_name"]] += len(annotations) - len(good)
        boxes = [{key: a[key] for key in wanted if key in a} for a in good]
        cleaned.append({**record, "annotations": boxes})
    if dropped:
        files = ", ".join(printable(file, newlines=True) for file in list(dropped)[:3])
        logger.warning(
            "dropped %d boxes of no area or outside their image, in %d images: %s%s",
            *(sum(dropped.values()), len(dropped), files, ", ..." if len(dropped) > 3 else ""),
        )
    return cleaned


def has_area_inside(annotation: dict, record: dict) -> bool:
    """Whether a box has an area inside its image; InputError where its values are not a box."""
    try:
        x0, y0, x1, y1 = box = corners(annotation)
        is_finite = all(map(math.isfinite, box))
        if is_finite and max(map(abs, box)) > LARGEST_COORDINATE:
            raise ValueError(f"a number is beyond {LARGEST_COORDINATE}")
    except (KeyError, OverflowError, TypeError, ValueError) as e:
        what = f"{record['file_name']}: the annotation {shortened(annotation)}"
        raise InputError(f"{what} has no box: {e}") from e
    width, height = record.get("width", math.inf), record.get("height", math.inf)
    inside = min(x1, width) > max(x0, 0) and min(y1, height) > max(y0, 0)
    return bool(is_finite and inside)
