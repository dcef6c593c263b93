"""Folders that hold several splits, such as CamVid's train, trainannot, val and valannot."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from copy import copy
from itertools import product
from typing import Any

import yaml

from ...files import is_remote
from ...tasks import PIXELS
from ..formats import FORMATS
from ..formats.shape_files import first_files
from ..image_files import IMAGE_EXTENSIONS
from .entry import Entry

# What splits are called.
_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
_IMAGES = ("{0}", "{0}/images", "images/{0}", "{0}/image", "{0}_images")
# Those with a name of their own come first: a folder of images may look like one of label images.
_LABELS = (
    *("{0}annot", "{0}_annot", "{0}_annotations", "{0}_labels", "{0}_label", "{0}_masks"),
    *("{0}_mask", "{0}_gt", "{0}/labels", "{0}/masks", "{0}/annotations", "{0}/label", "{0}/mask"),
    *("labels/{0}", "masks/{0}", "annotations/{0}", "{0}"),
)


def describe_splits(name: str, definition: Mapping[str, Any]) -> str:
    """The entries to write where an entry names folders of several splits; "" = it does not.

    Args:
        name: of the entry.
        definition: its keys, as Entry.parse takes them.
    """
    entry = Entry.parse(name, definition)
    found = {}
    for split in _SPLITS:
        keys = _keys_of(split, entry)
        if not keys:
            continue
        if all(os.path.normpath(definition[key]) == os.path.normpath(keys[key]) for key in keys):
            return ""  # it names one split
        # Copies, which YAML writes out each time; LABEL_MAP is a node of a config.
        own = {k: dict(v) if isinstance(v, Mapping) else copy(v) for k, v in definition.items()}
        found[f"{name}_{split}"] = own | keys
    if len(found) < 2:
        return ""
    written = yaml.safe_dump(found, default_flow_style=True, sort_keys=False, width=1 << 20)
    return (
        f"The folders hold several splits. Write an entry for each, in place of {name!r}: "
        f"DATASETS.FOLDERS: {written.strip()}"
    )


def _keys_of(split: str, entry: Entry) -> dict[str, str] | None:
    """IMAGES, LABELS and BOXES of one split, which some format takes; None = there are none."""
    for images in _existing(entry.images, _IMAGES, split):
        if not any(first_files(images, extension, 1) for extension in IMAGE_EXTENSIONS):
            continue
        keys = {"IMAGES": images}
        for task in entry.tasks:
            key = "LABELS" if task == PIXELS.name else "BOXES"
            fitting = (
                labels
                for labels, kind in product(
                    _existing(entry.path(task), _LABELS, split), FORMATS.values()
                )
                if task in kind.tasks and kind.detect(labels, images)
            )
            if labels := next(fitting, None):
                keys[key] = labels
        if len(keys) == 1 + len(entry.tasks):
            return keys
    return None


def _existing(root: str, patterns: tuple[str, ...], split: str) -> Iterator[str]:
    """The folders of a split in `root`, or beside it where it is one of another split."""
    if is_remote(root):
        return
    places = [root]
    if os.path.basename(os.path.normpath(root)) in _SPLITS:
        places.append(os.path.dirname(os.path.normpath(root)))
    for place in places:
        for pattern in patterns:
            folder = os.path.join(place, pattern.format(split))
            if os.path.isdir(folder):
                yield folder
