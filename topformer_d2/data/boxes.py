"""Datasets of boxes in COCO's JSON format: reading them, and dropping boxes that are none."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter, defaultdict

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ..errors import InputError
from .categories import Categories

logger = logging.getLogger(__name__)


def load_boxes(name: str, json_file: str, image_root: str) -> list[dict]:
    """Detectron2 records of a COCO JSON, whose category ids may have gaps.

    Boxes alone are read. Detectron2's load_coco_json reads segmentations too, keeps them in every
    record, and leaves out each object whose polygon it does not like.

    Raises:
        InputError: the file is missing or no COCO JSON, an annotation is malformed, or the
            categories are not those that `name` was registered with.
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
    to_index = classes["thing_dataset_id_to_contiguous_id"]
    by_image = defaultdict(list)
    problems = []
    for annotation in content["annotations"]:
        try:
            box = _read_annotation(annotation, to_index)
            by_image[annotation["image_id"]].append(box)
        except InputError as e:
            problems.append(str(e))
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"{json_file}: {'; '.join(problems[:5])}{more}")
    unlisted = by_image.keys() - {image["id"] for image in content["images"]}
    if unlisted:
        count = sum(len(by_image[image_id]) for image_id in unlisted)
        what = f"{json_file}: {count} annotations are of images that it does not list"
        if len(unlisted) == len(by_image):
            raise InputError(f"{what}, such as {min(unlisted, key=str)!r}, and none of others")
        logger.warning("%s; they are not used", what)
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


_COCO_TYPES = {
    "images": {"id": (int, str), "file_name": str, "width": int, "height": int},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": (int, str), "category_id": int, "bbox": list},
}


def read_coco(json_file: str) -> dict[str, list[dict]]:
    """The "images", "annotations" and "categories" of a COCO JSON; categories sorted by id.

    Raises:
        InputError: the file is missing or no COCO JSON, a key that is used is missing or has a
            value of another type, or an id stands there twice.
    """
    if not PathManager.isfile(json_file):
        raise InputError(f"{os.path.abspath(json_file)} does not exist")
    try:
        with PathManager.open(json_file, "rb") as f:
            content = json.loads(f.read().decode("utf-8-sig"))
    except ValueError as e:
        raise InputError(f"{json_file} is no JSON: {e}") from e
    for part, types in _COCO_TYPES.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or (part != "annotations" and not entries):
            raise InputError(f"{json_file} is no COCO JSON of boxes: it has no {part!r}")
        for entry in entries:
            wrong = [
                key
                for key, kind in types.items()
                if not isinstance(entry, dict) or not isinstance(entry.get(key), kind)
            ]
            if wrong:
                problem = f"{wrong} missing or of another type than COCO's"
                raise InputError(f"{json_file}: an entry of {part!r} has {problem}: {entry}")
    for part in ("images", "categories"):
        id_, count = Counter(entry["id"] for entry in content[part]).most_common(1)[0]
        if count > 1:
            raise InputError(f"{json_file}: id {id_!r} stands in {part!r} more than once")
    # The order in which Detectron2 numbers the classes.
    return {**content, "categories": sorted(content["categories"], key=lambda c: c["id"])}


def class_metadata(content: dict) -> dict:
    """The fields of Detectron2's metadata that say what the classes of read_coco's content are."""
    categories = content["categories"]
    return {
        "thing_classes": [c["name"] for c in categories],
        "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(categories)},
    }


def _read_annotation(annotation: dict, to_index: dict) -> dict:
    what = f"annotation {annotation.get('id', '')} of image {annotation['image_id']}"
    if annotation["category_id"] not in to_index:
        raise InputError(f"{what} has category {annotation['category_id']!r}, which is not listed")
    if annotation.get("ignore"):
        raise InputError(f"{what} has 'ignore', which COCO's evaluation does not: use 'iscrowd'")
    bbox, crowd = annotation["bbox"], annotation.get("iscrowd", 0)
    if len(bbox) != 4 or not all(isinstance(value, (int, float)) for value in bbox):
        raise InputError(f"{what} has the bbox {bbox!r}; it takes x, y, width, height")
    if crowd not in (0, 1):
        raise InputError(f"{what} has iscrowd {crowd!r}; it takes 0 or 1")
    return {
        "bbox": bbox,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": to_index[annotation["category_id"]],
        "iscrowd": crowd,
    }


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


_ANNOTATION_KEYS = ("bbox", "bbox_mode", "category_id", "iscrowd")


def clean_boxes(records: list[dict]) -> list[dict]:
    """Records with the boxes that can be trained on, and nothing else of their annotations.

    Boxes that have no area inside their image are dropped, and one warning counts them; one that
    reaches out of its image is kept (the loader clips it). Polygons, which the builtin COCO has,
    would take several times the memory of all else. The records given stay as they are.

    Raises:
        InputError: an annotation has no box.
    """
    dropped: Counter[str] = Counter()
    cleaned = []
    for record in records:
        annotations = record.get("annotations", [])
        good = [a for a in annotations if _has_area_inside(a, record)]
        if len(good) < len(annotations):
            dropped[record["file_name"]] += len(annotations) - len(good)
        boxes = [{key: a[key] for key in _ANNOTATION_KEYS if key in a} for a in good]
        cleaned.append({**record, "annotations": boxes})
    if dropped:
        files = ", ".join(list(dropped)[:3])
        logger.warning(
            "dropped %d boxes of no area or outside their image, in %d images: %s%s",
            *(sum(dropped.values()), len(dropped), files, ", ..." if len(dropped) > 3 else ""),
        )
    return cleaned


def corners(annotation: dict) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1) in pixels of an annotation's "bbox" in its "bbox_mode".

    BoxMode.convert does the same by way of tensors, at 20 times the cost for one box.
    """
    a, b, c, d = annotation["bbox"]
    mode = annotation["bbox_mode"]
    if mode == BoxMode.XYWH_ABS:
        return a, b, a + c, b + d
    if mode == BoxMode.XYXY_ABS:
        return a, b, c, d
    raise InputError(f"bbox_mode {mode!r} is not supported: use XYXY_ABS or XYWH_ABS")


def _has_area_inside(annotation: dict, record: dict) -> bool:
    try:
        x0, y0, x1, y1 = box = corners(annotation)
        is_finite = all(map(math.isfinite, box))
    except (KeyError, TypeError, ValueError) as e:
        file = record["file_name"]
        raise InputError(f"{file}: the annotation {annotation} has no box: {e}") from e
    width, height = record.get("width", math.inf), record.get("height", math.inf)
    inside = min(x1, width) > max(x0, 0) and min(y1, height) > max(y0, 0)
    return bool(is_finite and inside)
