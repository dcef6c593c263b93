"""Reading COCO's JSON format: the one reader of training, checks and evaluation."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ..errors import InputError, shortened
from ..files import check_regular_file, full_path, is_remote, read_json
from .source_cache import parse_once

# A coordinate beyond it is not a pixel's; float32, in which boxes are computed, is exact up to it.
LARGEST_COORDINATE = 2**24
# Metadata "json_reader" of datasets whose records are read here, as the evaluation reads them.
JSON_READER = "topformer_d2"
_LARGEST_ID = 2**53  # what JSON readers that have floats alone keep
_LARGEST_CATEGORY = 2**31 - 1  # what faster-coco-eval keeps
_LONGEST_NAME = 200
# Of Unicode: control characters, halves of a character, and ends of a line or paragraph.
_NOT_OF_A_NAME = ("Cc", "Cs", "Zl", "Zp")

_COCO_TYPES: dict[str, dict[str, Any]] = {
    "images": {"id": (int, str), "file_name": (str,), "width": (int,), "height": (int,)},
    "categories": {"id": (int,), "name": (str,)},
    "annotations": {"image_id": (int, str), "category_id": (int,), "bbox": (list,)},
}
_NUMBERS = (int, float)  # compared by type(): bool is an int to isinstance


class CocoBox(NamedTuple):
    """One annotation of a COCO JSON.

    Attributes:
        image_id: of its image.
        category: index of its class, in the order of the categories' ids.
        bbox: [x, y, width, height] in pixels.
        iscrowd: 1 where it is a crowd, else 0.
        area: in square pixels, which says whether it is small: the mask's in COCO, else the box's.
    """

    image_id: int | str
    category: int
    bbox: list[float]
    iscrowd: int
    area: float


def read_coco(json_file: str, *, annotated: bool = True) -> dict[str, list]:
    """The "images", the "categories" sorted by id, and the boxes, for read_boxes, of a COCO JSON.

    Keys that are not used here ("segmentation", "info", ...) are left out, and may be wrong. So may
    boxes, until read_boxes is called: the classes can be used without them.

    Args:
        json_file: its path, local or one of iopath's.
        annotated: False = "annotations" may be missing, as from COCO's test images.

    Raises:
        InputError: the file is missing or is not a COCO JSON, a key that is used is missing or has
            a value of another type or out of range, an id stands there twice, or two categories
            have one name.
    """
    if not PathManager.isfile(json_file) and not os.path.exists(json_file):
        raise InputError(f"{full_path(json_file)} does not exist")
    if not is_remote(json_file):
        check_regular_file(json_file)
    content = parse_once(_parse, json_file)
    if annotated and "annotations" not in content:
        raise _lacks("annotations", json_file)
    return content


def _parse(json_file: str) -> dict[str, list]:
    content = read_json(json_file)
    for part, types in _COCO_TYPES.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if entries is None and part == "annotations":
            continue
        if not isinstance(entries, list):
            raise _lacks(part, json_file)
        if part != "annotations" and not entries:
            raise InputError(f"{json_file}: {part!r} is empty, so there is nothing to read")
        for entry in entries:
            if not isinstance(entry, dict):
                wrong = list(types)
            else:
                wrong = [key for key, kinds in types.items() if type(entry.get(key)) not in kinds]
            if wrong:
                takes = ", ".join(f"{key}: {_named(types[key])}" for key in wrong)
                raise InputError(
                    f"{json_file}: an entry of {part!r} has {wrong} missing or of another type "
                    f"than COCO's ({takes}): {shortened(entry)}"
                )
    for part in ("images", "categories"):
        id_, count = Counter(entry["id"] for entry in content[part]).most_common(1)[0]
        if count > 1:
            raise InputError(f"{json_file}: id {shortened(id_)} stands in {part!r} more than once")
    for image in content["images"]:
        _check_image(image, json_file)
    _check_categories(content["categories"], json_file)
    # The order in which Detectron2 numbers the classes.
    content["categories"].sort(key=lambda category: category["id"])
    parsed: dict[str, list] = {
        part: [{key: entry[key] for key in _COCO_TYPES[part]} for entry in content[part]]
        for part in ("images", "categories")
    }
    if content.get("annotations") is not None:
        parsed["annotations"], parsed["problems"] = _parse_boxes(content["annotations"], parsed)
    return parsed


def _parse_boxes(annotations: list[dict], content: dict) -> tuple[list[tuple], list[str]]:
    """The fields of each annotation's CocoBox, and what is wrong with those that are malformed."""
    to_index = class_metadata(content)["thing_dataset_id_to_contiguous_id"]
    boxes, problems = [], []
    for annotation in annotations:
        try:
            boxes.append(_parse_box(annotation, to_index))
        except InputError as e:
            problems.append(str(e))
    return boxes, problems


def _lacks(part: str, json_file: str) -> InputError:
    return InputError(f"{json_file} is not a COCO JSON of boxes: it has no {part!r}")


def _named(kinds: tuple[type, ...]) -> str:
    names = {int: "an integer", str: "text", list: "a list"}
    return " or ".join(names[kind] for kind in kinds)


