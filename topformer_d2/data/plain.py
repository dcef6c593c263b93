"""Labels that are used as they lie: PNGs of training ids, and COCO JSONs of boxes.

They are the formats of the builtin datasets. Nothing is converted, nothing is written, and the
evaluation reads the JSON itself. Whatever differs from them goes the way of data/labelling.
"""

from __future__ import annotations

import os

from detectron2.utils.file_io import PathManager

from ..errors import InputError
from ..files import is_remote
from ..tasks import BOXES
from .boxes import load_boxes
from .class_list import listed_classes
from .coco_json import JSON_READER, class_metadata, read_boxes, read_coco
from .formats import FORMATS
from .image_files import has_extension
from .images import is_plain_label
from .labelling import Entry
from .multitask import join_labels
from .registered import spread_evenly
from .sem_seg import label_fields, load_image_label_pairs

_SAMPLES = 8  # of the label files, which are looked at


def is_plain(entry: Entry) -> bool:
    """Whether an entry's labels can be used as they lie, by some of its files.

    Labels that are missing, or of no format, count as plain: their reader says what is wrong.
    """
    if not entry.is_plain or not (entry.classes if entry.labels else not entry.classes):
        return False
    if entry.labels and not _is_plain_folder(entry) and _is_known(entry, entry.labels):
        return False
    return (
        not entry.boxes
        or _is_plain_json(entry.boxes, entry.images)
        or not _is_known(entry, entry.boxes)
    )


def _is_known(entry: Entry, path: str) -> bool:
    return PathManager.exists(path) and any(
        each.detect(path, entry.images) for each in FORMATS.values()
    )


def _is_plain_folder(entry: Entry) -> bool:
    if not (PathManager.isdir(entry.labels) and PathManager.isdir(entry.images)):
        return False
    names = sorted(PathManager.ls(entry.labels))
    labels = [name for name in names if has_extension(name, ".png")]
    sampled = spread_evenly(labels, _SAMPLES)
    if not entry.boxes:  # whose files list the images, perhaps of subfolders
        stems = {os.path.splitext(name)[0] for name in PathManager.ls(entry.images)}
        if not stems.issuperset(os.path.splitext(name)[0] for name in sampled):
            return False
    return bool(labels) and all(
        is_plain_label(os.path.join(entry.labels, name)) for name in sampled
    )


def _is_plain_json(path: str, images: str) -> bool:
    """Whether the strict reader takes all of a COCO JSON, and its images are there."""
    if not path.lower().endswith(".json"):
        return False
    try:
        content = read_coco(path)
        boxes = read_boxes(content, path)
    except InputError:
        return False
    ids = {image["id"] for image in content["images"]}
    other = {box.image_id for box in boxes} - ids
    if {str(each) for each in ids} & {str(each) for each in other}:
        return False  # numbers here and text there
    if is_remote(images) or not os.path.isdir(images):
        return True
    names = set(os.listdir(images))
    missing = sum(
        not (file in names or os.path.exists(os.path.join(images, file)))
        for file in (image["file_name"] for image in content["images"])
    )
    return missing in (0, len(ids))  # where all are missing, its reader says so


def plain_metadata(entry: Entry, ignore_label: int, task: str) -> dict:
    """The fields of Detectron2's metadata that say what the classes of a task are.

    Raises:
        InputError: a file that names the classes is wrong.
    """
    if task == BOXES.name:
        return class_metadata(read_coco(entry.boxes))
    return listed_classes(entry.classes, ignore_label).stuff_metadata()


def plain_paths(entry: Entry) -> dict:
    """The fields of Detectron2's metadata that name the labels' files."""
    fields = {}
    if entry.labels:
        fields["sem_seg_root"] = entry.labels
        if isinstance(entry.classes, str):
            fields["classes_file"] = entry.classes
    if entry.boxes:
        fields |= {"json_file": entry.boxes, "json_reader": JSON_READER}
    return fields


def plain_records(name: str, entry: Entry, *, with_outlines: bool = False) -> list[dict]:
    """Detectron2 records of an entry whose labels are used as they lie.

    Args:
        name: of the dataset.
        entry: of it.
        with_outlines: objects have their outlines.

    Raises:
        InputError: a file is missing or wrong.
    """
    if not entry.boxes:
        return load_image_label_pairs(entry.images, entry.labels)
    records = load_boxes(name, entry.boxes, entry.images, with_outlines=with_outlines)
    if entry.labels:
        labels = label_fields(entry.labels)
        return join_labels(name, records, labels, entry.boxes, entry.labels)
    return records
