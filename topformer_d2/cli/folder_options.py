"""Options that name a folder of images and its labels, for verbs that work without a config."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data.folders import register_folder
from ..errors import InputError

_KEYS = {
    "images": "IMAGES",
    "labels": "LABELS",
    "boxes": "BOXES",
    "classes": "CLASSES",
    "format": "FORMAT",
}
_NAME = "folder"


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """--images, --labels, --boxes, --classes and --format."""
    group = parser.add_argument_group("images and labels of any format, without a config")
    group.add_argument("--images", metavar="FOLDER")
    group.add_argument("--labels", metavar="PATH", help="pixel labels: a file or a folder")
    group.add_argument("--boxes", metavar="PATH", help="objects: a file or a folder")
    group.add_argument("--classes", metavar="FILE", help="a text file, a name a line")
    group.add_argument("--format", metavar="NAME", help="of the labels; default: as they look")


def has_folder_options(args: argparse.Namespace) -> bool:
    """Whether one of them is given."""
    return any(getattr(args, name) for name in _KEYS)


@contextlib.contextmanager
def folder_dataset(args: argparse.Namespace) -> Iterator[str]:
    """The name of a dataset of what these options name, registered within the block.

    Raises:
        InputError: they do not make a dataset.
    """
    entry = {key: getattr(args, name) for name, key in _KEYS.items() if getattr(args, name)}
    if "IMAGES" not in entry or not {"LABELS", "BOXES"}.intersection(entry):
        raise InputError("name --images with --labels (pixels), --boxes (objects) or both")
    with tempfile.TemporaryDirectory(prefix="topformer_") as cache:
        try:
            register_folder(_NAME, entry, cache)
            yield _NAME
        except InputError as e:
            raise InputError(_with_options(str(e))) from e
        finally:
            for catalog in (DatasetCatalog, MetadataCatalog):
                if _NAME in catalog.list():
                    catalog.remove(_NAME)


def _with_options(message: str) -> str:
    """A message that names options for the keys of an entry; those without one need a config."""
    for option, key in _KEYS.items():
        message = message.replace(f"DATASETS.FOLDERS.{_NAME}.{key}", f"--{option}")
    return message.replace(f"DATASETS.FOLDERS.{_NAME}: ", "")
