"""Images in a folder for each class, as torchvision's ImageFolder has them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import InputError, did_you_mean, shortened, summarize
from ..tasks import IMAGES
from .class_list import listed_classes
from .image_files import has_extension
from .registered import register_dataset

KEY = "CLASS_FOLDERS"
_KEYS = (KEY, "CLASSES")


@dataclass(frozen=True)
class ClassFolders:
    """An entry of DATASETS.FOLDERS that a classifier is trained on.

    Attributes:
        root: folder with a folder of images for each class.
        classes: a text file (read_classes) or the names of the folders; empty = all that there are,
            sorted by name. A class without a folder has no images.
    """

    root: str
    classes: str | tuple[str, ...] = ()

    @staticmethod
    def is_named(entry: Any) -> bool:
        """Whether an entry is of this kind."""
        return isinstance(entry, Mapping) and KEY in entry

    @classmethod
    def parse(cls, name: str, entry: Mapping[str, Any]) -> ClassFolders:
        """
        Args:
            name: of the entry, for messages.
            entry: the mapping of its keys.

        Raises:
            InputError: a key is unknown, or a value is not of its kind.
        """
        where = f"DATASETS.FOLDERS.{name}"
        for key in entry:
            if key not in _KEYS:
                raise InputError(
                    f"{where}.{key} is unknown{did_you_mean(key, [*_KEYS])}; with {KEY} an entry "
                    "takes CLASSES alone"
                )
        root, classes = entry[KEY], entry.get("CLASSES", ())
        if not isinstance(root, str) or not root:
            raise InputError(f"{where}.{KEY} is {shortened(root)}; it takes a path")
        if isinstance(classes, str) and classes:
            return cls(root, classes)
        if (
            not isinstance(classes, Sequence)
            or isinstance(classes, str)
            or ("CLASSES" in entry and not classes)
            or not all(isinstance(each, str) and each for each in classes)
            or len(set(classes)) < len(classes)
        ):
            raise InputError(
                f"{where}.CLASSES is {shortened(classes)}; it takes a text file, or a list of the "
                "folders' names in which each stands once (in quotes where it is a number)"
            )
        return cls(root, tuple(classes))

    def class_names(self) -> list[str]:
        """Of all classes in the order of their indices.

        Raises:
            InputError: the folder has no folders, or one that CLASSES does not name.
        """
        with os.scandir(self.root) as entries:
            folders = sorted(
                entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."
            )
        if not folders:
            raise InputError(
                f"{self.root} has no folder in it: a classifier's images are in a folder for each "
                f"class, such as {os.path.join(self.root, 'cat', '1.jpg')}"
            )
        if not self.classes:
            return folders
        classes = list(listed_classes(self.classes).names)
        if unknown := sorted(set(folders) - {*classes}):
            raise InputError(
                f"{self.root} has folders that CLASSES does not name: "
                f"{summarize(unknown, 'folders')}"
            )
        return classes

    def records(self) -> list[dict]:
        """One record an image, "file_name" and "class_id", ordered by class and by name.

        Raises:
            InputError: as class_names; or a folder has no image.
        """
        found: list[dict] = []
        for index, name in enumerate(self.class_names()):
            folder = os.path.join(self.root, name)
            if not os.path.isdir(folder):
                continue  # one that CLASSES names
            files = _images_below(folder)
            if not files:
                raise InputError(f"{folder} has no image: add some, or remove the folder")
            found += [{"file_name": file, IMAGES.record_key: index} for file in files]
        return found


def register_class_folders(name: str, entry: Mapping[str, Any]) -> None:
    """Register an entry with CLASS_FOLDERS; its images are listed when they are needed.

    Raises:
        InputError: as ClassFolders.parse and class_names; a folder that is missing is none here.
    """
    parsed = ClassFolders.parse(name, entry)
    metadata: dict[str, Any] = {"folders": dict(entry), "image_root": parsed.root}
    if os.path.isdir(parsed.root):
        metadata[IMAGES.classes_field] = parsed.class_names()
    load = partial(ClassFolders.records, parsed)
    register_dataset(name, load, [IMAGES.name], **metadata)


def _images_below(folder: str) -> list[str]:
    """Paths of the image files below a class's folder, sorted; hidden folders are left out.

    Raises:
        InputError: a link leads to a folder that is read already, such as one above it.
    """
    found, seen = [], {os.path.realpath(os.path.dirname(folder))}
    for below, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]  # such as .ipynb_checkpoints
        real = os.path.realpath(below)
        if real in seen:
            raise InputError(f"{below} is a link to {real}, which is read already: remove the link")
        seen.add(real)
        found += [os.path.join(below, file) for file in files if has_extension(file)]
    return sorted(found)
