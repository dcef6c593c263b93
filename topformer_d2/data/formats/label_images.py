"""Pixel labels as PNGs whose values are the classes' indices, and a text file of the classes."""

from __future__ import annotations

from ...tasks import PIXELS
from ..class_list import read_classes
from ..sem_seg import label_fields, load_image_label_pairs
from .base import IMAGES, DatasetFormat, Paths


def _classes(paths: Paths, ignore_label: int) -> dict:
    return read_classes(paths["CLASSES"], ignore_label).stuff_metadata()


def _metadata(paths: Paths) -> dict:
    return {"sem_seg_root": paths["LABELS"], "classes_file": paths["CLASSES"]}


def _records(name: str, paths: Paths) -> list[dict]:
    return load_image_label_pairs(paths[IMAGES], paths["LABELS"])


def _labels(paths: Paths) -> dict[str, dict]:
    return label_fields(paths["LABELS"])


FORMAT = DatasetFormat(
    name="label_images",
    tasks=(PIXELS.name,),
    keys=("LABELS", "CLASSES"),
    class_keys=("CLASSES",),
    classes=_classes,
    records=_records,
    metadata=_metadata,
    labels=_labels,
)
