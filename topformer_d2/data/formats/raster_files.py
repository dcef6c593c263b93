"""Finding label images: which files of a folder they are, and which images they belong to."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from typing import NamedTuple

from ...errors import InputError
from ...files import is_remote
from ..image_files import IMAGE_EXTENSIONS
from ..output_folders import is_output
from ..registered import spread_evenly
from .contract import LabelledImage, Problem

# Of files that keep the values of the pixels.
MASK_EXTENSIONS = (".png", ".tif", ".tiff", ".bmp", ".gif")
_JPEG_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif")
_IMAGE_EXTENSIONS = frozenset(IMAGE_EXTENSIONS)
# What the stem of a label may have beyond the stem of its image, in any case: Roboflow's _mask,
# CamVid's _L, ISIC's _segmentation, ISPRS' _label.
LABEL_SUFFIXES = (
    *("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_annotation", "_l"),
    *("-mask", "-label", "-gt", "-seg"),
)
# What the stem of an image may have where the label has another ending: DeepGlobe's 1_sat.jpg with
# 1_mask.png, ISPRS' area_RGB.tif with area_label.tif.
_IMAGE_SUFFIXES = ("_sat", "_image", "_img", "_rgb", "_leftImg8bit", "_RGB")
# Of the label images, those that a detection opens.
SAMPLES = 8
# Of the folders of a VOC dataset, those that hold classes; labelme's script made the first.
_VOC_FOLDERS = ("SegmentationClassPNG", "SegmentationClass")


class LabelFolder(NamedTuple):
    """The files of a folder of label images.

    Attributes:
        folder: that they are in.
        masks: paths in `folder` with "/", sorted, of files that can be label images.
        jpegs: the same of JPEGs, by their names; empty where the folder has the images as well.
        stems: paths without extensions of the images in their folder.
        has_images: the images are in the same folder.
    """

    folder: str
    masks: tuple[str, ...]
    jpegs: tuple[str, ...]
    stems: frozenset[str]
    has_images: bool

    def path(self, name: str) -> str:
        """Of a file of `masks` or `jpegs`."""
        return os.path.join(self.folder, name)

    def image_of(self, name: str) -> str:
        """The image that a file is the label of, as in `stems`; its own stem where there is none.

        Args:
            name: of `masks`.
        """
        stem = os.path.splitext(name)[0]
        if stem in self.stems and not self.has_images:
            return stem
        lower = stem.lower()
        for suffix in LABEL_SUFFIXES:
            if lower.endswith(suffix):
                base = stem[: -len(suffix)]
                for each in (base, *(base + ending for ending in _IMAGE_SUFFIXES)):
                    if each in self.stems:
                        return each
        return stem

    def samples(self) -> list[str]:
        """Some of own_masks, by which formats are told."""
        return spread_evenly(self.own_masks(), SAMPLES)

    def own_masks(self) -> tuple[str, ...]:
        """Those of `masks` that are labels; where images are in the folder, by their suffixes."""
        if not self.has_images:
            return self.masks
        return tuple(
            name for name in self.masks if self.image_of(name) != os.path.splitext(name)[0]
        )


def find_labels(labels: str, images: str) -> LabelFolder:
    """The files of a folder of labels; of a VOC dataset, of its SegmentationClass.

    Args:
        labels: the folder, with subfolders.
        images: the folder of the images, which need not be there.

    Raises:
        InputError: `labels` is not a folder that can be listed.
    """
    if is_remote(labels):
        raise InputError(f"{labels}: folders elsewhere are not listed; copy it to this machine")
    if not os.path.isdir(labels):
        raise InputError(f"{labels} is not a folder; label images are in one")
    for name in _VOC_FOLDERS:
        if os.path.isdir(inner := os.path.join(labels, name)):
            labels = inner
            break
    exists = not is_remote(images) and os.path.isdir(images)
    try:
        has_images = exists and os.path.samefile(labels, images)
        names = list_files(labels, without=() if has_images or not exists else (images,))
        pictures = names
        if not has_images:
            pictures = list_files(images, without=(labels,)) if exists else []
    except OSError as e:
        raise InputError(f"{e.filename} cannot be listed: {e.strerror}") from e
    stems = frozenset(
        name[: name.rfind(".")] for name in pictures if _extension(name) in _IMAGE_EXTENSIONS
    )
    masks = tuple(name for name in names if _extension(name) in MASK_EXTENSIONS)
    jpegs = () if has_images else tuple(n for n in names if _extension(n) in _JPEG_EXTENSIONS)
    return LabelFolder(labels, masks, jpegs, stems, has_images)


def _extension(name: str) -> str:
    return name[name.rfind(".") :].lower()


def list_files(folder: str, without: Iterable[str] = ()) -> list[str]:
    """Paths in `folder`, with "/", of its files and its subfolders', sorted.

    Hidden ones are left out, and folders that runs have written.

    Args:
        folder: that exists.
        without: folders within it that are left out.

    Raises:
        OSError: a folder cannot be listed.
    """
    seen = {_identity(each) for each in without}
    found = []
    waiting = [(folder, "")]
    while waiting:
        place, prefix = waiting.pop()
        identity = _identity(place)
        if identity in seen:  # left out, or a link to a folder above
            continue
        seen.add(identity)
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                if _is_folder(entry):
                    if is_output(entry.path):
                        continue
                    waiting.append((entry.path, f"{prefix}{entry.name}/"))
                else:
                    found.append(prefix + entry.name)
    return sorted(found)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, which is told when it is read
        return False


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def note_jpegs(found: LabelFolder, labelled: Container[str]) -> list[Problem]:
    """A problem for each label that is a JPEG by its name.

    JPEGs of a subfolder without label images are taken for images, and are none.

    Args:
        labelled: the images that have another label.
    """
    folders = {name.rpartition("/")[0] for name in found.masks}
    return [
        Problem(
            "JPEG label",
            found.path(name),
            f"{found.path(name)} is a JPEG, which changes pixels near the borders to other "
            "classes. Write the label anew, as a PNG, from where it was drawn",
        )
        for name in found.jpegs
        if name.rpartition("/")[0] in folders and found.image_of(name) not in labelled
    ]


def describe_empty(found: LabelFolder) -> InputError:
    """What to raise where a folder has no label image."""
    if found.jpegs:
        return InputError(
            f"all {len(found.jpegs)} labels of {found.folder} are JPEGs, which change pixels near "
            "the borders to other classes: write them anew, as PNGs, from where they were drawn"
        )
    if found.has_images:
        return InputError(
            f"{found.folder} holds the images, and no label image: there, its name is the image's "
            f"with one of {', '.join(LABEL_SUFFIXES)} and one of {', '.join(MASK_EXTENSIONS)}"
        )
    return InputError(f"{found.folder} holds no label image ({', '.join(MASK_EXTENSIONS)})")


def label_masks(found: LabelFolder) -> tuple[list[LabelledImage], list[Problem]]:
    """The images of a folder that has one label image for each, and what is wrong.

    Raises:
        InputError: there is none.
    """
    names = found.own_masks()
    if not names:
        raise describe_empty(found)
    problems: list[Problem] = []
    files: dict[str, str] = {}
    for name in names:
        path, image = found.path(name), found.image_of(name)
        if image in files:
            message = (
                f"{path} and {files[image]} are both labels of the image {image}: remove one of "
                "them"
            )
            problems.append(Problem("image listed twice", path, message))
        else:
            files[image] = path
    problems += note_jpegs(found, files)
    return [
        LabelledImage(image, files=(path,), source=path) for image, path in sorted(files.items())
    ], problems
