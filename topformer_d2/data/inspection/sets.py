"""Errors of a dataset as a whole, which no single record shows."""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from collections.abc import Container, Iterable, Sequence

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ...errors import InputError
from ...files import is_remote
from ...tasks import IMAGES
from ..boxes import has_area_inside
from ..coco_json import JSON_READER
from ..coco_truth import box_truth
from ..image_files import has_extension
from ..labelling.unknown import suggest_values
from .findings import Tally
from .records import Expected

# Shares of a dataset's boxes at which they are probably not what their format says.
_UNDER_A_PIXEL = 0.05
_LIKE_CORNERS = 0.99
_REACHING_OUT = 0.25
# Kinds of findings that are of a dataset as a whole, and no error.
SET_WARNINGS = (
    "some boxes within 0 to 1",
    "boxes look like corners",
    "image in training and test",
    "class without an image",
)
_NAMES = 10  # of classes, in a message


def inspect_set(name: str, records: Sequence[dict], expected: Expected, tally: Tally) -> None:
    """Note what the records of the dataset `name` say together; no file is read."""
    _note_repeats(name, records, tally)
    if "instances" in expected.tasks:
        table = _box_table(records)
        _note_relative(name, records, table, tally)
        _note_corners(name, table, tally)
    classes = MetadataCatalog.get(name).get(IMAGES.classes_field)
    seen = {record[IMAGES.record_key] for record in records if IMAGES.record_key in record}
    if seen and (missing := unseen_classes(classes or (), seen)):
        tally.note("class without an image", "", f"{name}: NO IMAGE of {missing}")


def unused_images(folder: str, used: Container[str] = ()) -> list[str]:
    """Paths of the images in a folder, not below it, whose absolute path is not in `used`."""
    names = sorted(name for name in PathManager.ls(folder) if has_extension(name))
    paths = (os.path.join(folder, name) for name in names)
    return [p for p in paths if os.path.abspath(p) not in used and PathManager.isfile(p)]


def inspect_truth(name: str, records: list[dict], expected: Expected, tally: Tally) -> None:
    """Note boxes that the evaluation cannot read, where it reads them from another source."""
    metadata = MetadataCatalog.get(name)
    is_read = metadata.get("json_reader") == JSON_READER
    if "instances" in expected.tasks and metadata.get("json_file") and not is_read:
        with tally.noting("dataset", ""):
            box_truth(name, records)


def count_objects(records: Iterable[dict]) -> Counter[int]:
    """Objects of each class that are learnt: those marked "iscrowd" and without area left out."""
    return Counter(
        category
        for record in records
        for annotation in record.get("annotations", ())
        if isinstance(category := annotation.get("category_id"), int)
        and not annotation.get("iscrowd", 0)
        and _is_kept(annotation, record)
    )


def _is_kept(annotation: dict, record: dict) -> bool:
    try:
        return has_area_inside(annotation, record)
    except InputError:
        return True  # is a finding of its record


def note_shared(
    trained: dict[str, list[dict]], tested: dict[str, list[dict]], tally: Tally
) -> None:
    """Note images that are in a training dataset and also in one for evaluation.

    Args:
        trained, tested: {name of a dataset: its records}.
    """
    files = {_path(record) for records in trained.values() for record in records}
    for name in tested.keys() - trained.keys():
        both = [record for record in tested[name] if _path(record) in files]
        if both:
            message = (
                f"{len(both)} of {len(tested[name])} images of {name} are among the training "
                f"images ({', '.join(trained)}), such as {both[0]['file_name']}: its results say "
                "little of new images"
            )
            tally.note("image in training and test", both[0]["file_name"], message)


def note_pixels(
    what: str, pixels: np.ndarray, expected: Expected, tally: Tally, *, is_whole: bool
) -> None:
    """Note labels from which a model of the pixels' classes can learn nothing.

    Args:
        what: the datasets, for the messages.
        pixels: (256,) pixels of each label.
        expected: has the classes and the ignored label.
        is_whole: the labels are all that is learnt from, and not a sample or for evaluation.
    """
    names, ignored = expected.label_names, expected.ignore_value
    if len(names) == 1:
        message = (
            f"{what}: the only class is {names[0]!r}. A model of one class is always right "
            "(loss 0, mIoU 100): list the background as a class, too, as the first line of the "
            "classes file, and write it as 0 and the others as 1, 2, ..."
        )
        tally.note("one class alone", "", message)
        return
    values = np.flatnonzero(pixels).tolist()
    if not names or not values:
        return
    if any(i >= len(names) and i != ignored for i in values):
        # Each label with such a value is a finding, too.
        if where := _entry_of(what):
            listed = ", ".join(map(str, values[:20])) + (", ..." if len(values) > 20 else "")
            message = (
                f"{what}: the labels hold the values {listed}, and the {len(names)} classes are 0 "
                f"to {len(names) - 1}. {suggest_values({*values}, names, where)}"
            )
            tally.note("other label values", "", message)
        return
    seen = [i for i in values if i != ignored]
    if not seen:
        message = f"{what}: all pixels of the labels are {ignored}, which is ignored"
        tally.note("nothing to learn", "", message)
    elif values == [0, 255]:
        message = (
            f"{what}: the labels hold 0 and 255 alone. 255 is ignored, so there is nothing but "
            f"{names[0]!r} to learn. These look like 0/255 masks; write the foreground as 1: "
            "Image.fromarray((numpy.asarray(Image.open(path)) > 0).astype('uint8')).save(path)"
        )
        if (where := _entry_of(what)) and len(names) == 2:
            message += f". Or add {where}.LABEL_MAP: {{0: {names[0]}, 255: {names[1]}}}"
        tally.note("0/255 masks", "", message)
    elif len(seen) == 1 and is_whole:
        message = (
            f"{what}: all labelled pixels are of one class, {names[seen[0]]!r}, of {len(names)}: "
            "a model that always says so is right (mIoU 100, or 100 over the number of classes). "
            "Write the classes as 0, 1, ... in the order of the classes file"
        )
        tally.note("one class alone", "", message)


