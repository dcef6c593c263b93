"""What the boxes of a dataset are evaluated against."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.data import Metadata, MetadataCatalog

from ..errors import InputError, shortened
from .coco_json import corners, read_boxes, read_coco
from .source_cache import without_collection


def box_truth(name: str, records: Sequence[dict]) -> dict:
    """What the boxes of a dataset are evaluated against: a COCO JSON's three parts.

    The annotations have "image_id", "category_id", "bbox" (x, y, width, height), "area" and
    "iscrowd"; "annotations" is missing where the dataset's JSON has none. A file that Detectron2's
    own evaluator has left in the output folder is not read.

    Args:
        name: of a registered dataset. Where its metadata names a COCO JSON, that is read, by the
            reader that training has.
        records: of the dataset; read where there is no such JSON.

    Raises:
        InputError: as read_coco and read_boxes; a record has no "image_id" or another's; or the
            categories are not as many as the dataset's classes.
    """
    metadata = MetadataCatalog.get(name)
    classes = metadata.get("thing_classes")
    json_file = metadata.get("json_file")
    # Detectron2's evaluator names its conversion in the metadata, where an older one may stand.
    if json_file and os.path.basename(json_file) != f"{name}_coco_format.json":
        truth = _truth_of_json(json_file)
    else:
        truth = _truth_of_records(name, records, metadata)
    if classes and len(classes) != len(truth["categories"]):
        raise InputError(
            f"dataset {name!r} has {len(classes)} classes, but {json_file or 'it'} has "
            f"{len(truth['categories'])} categories"
        )
    return truth


@without_collection()
def _truth_of_json(json_file: str) -> dict:
    content = read_coco(json_file, annotated=False)
    truth = {
        "images": [{"id": image["id"]} for image in content["images"]],
        "categories": [{"id": c["id"], "name": c["name"]} for c in content["categories"]],
    }
    if "annotations" in content:
        truth["annotations"] = [
            {
                "image_id": box.image_id,
                "category_id": content["categories"][box.category]["id"],
                "bbox": box.bbox,
                "area": box.area,
                "iscrowd": box.iscrowd,
            }
            for box in read_boxes(content, json_file)
        ]
    return truth


def _truth_of_records(name: str, records: Sequence[dict], metadata: Metadata) -> dict:
    # As in Detectron2, a dataset without such a table has the indices for ids.
    to_index = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ids = {index: source for source, index in to_index.items()}
    classes = metadata.get("thing_classes") or []
    images, annotations, seen = [], [], set()
    for record in records:
        image_id = record.get("image_id")
        if image_id is None or image_id in seen:
            what = "no 'image_id'" if image_id is None else f"another's 'image_id' {image_id!r}"
            raise InputError(
                f"the record of {record['file_name']} of dataset {name!r} has {what}, which the "
                "evaluation of boxes takes: give each image its own"
            )
        seen.add(image_id)
        images.append({"id": image_id})
        for annotation in record.get("annotations", ()):
            try:
                x0, y0, x1, y1 = map(float, corners(annotation))
                category, crowd = annotation["category_id"], int(annotation.get("iscrowd", 0))
            except (KeyError, OverflowError, TypeError, ValueError) as e:
                what = f"{record['file_name']}: the annotation {shortened(annotation)}"
                raise InputError(f"{what} is malformed: {e!r}") from e
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": ids.get(category, category),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": crowd,
                }
            )
    categories = [{"id": ids.get(i, i), "name": class_} for i, class_ in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}
