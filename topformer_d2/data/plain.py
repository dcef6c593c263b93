"""Labels that are used as they lie: PNGs of training ids, and COCO JSONs of boxes.

They are the formats of the builtin datasets. Nothing is converted, nothing is written, and the
evaluation reads the JSON itself. Whatever differs from them goes the way of data/labelling.
"""

from __future__ import annotations

import os

from detectron2.utils.file_io import PathManager

from ..errors import InputError
from .boxes import load_boxes
from .categories import Categories
from .class_list import read_classes
from .coco_json import JSON_READER, class_metadata, read_boxes, read_coco
from .image_files import has_extension
from .images import is_plain_label
from .labelling import Entry
from .multitask import join_labels
from .registered import spread_evenly
from .sem_seg import label_fields, load_image_label_pairs

_SAMPLES = 8  # of the label files, which are looked at


def is_plain(entry: Entry) -> bool:
    """Whether an entry's labels can be used as they lie, by some of its files."""
    if not entry.is_plain:
        return False
    if entry.labels and not _is_plain_folder(entry):
        return False
    return not entry.boxes or _is_plain_json(entry)


def _is_plain_folder(entry: Entry) -> bool:
    if not entry.classes or not PathManager.isdir(entry.labels):
        return False
    names = sorted(PathManager.ls(entry.labels))
    labels = [name for name in names if has_extension(name, ".png")]
    if not labels or not PathManager.isdir(entry.images):
        return False
    stems = {os.path.splitext(name)[0] for name in PathManager.ls(entry.images)}
    return all(
        os.path.splitext(name)[0] in stems and is_plain_label(os.path.join(entry.labels, name))
        for name in spread_evenly(labels, _SAMPLES)
    )


def _is_plain_json(entry: Entry) -> bool:
    if (entry.classes and not entry.labels) or not entry.boxes.lower().endswith(".json"):
        return False
    try:
        content = read_coco(entry.boxes)
        for _ in read_boxes(content, entry.boxes):
            break
    except InputError:
        return False
    return True


def plain_metadata(entry: Entry, ignore_label: int) -> dict:
    """The fields of Detectron2's metadata of an entry whose labels are used as they lie.

    Raises:
        InputError: a file that names the classes is wrong.
    """
    fields: dict = {}
    if entry.labels:
        fields["sem_seg_root"] = entry.labels
        if isinstance(entry.classes, str):
            fields["classes_file"] = entry.classes
        fields |= listed_classes(entry, ignore_label).stuff_metadata()
    if entry.boxes:
        fields |= {"json_file": entry.boxes, "json_reader": JSON_READER}
        fields |= class_metadata(read_coco(entry.boxes))
    return fields


def listed_classes(entry: Entry, ignore_label: int) -> Categories:
    """CLASSES of an entry that has them; InputError where their file is wrong."""
    if isinstance(entry.classes, str):
        return read_classes(entry.classes, ignore_label)
    return Categories(entry.classes, (), tuple(range(len(entry.classes))), ignore_label)


def plain_records(name: str, entry: Entry) -> list[dict]:
    """Detectron2 records of an entry whose labels are used as they lie.

    Raises:
        InputError: a file is missing or wrong.
    """
    if not entry.boxes:
        return load_image_label_pairs(entry.images, entry.labels)
    records = load_boxes(name, entry.boxes, entry.images)
    if entry.labels:
        labels = label_fields(entry.labels)
        return join_labels(name, records, labels, entry.boxes, entry.labels)
    return records
