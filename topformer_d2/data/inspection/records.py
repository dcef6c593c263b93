"""What can be wrong with one record's files, found by reading them as training does."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image

from ...config import model_tasks
from ...errors import shortened
from ..coco_json import LARGEST_COORDINATE, corners
from ..image_files import UNREADABLE
from ..images import LOSSY_FORMATS, png_bit_depth, read_image, read_label
from ..label_checks import check_image_size, check_label_range, check_label_size
from ..labelled import tasks_of
from .findings import Tally

# Pixels that a box may reach out of its image unreported: COCO's do, by rounding.
_ROUNDING = 1.0
_PALETTE_MODES = ("P", "PA")


@dataclass(frozen=True)
class Expected:
    """What the files of a dataset must agree with.

    Attributes:
        tasks: "sem_seg" (pixel labels), "instances" (boxes) or both, of what a record's own
            "tasks" has; the rest is not looked at.
        label_names, object_names: of the classes; empty = not known, so any number is right.
        ignore_value: label of the pixels that are ignored.
    """

    tasks: tuple[str, ...]
    label_names: tuple[str, ...]
    object_names: tuple[str, ...]
    ignore_value: int

    @classmethod
    def from_config(cls, cfg: CfgNode, records: list[dict], name: str) -> Expected:
        """What the config's model takes of the dataset `name`, which `records` are of.

        One of DATASETS.FOLDERS is held to its own classes: where those are not the model's, its
        labels are right all the same, and check_config says what to add.
        """
        metadata = MetadataCatalog.get(name)
        labels, boxes = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.RETINANET
        has = tasks_of(records)
        stuff, things = (
            _class_names(metadata.get(field), count, is_own=bool(metadata.get("folders")))
            for field, count in (
                ("stuff_classes", labels.NUM_CLASSES),
                ("thing_classes", boxes.NUM_CLASSES),
            )
        )
        return cls(
            tuple(task for task in model_tasks(cfg) if task in has),
            stuff,
            things,
            labels.IGNORE_VALUE,
        )

    @classmethod
    def from_records(cls, records: list[dict], name: str) -> Expected:
        """What the dataset `name` says of itself."""
        metadata = MetadataCatalog.get(name)
        return cls(
            tasks_of(records),
            tuple(metadata.get("stuff_classes") or ()),
            tuple(metadata.get("thing_classes") or ()),
            metadata.get("ignore_label", 255),
        )


def _class_names(names: list[str] | None, count: int, *, is_own: bool) -> tuple[str, ...]:
    if names and (is_own or len(names) == count):
        return tuple(names)
    return tuple(f"class {i}" for i in range(count))


def inspect_record(record: dict, expected: Expected) -> Tally:
    """Read one record's files as training does."""
    tally = Tally(images=1)
    image = _inspect_image(record, tally)
    size = None if image is None else image.shape[:2]
    tasks = set(expected.tasks).intersection(record.get("tasks", expected.tasks))
    if "sem_seg" in tasks:
        _inspect_label(record, image, expected, tally)
    if "instances" in tasks:
        _inspect_boxes(record, size, expected, tally)
    return tally


def _inspect_image(record: dict, tally: Tally) -> np.ndarray | None:
    """The image as training has it, or None where it cannot be read."""
    file = record["file_name"]
    if not PathManager.isfile(file):
        tally.note("missing file", file, f"{file} does not exist")
        return None
    image = None
    with tally.noting("unreadable file", file):
        image = read_image(file)
    if image is None:
        return None
    mode, _, bits, orientation = _header(file)
    if bits == 16:
        message = f"{file} has 16 bits a channel; the upper 8 are used"
        tally.note("16-bit colour image", file, message)
    elif mode in _PALETTE_MODES:
        message = f"{file} has a palette, as a label would; its colours are used"
        tally.note("palette image", file, message)
    if orientation in range(2, 9):
        tally.note(
            *("EXIF rotation", file),
            f"{file} is turned by its EXIF orientation {orientation} when it is read: its labels "
            "and boxes must have been drawn on the turned image. `topformer data view` shows it",
        )
    with tally.noting("sizes differ", file):
        check_image_size(record, image.shape[:2])
    return image


def _header(path: str) -> tuple[str, str | None, int | None, int]:
    """Pillow's mode and format, a PNG's bits a channel (else None), the EXIF orientation or 1."""
    with PathManager.open(path, "rb") as f:
        bits = png_bit_depth(f)
        with Image.open(f) as image:
            mode, format_ = image.mode, image.format
            try:
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            except Exception:  # as Detectron2 does: damaged EXIF data turns nothing
                orientation = 1
    return mode, format_, bits, orientation