def _entry_of(name: str) -> str:
    """The key of a dataset of DATASETS.FOLDERS; "" = it is another."""
    if name in MetadataCatalog.list() and MetadataCatalog.get(name).get("folders"):
        return f"DATASETS.FOLDERS.{name}"
    return ""


def note_no_objects(what: str, objects: Counter[int], tally: Tally) -> None:
    """Note training datasets (`what`) in which no object is left to learn."""
    if not sum(objects.values()):
        message = (
            f"{what}: no image has an object (those marked iscrowd, and boxes that have no area "
            "inside their image, are not learnt)"
        )
        tally.note("nothing to learn", "", message)


def unseen_classes(names: Sequence[str], seen: Iterable[int]) -> str:
    """The classes that are not among `seen`: "2 of 11 classes: 'pole', 'fence'"; "" = none."""
    seen = set(seen)
    missing = [name for i, name in enumerate(names) if i not in seen]
    if not missing:
        return ""
    more = f" and {len(missing) - _NAMES} more" if len(missing) > _NAMES else ""
    listed = ", ".join(map(repr, missing[:_NAMES]))
    return f"{len(missing)} of {len(names)} classes: {listed}{more}"


def _path(record: dict) -> str:
    file = record["file_name"]
    return file if is_remote(file) else os.path.abspath(file)


def _note_repeats(name: str, records: Sequence[dict], tally: Tally) -> None:
    """One image in several records whose labels differ; equal ones only weigh it more."""
    first: dict[str, dict] = {}
    repeats: Counter[str] = Counter()
    for record in records:
        other = first.setdefault(record["file_name"], record)
        if other is not record and any(
            key in record and key in other and record[key] != other[key]
            for key in ("annotations", "sem_seg_file_name")
        ):
            repeats[record["file_name"]] += 1
    if repeats:
        file, count = repeats.most_common(1)[0]
        message = (
            f"{name} lists {len(repeats)} images more than once with different labels or boxes, "
            f"such as {file}, {count + 1} times: each record is learnt as if the objects of the "
            "others were background. List each image once, with all that it has"
        )
        tally.note("image listed twice", file, message)


# Columns of a box table.
_X, _Y, _C, _D, _WIDTH, _HEIGHT, _IS_XYWH, _RECORD = range(8)


def _box_table(records: Sequence[dict]) -> np.ndarray:
    """(N, 8) float64 of all boxes of four finite numbers; see the columns above."""
    table = array("d")
    for index, record in enumerate(records):
        width, height = record.get("width", math.nan), record.get("height", math.nan)
        for annotation in record.get("annotations", ()):
            try:
                a, b, c, d = map(float, annotation["bbox"])
                is_xywh = annotation["bbox_mode"] == BoxMode.XYWH_ABS
                row = (a, b, c, d, float(width), float(height), is_xywh, index)
            except (KeyError, OverflowError, TypeError, ValueError):
                continue  # is a finding of its record
            table.extend(row)
    rows = np.frombuffer(table, np.float64).reshape(-1, 8) if table else np.zeros((0, 8))
    return rows[np.isfinite(rows[:, :4]).all(1)]


def _note_relative(name: str, records: Sequence[dict], table: np.ndarray, tally: Tally) -> None:
    """Boxes within 0..1, as YOLO's, in images of more than a pixel."""
    boxes = table[:, :4]
    # A box of no area is another finding.
    has_area = (table[:, _C] > 0) & (table[:, _D] > 0)
    small = (boxes >= 0).all(1) & (boxes <= 1).all(1) & has_area
    small &= ~(np.maximum(table[:, _WIDTH], table[:, _HEIGHT]) <= 2)
    count = int(small.sum())
    if not count or count < _UNDER_A_PIXEL * has_area.sum():
        return
    example = table[small][0]
    file = records[int(example[_RECORD])]["file_name"]
    such = f"such as {[round(v, 4) for v in example[:4].tolist()]} in {file}"
    fix = "multiply x and width by the image's width, y and height by its height"
    if count == has_area.sum():
        message = (
            f"{name}: all {count} boxes lie within 0 to 1, {such}: they are relative to the "
            f"image's size, and boxes are in pixels: {fix}"
        )
        tally.note("boxes within 0 to 1", file, message)
    else:
        message = (
            f"{name}: {count} of {has_area.sum()} boxes lie within 0 to 1 pixel, {such}. If they "
            f"are relative to the image's size: {fix}"
        )
        tally.note("some boxes within 0 to 1", file, message)


def _note_corners(name: str, table: np.ndarray, tally: Tally) -> None:
    """Boxes of x, y, width, height that make more sense as x0, y0, x1, y1."""
    x, y, c, d, width, height, is_xywh, _ = table.T
    known = (is_xywh > 0) & np.isfinite(width) & np.isfinite(height)
    total = int(known.sum())
    reaching = int((known & ((x + c > width + 1) | (y + d > height + 1))).sum())
    fitting = int((known & (c > x) & (d > y) & (c <= width + 1) & (d <= height + 1)).sum())
    if reaching and fitting >= _LIKE_CORNERS * total and reaching >= _REACHING_OUT * total:
        message = (
            f"{name}: {reaching} of {total} boxes reach out of their image as x, y, width, height, "
            f"and {fitting} fit into it as x0, y0, x1, y1. A COCO JSON takes x, y, width, height: "
            "subtract x0 and y0"
        )
        tally.note("boxes look like corners", "", message)
