"""A mask for each class of an image: masks/CLASS/IMAGE.png, or IMAGE_CLASS.png in one folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from ...tasks import PIXELS
from ..registered import spread_evenly
from .cityscapes import has_frames
from .contract import BACKGROUND, DatasetFormat, LabelledImage, Labelling, Problem
from .raster_files import (
    LABEL_SUFFIXES,
    SAMPLES,
    LabelFolder,
    describe_empty,
    find_labels,
    note_jpegs,
)
from .raster_pixels import look_at, read_mask

_SEPARATORS = "_-"
_GENERIC = tuple(suffix.strip(_SEPARATORS) for suffix in LABEL_SUFFIXES)
# Folders of label images of all classes.
_GENERIC_FOLDERS = (
    *(*_GENERIC, "annotations", "labels", "masks", "images", "train", "val", "valid", "test"),
    *("training", "validation", "gtfine", "gtcoarse", "segmentationclass", "segmentationobject"),
)
# A number, or a word for any mask with one, tells masks of one image apart and not classes.
_NUMBERED = re.compile(rf"(?:(?:{'|'.join(_GENERIC)}|class|)[_-]?)\d+")
_MOST_CLASSES = 255


def _detect(labels: str, images: str) -> bool:
    try:
        found = find_labels(labels, images)
        return not has_frames(found) and has_masks(found)
    except (InputError, OSError):
        return False


def has_masks(found: LabelFolder) -> bool:
    """Whether the files lie and are as masks of one class each, which a few of them tell."""
    masks = _by_folder(found) or _by_suffix(found)
    if not masks or len({name for name, _ in masks.values()}) > _MOST_CLASSES:
        return False
    if 2 * sum(image in found.stems for _, image in masks.values()) < len(masks):
        return False
    looks = look_at([found.path(name) for name in spread_evenly(list(masks), SAMPLES)])
    return bool(looks) and all(each.is_binary for each in looks)


def _by_folder(found: LabelFolder) -> dict[str, tuple[str, str]]:
    """{mask: (class, image)} where each class has a folder; {} where this is not how they lie."""
    masks = {}
    for name in found.masks:
        folder, _, rest = name.partition("/")
        # A folder of a split has its counterpart among the images.
        if not rest or found.image_of(name) in found.stems:
            return {}
        masks[name] = folder, found.image_of(rest)
    are_classes = any(folder.lower() not in _GENERIC_FOLDERS for folder, _ in masks.values())
    has_images = any(image in found.stems for _, image in masks.values())
    return masks if are_classes and has_images else {}


def _by_suffix(found: LabelFolder) -> dict[str, tuple[str, str]]:
    """{mask: (class, image)} where the class ends the name; {} where this is not how they lie."""
    masks = {}
    for name in found.masks:
        stem = os.path.splitext(name)[0]
        if stem in found.stems and not found.has_images:
            return {}
        for place in range(len(stem) - 2, stem.rfind("/") + 1, -1):
            if stem[place] in _SEPARATORS and stem[:place] in found.stems:
                masks[name] = stem[place + 1 :], stem[:place]
                break
        else:
            if not found.has_images:
                return {}
    names = {name.lower() for name, _ in masks.values()}
    return masks if any(n not in _GENERIC and not _NUMBERED.fullmatch(n) for n in names) else {}


def _read(labels: str, images: str) -> Labelling:
    """As DatasetFormat.read says. Classes are sorted by name, after the background."""
    found = find_labels(labels, images)
    if not found.masks:
        raise describe_empty(found)
    masks = _by_folder(found) or _by_suffix(found)
    if not masks:
        raise InputError(
            f"{found.folder} is not of one mask a class: that is a folder for each class, with "
            "files named as the images, or one folder of IMAGE_CLASS.png for each IMAGE in "
            f"{images}. {found.masks[0]} is neither"
        )
    classes = sorted({name for name, _ in masks.values()} - {BACKGROUND})
    if len(classes) > _MOST_CLASSES:
        raise InputError(
            f"{found.folder} has masks of {len(classes)} classes, such as {classes[0]!r}; at most "
            f"{_MOST_CLASSES} are read"
        )
    names = [BACKGROUND, *classes]
    problems: list[Problem] = []
    files: dict[str, dict[str, str]] = {}
    for name, (label, image) in masks.items():
        path = found.path(name)
        if label in files.setdefault(image, {}):
            message = (
                f"{path} and {files[image][label]} are both the mask of {label!r} of the image "
                f"{image}: remove one of them"
            )
            problems.append(Problem("image listed twice", path, message))
        else:
            files[image][label] = path
    problems += note_jpegs(found, {os.path.splitext(name)[0] for name in masks})
    labelled = []
    for image, by_class in sorted(files.items()):
        paths = tuple(by_class[label] for label in sorted(by_class, key=names.index))
        # What decode makes of the paths is certain only if it is the same.
        if _classes_of(paths, names) != sorted(by_class, key=names.index):
            message = (
                f"{paths[0]}: its folder and its name are both of a class; rename the folder or "
                "the file"
            )
            problems.append(Problem("unreadable file", paths[0], message))
        else:
            labelled.append(LabelledImage(image, files=paths, source=paths[0]))
    return Labelling(labelled, names, dict(enumerate(names)), problems=problems)


def _classes_of(files: Sequence[str], names: Sequence[str]) -> list[str]:
    """The class of each mask of an image, by its path: a folder's name, or what ends the stem."""
    by_folder = [_folder_class(file, names) for file in files]
    by_suffix = [_suffix_class(file, names) for file in files]
    in_one_folder = len({os.path.dirname(file) for file in files}) == 1
    firsts, others = (by_suffix, by_folder) if in_one_folder else (by_folder, by_suffix)
    return firsts if all(firsts) else others


def _folder_class(file: str, names: Sequence[str]) -> str:
    parts = os.path.dirname(file).replace("\\", "/").split("/")
    return next((part for part in reversed(parts) if part in names), "")


def _suffix_class(file: str, names: Sequence[str]) -> str:
    stem = os.path.splitext(os.path.basename(file))[0]
    ends = [n for n in names if stem.endswith(tuple(each + n for each in _SEPARATORS))]
    return max(ends, key=len, default="")


def _decode(files: Sequence[str], names: Sequence[str]) -> np.ndarray:
    label: np.ndarray | None = None
    classes = _classes_of(files, names)
    if not all(classes):
        raise InputError(f"{files[0]}: neither its folder nor its name is of a class: {names}")
    index_of = {name: index for index, name in enumerate(names)}
    for file, name in sorted(zip(files, classes, strict=True), key=lambda each: index_of[each[1]]):
        mask = read_mask(file)
        if label is None:
            label = np.zeros(mask.shape, np.uint8)
        elif label.shape != mask.shape:
            (height, width), (h, w) = label.shape, mask.shape
            raise InputError(
                f"{file} has {w}x{h} pixels, and {files[0]}, of the same image, {width}x{height}: "
                "write masks of one image with one size"
            )
        label[mask] = index_of[name]
    assert label is not None
    return label


FORMAT = DatasetFormat(
    name="binary_masks", tasks=(PIXELS.name,), detect=_detect, read=_read, decode=_decode
)