def _check_image(image: dict, json_file: str) -> None:
    what = f"{json_file}: image {shortened(image['id'])}"
    if type(image["id"]) is int and abs(image["id"]) > _LARGEST_ID:
        raise InputError(f"{what}: its 'id' is beyond {_LARGEST_ID}")
    for key in ("width", "height"):
        if not 1 <= image[key] <= LARGEST_COORDINATE:
            raise InputError(
                f"{what} has the {key!r} {shortened(image[key])}; it takes the image's pixels, "
                f"1 to {LARGEST_COORDINATE}"
            )
    if not image["file_name"].strip() or "\0" in image["file_name"]:
        raise InputError(
            f"{what} has the 'file_name' {shortened(image['file_name'])}, which names no file"
        )


def check_inside(file_name: str, image_root: str, json_file: str) -> None:
    """Raise InputError where a 'file_name' leads out of the folder of the images."""
    # Most are neither absolute nor have "..", and there may be 100,000.
    if not os.path.isabs(file_name) and ".." not in file_name and not is_remote(file_name):
        return
    root = os.path.abspath(image_root)
    path = os.path.abspath(os.path.join(image_root, file_name))
    if is_remote(file_name) or os.path.commonpath([root, path]) != root:
        raise InputError(
            f"{json_file}: the 'file_name' {shortened(file_name)} of an image leads out of the "
            f"folder of the images, {root}: name a folder that holds all images, and write each "
            "'file_name' relative to it"
        )


def _check_categories(categories: list[dict], json_file: str) -> None:
    ids: dict[str, int] = {}
    for category in categories:
        if not 0 <= category["id"] <= _LARGEST_CATEGORY:
            raise InputError(
                f"{json_file}: the category {shortened(category['name'])} has the 'id' "
                f"{shortened(category['id'])}; it takes 0 to {_LARGEST_CATEGORY}"
            )
        where = f"{json_file}: category {category['id']}"
        name = category["name"].strip()
        check_class_name(name, where)
        if name in ids:
            raise InputError(
                f"{json_file}: the categories {ids[name]} and {category['id']} have one name, "
                f"{name!r}, so the results of one would be lost: rename one, or give the "
                "annotations of both one 'category_id' and leave the other out"
            )
        ids[name] = category["id"]


def check_class_name(name: str, where: str) -> None:
    """Raise InputError where a class's name is empty, very long or has control characters.

    Args:
        name: without spaces around it.
        where: the file and the place in it, for the message.
    """
    if not name:
        raise InputError(f"{where}: the class has no name")
    if len(name) > _LONGEST_NAME:
        raise InputError(
            f"{where}: the class's name has {len(name)} characters, {name[:40]!r}...; it takes "
            f"at most {_LONGEST_NAME}"
        )
    if not name.isprintable():
        bad = [c for c in name if unicodedata.category(c) in _NOT_OF_A_NAME]
        if bad:
            raise InputError(f"{where}: the class's name {name!r} has the character {bad[0]!r}")


def class_metadata(content: dict) -> dict:
    """The fields of Detectron2's metadata that say what the classes of read_coco's content are."""
    categories = content["categories"]
    return {
        "thing_classes": [c["name"] for c in categories],
        "thing_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(categories)},
    }


def read_boxes(content: dict, json_file: str) -> Iterator[CocoBox]:
    """The boxes of read_coco's content, in the order of the JSON.

    Raises:
        InputError: one is malformed; the first five are named.
    """
    if problems := content["problems"]:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"{json_file}: {'; '.join(problems[:5])}{more}")
    return map(CocoBox._make, content["annotations"])


def _parse_box(annotation: dict, to_index: dict) -> tuple:
    bbox, crowd = annotation["bbox"], annotation.get("iscrowd", 0)
    category = annotation["category_id"]
    if (
        len(bbox) == 4
        and all(
            type(v) in _NUMBERS and -LARGEST_COORDINATE <= v <= LARGEST_COORDINATE for v in bbox
        )
        and category in to_index
        and crowd in (0, 1)
        and not annotation.get("ignore")
    ):
        area = annotation.get("area")
        if type(area) not in _NUMBERS or not 0 <= area <= LARGEST_COORDINATE**2:
            area = bbox[2] * bbox[3]
        # A tuple is kept in fewer bytes than a CocoBox.
        return annotation["image_id"], to_index[category], bbox, int(crowd), area
    name, image = str(annotation.get("id", ""))[:60], str(annotation["image_id"])[:60]
    what = f"annotation {name} of image {image}"
    if category not in to_index:
        raise InputError(f"{what} has category {shortened(category)}, which is not listed")
    if annotation.get("ignore"):
        raise InputError(f"{what} has 'ignore', which COCO's evaluation does not: use 'iscrowd'")
    if crowd not in (0, 1):
        raise InputError(f"{what} has iscrowd {shortened(crowd)}; it takes 0 or 1")
    if len(bbox) != 4 or not all(type(value) in _NUMBERS for value in bbox):
        raise InputError(f"{what} has the bbox {shortened(bbox)}; it takes x, y, width, height")
    raise InputError(
        f"{what} has the bbox {shortened(bbox)}, with a number that is not finite or beyond "
        f"{LARGEST_COORDINATE}; it takes x, y, width, height in pixels"
    )


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
