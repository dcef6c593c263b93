"""Datasets of pixel labels: a folder of images and one of label PNGs."""

from __future__ import annotations

import os
from typing import Any

from detectron2.utils.file_io import PathManager

from ..errors import InputError
from ..files import full_path
from ..tasks import PIXELS
from .categories import Categories
from .image_files import has_extension
from .registered import register_dataset


def label_files(label_root: str) -> dict[str, str]:
    """{stem: path} of a folder's label PNGs, sorted; InputError where it is missing or has none."""
    if not PathManager.isdir(label_root):
        raise InputError(f"folder {full_path(label_root)} does not exist")
    labels = _by_stem(label_root, ".png")
    if not labels:
        raise InputError(f"folder {full_path(label_root)} holds no label PNG")
    return labels


def label_fields(label_root: str) -> dict[str, dict[str, str]]:
    """{stem: the fields of a record that name its label} of label_files; raises as that does."""
    return {stem: {PIXELS.record_key: file} for stem, file in label_files(label_root).items()}


def _by_stem(folder: str, *extensions: str) -> dict[str, str]:
    """{stem: path} of a folder's files with these extensions, sorted; none = those of images."""
    found: dict[str, str] = {}
    for name in sorted(PathManager.ls(folder), key=os.path.splitext):
        if has_extension(name, *extensions):
            stem, path = os.path.splitext(name)[0], os.path.join(folder, name)
            if stem in found:
                raise InputError(f"{found[stem]} and {name} share a stem: which one is meant?")
            found[stem] = path
    return found


def load_image_label_pairs(image_root: str, label_root: str) -> list[dict]:
    """Detectron2 records of all label PNGs of a folder with the images of the same stem.

    Unlike Detectron2's load_sem_seg, which pairs two sorted lists of equal length without comparing
    names, this pairs by stem, whatever the image's extension. Images without a label are left out.

    Raises:
        InputError: a folder is missing, holds no labels, or a label has no image.
    """
    if not PathManager.isdir(image_root):
        raise InputError(f"folder {full_path(image_root)} does not exist")
    labels, images = label_files(label_root), _by_stem(image_root)
    without = [stem for stem in labels if stem not in images]
    if without:
        raise InputError(
            f"{len(without)} labels of {label_root} have no image in {image_root}, "
            f"{os.path.basename(labels[without[0]])} among them"
        )
    return [
        {"file_name": images[stem], "sem_seg_file_name": label} for stem, label in labels.items()
    ]


def register_sem_seg(
    name: str, image_root: str, label_root: str, categories: Categories, **metadata: Any
) -> None:
    """Register a folder of images and one of label PNGs (8 bit, training ids) as a dataset.

    Args:
        name: what DATASETS.TRAIN and DATASETS.TEST call it.
        image_root: folder of images.
        label_root: folder of labels with the images' stems.
        categories: its classes.
        metadata: further fields of its Detectron2 metadata.
    """
    register_dataset(
        name,
        lambda: load_image_label_pairs(image_root, label_root),
        [PIXELS.name],
        image_root=image_root,
        sem_seg_root=label_root,
        **categories.stuff_metadata(),
        **metadata,
    )