def _inspect_label(
    record: dict, image: np.ndarray | None, expected: Expected, tally: Tally
) -> None:
    image_file, file = record["file_name"], record.get("sem_seg_file_name")
    if not file or not PathManager.isfile(file):
        message = f"{file} does not exist" if file else f"{image_file} has no label file"
        tally.note("missing file", file or image_file, message)
        return
    try:
        mode, format_, bits, _ = _header(file)
    except UNREADABLE:
        mode, format_, bits = "L", None, 8  # read_label says why it cannot be read
    if _is_one_file(image_file, file):
        message = (
            f"{file} is an image and its own label: do the folders of the images and of the labels "
            "hold the same files? Keep the labels in a folder of their own, with the images' names"
        )
        tally.note("image is its label", file, message)
        return
    label = None
    with tally.noting(_label_kind(mode, format_, bits), file):
        label = read_label(file)
    if label is None:
        return
    pixels = np.bincount(label.reshape(-1), minlength=256)
    tally.pixels += pixels
    if image is not None:
        with tally.noting("sizes differ", file):
            check_label_size(label, image.shape[:2], file, image_file)
        _compare(image, label, (image_file, file), tally)
    if expected.label_names:
        values, classes = np.flatnonzero(pixels), len(expected.label_names)
        with tally.noting("label out of range", file):
            check_label_range(values, classes, expected.ignore_value, file)


def _is_one_file(file: str, other: str) -> bool:
    return file == other or (
        os.path.exists(file) and os.path.exists(other) and os.path.samefile(file, other)
    )


def _compare(image: np.ndarray, label: np.ndarray, files: tuple[str, str], tally: Tally) -> None:
    """Note an image (H, W, 3) that is its label (H, W) in grey."""
    if image.shape[:2] != label.shape:
        return
    # Of a photograph, a few rows are enough to tell.
    step = max(1, label.shape[0] // 8)
    if not _shows(image[::step], label[::step]) or not _shows(image, label):
        return
    if label.min() == label.max() or image.min() == image.max():
        return  # a black image of background alone, for one
    image_file, file = files
    what = f"the image {image_file} is grey and has one value for each class of its label {file}"
    fix = "is it a copy of the label? The images belong in a folder of their own"
    is_equal = np.array_equal(image[..., 0], label)
    kind = "image is its label" if is_equal else "image shows its label"
    tally.note(kind, image_file, f"{what}: {fix}")


def _shows(image: np.ndarray, label: np.ndarray) -> bool:
    """Whether an image (H, W, 3) is grey and of one value wherever its label has one."""
    grey = image[..., 0]
    if not (np.array_equal(grey, image[..., 1]) and np.array_equal(grey, image[..., 2])):
        return False
    value = np.zeros(256, np.uint8)
    value[label] = grey
    return np.array_equal(value[label], grey)


def _label_kind(mode: str, format_: str | None, bits: int | None) -> str:
    """The kind of finding that a label of this header is where it cannot be read."""
    if format_ in LOSSY_FORMATS:
        return "JPEG label"
    if mode in _PALETTE_MODES:
        return "palette label"
    if mode.startswith("I"):
        return "16-bit label"
    if mode in ("1", "L") and bits in (1, 2, 4):
        return "1 to 4-bit label"
    return "unreadable file" if mode == "L" else "colour label"


def _inspect_boxes(
    record: dict, size: tuple[int, int] | None, expected: Expected, tally: Tally
) -> None:
    actual = size or (math.inf, math.inf)
    # Where they differ, which is a finding of its own, the boxes are for the recorded size.
    height, width = record.get("height", actual[0]), record.get("width", actual[1])
    file = record["file_name"]
    found: dict[str, list] = {}
    for annotation in record.get("annotations", []):
        kind = _box_problem(annotation, height, width, len(expected.object_names))
        if kind:
            found.setdefault(kind, []).append(annotation)
        if kind in (None, "box reaches out") and not annotation.get("iscrowd", 0):
            tally.objects[annotation["category_id"]] += 1
    for kind, bad in found.items():
        first = bad[0]
        box, category = shortened(first.get("bbox")), shortened(first.get("category_id"))
        what = f"{box} of class {category} in {width}x{height}"
        more = f", and {len(bad) - 1} more" if bad[1:] else ""
        tally.note(kind, file, f"{file}: {kind}: {what}{more}")


def _box_problem(annotation: dict, height: float, width: float, num_classes: int) -> str | None:
    """The kind of finding that an annotation is, or None; `num_classes` 0 = not known."""
    try:
        x0, y0, x1, y1 = box = corners(annotation)
        is_finite = all(map(math.isfinite, box))
    except (AssertionError, KeyError, NotImplementedError, OverflowError, TypeError, ValueError):
        return "malformed box"
    if is_finite and max(map(abs, box)) > LARGEST_COORDINATE:
        return "malformed box"
    category = annotation.get("category_id")
    is_integer = isinstance(category, Integral) and not isinstance(category, bool)
    if not is_integer or (num_classes and not 0 <= category < num_classes):
        return "class out of range"
    if not is_finite or x1 <= x0 or y1 <= y0:
        return "box of no area"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return "box outside the image"
    outside = max(-x0, -y0, x1 - width, y1 - height)
    return "box reaches out" if outside > _ROUNDING else None
