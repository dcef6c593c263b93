"""Boxes in COCO's JSON format."""

from __future__ import annotations

from ...tasks import BOXES
from ..boxes import load_boxes
from ..coco_json import JSON_READER, class_metadata, read_coco
from .base import IMAGES, DatasetFormat, Paths


def _classes(paths: Paths, ignore_label: int) -> dict:
    return class_metadata(read_coco(paths["BOXES"]))


def _metadata(paths: Paths) -> dict:
    return {"json_file": paths["BOXES"], "json_reader": JSON_READER}


def _records(name: str, paths: Paths) -> list[dict]:
    return load_boxes(name, paths["BOXES"], paths[IMAGES])


FORMAT = DatasetFormat(
    name="coco",
    tasks=(BOXES.name,),
    keys=("BOXES",),
    class_keys=("BOXES",),
    classes=_classes,
    records=_records,
    metadata=_metadata,
)
