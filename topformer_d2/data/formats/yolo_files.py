"""Where the labels and the names of a YOLO dataset are."""

from __future__ import annotations

import contextlib
import os
from typing import Any, NamedTuple

import yaml

from ...errors import InputError, shortened
from ...files import read_text
from .contract import paths_above
from .shape_files import first_files, is_folder
from .values import class_name

# Texts of a dataset that are no labels of an image.
NOT_LABELS = frozenset(
    f"{name}.txt" for name in ("classes", "labels", "names", "train", "val", "valid", "test")
)
_YAMLS = (".yaml", ".yml")
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_SPLIT_KEYS = ("train", "val", "test", "path", "nc")
_MOST_BYTES = 1 << 20
_LEVELS = 3  # the folder of the labels, and two above


class Layout(NamedTuple):
    """Where a dataset's labels are.

    Attributes:
        folder: of the .txt files.
        names: {number of a class: its name}; None = no file says them.
        key_points: (how many, numbers of each) of a dataset for poses, or None.
    """

    folder: str
    names: dict[int, str] | None
    key_points: tuple[int, int] | None = None


def find_layout(path: str, images: str) -> Layout:
    """The layout of the dataset of a YAML file or of a folder.

    Args:
        path: a data.yaml, the folder that has it, or the folder of the labels.
        images: folder of the images, whose path says which split is meant.

    Raises:
        InputError: there are no labels, or the YAML is wrong.
    """
    file = _yaml_of(path)
    if file is not None:
        return Layout(_folder_of(images, file), *_read_yaml(file))
    split = _below(images)
    inside = os.path.join(path, split) if split else path
    if split and has_labels(inside):
        path = inside
    elif not has_labels(path):
        raise InputError(
            f"{path} has no .txt file of YOLO's labels: name data.yaml, or the folder that has a "
            ".txt for each image"
        )
    return Layout(path, *_find_names(path))


def files_beyond(path: str, images: str) -> list[str]:
    """As DatasetFormat.beyond says: the labels of a data.yaml, and what names the classes."""
    found = paths_above(path, (*_NAME_FILES, "data.yaml"))
    with contextlib.suppress(InputError):
        folder = os.path.abspath(find_layout(path, images).folder)
        if not f"{folder}{os.sep}".startswith(f"{os.path.abspath(path)}{os.sep}"):
            found.append(folder)
    for place in {os.path.dirname(file) for file in found}:
        found += _yamls_in(place)
    return list(dict.fromkeys(found))


def has_labels(folder: str) -> bool:
    """Whether a folder has a .txt that may be the labels of an image."""
    return any(os.path.basename(f) not in NOT_LABELS for f in first_files(folder, ".txt", 9))


def _yaml_of(path: str) -> str | None:
    if not is_folder(path):
        return path
    if not has_labels(path):
        for file in _yamls_in(path):
            return file
    return None


def _yamls_in(folder: str) -> list[str]:
    """The YAMLs of a folder that name classes, data.yaml before others."""
    files = [file for extension in _YAMLS for file in first_files(folder, extension, 5)]
    files.sort(key=lambda file: (os.path.splitext(os.path.basename(file))[0] != "data", file))
    return [file for file in files if is_data_yaml(file)]


def is_data_yaml(path: str) -> bool:
    """Whether it is a YAML of a YOLO dataset, with the names of its classes."""
    if not path.lower().endswith(_YAMLS):
        return False
    try:
        content = _load_yaml(path)
    except InputError:
        return False
    return isinstance(content.get("names"), (list, dict)) and any(k in content for k in _SPLIT_KEYS)


def _load_yaml(path: str) -> dict[str, Any]:
    """The values of a YAML, all as text: YAML takes an unquoted "no" or "007" for another value."""
    text = read_text(path, most=_MOST_BYTES)
    try:
        content = yaml.load(text, yaml.BaseLoader)  # it makes texts, lists and dicts alone
    except RecursionError as e:
        raise InputError(f"{path} is YAML that is nested too deep to be read") from e
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as e:
        raise InputError(f"{path} is not YAML: {e}") from e
    if not isinstance(content, dict):
        raise InputError(f"{path} is no data.yaml: it takes keys such as names, train and val")
    return content


def _read_yaml(path: str) -> tuple[dict[int, str], tuple[int, int] | None]:
    content = _load_yaml(path)
    names = content.get("names")
    pairs: list[tuple[Any, Any]] = []
    if isinstance(names, list):
        pairs = list(enumerate(names))
    elif isinstance(names, dict):
        pairs = list(names.items())
    if not pairs:
        raise InputError(
            f"{path}: 'names' is {shortened(names, 60)}; it takes the classes as a list, or as "
            "number: name"
        )
    found = {}
    for key, name in pairs:
        number = _small_number(key)
        if number is None:
            raise InputError(f"{path}: the key {shortened(key, 60)} of 'names' is no class number")
        found[number] = class_name(name, f"{path}: class {number}")
    return found, _key_points(content.get("kpt_shape"))


def _small_number(text: object) -> int | None:
    is_number = type(text) is int or (isinstance(text, str) and text.isdecimal() and len(text) < 7)
    return int(text) if is_number else None  # type: ignore[call-overload]


def _key_points(value: object) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2:
        count, numbers = (_small_number(each) for each in value)
        if count and numbers in (2, 3):
            return count, numbers
    return None


def _find_names(folder: str) -> tuple[dict[int, str] | None, tuple[int, int] | None]:
    """The names that a YAML or a list says, in the folder or up to two levels above it."""
    folder = os.path.abspath(folder)
    for _ in range(_LEVELS):
        for file in _yamls_in(folder):
            return _read_yaml(file)
        for name in _NAME_FILES:
            if os.path.isfile(file := os.path.join(folder, name)):
                return _read_list(file), None
        folder = os.path.dirname(folder)
    return None, None


def _read_list(path: str) -> dict[int, str]:
    lines = read_text(path, most=_MOST_BYTES).rstrip().splitlines()
    return {i: class_name(line, f"{path}: line {i + 1}") for i, line in enumerate(lines)}


def _below(images: str) -> str:
    """What follows the last folder "images" in a path, as "train"."""
    parts = os.path.abspath(images).split(os.sep) if images else []
    if "images" not in parts:
        return parts[-1] if parts else ""
    last = len(parts) - parts[::-1].index("images")
    return os.path.join(*parts[last:]) if parts[last:] else ""


def _folder_of(images: str, file: str) -> str:
    """The folder of the labels of a folder of images: Ultralytics puts labels for images in it."""
    parts = os.path.abspath(images).split(os.sep)
    candidates = [images]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        candidates.insert(0, os.sep.join([*parts[:last], "labels", *parts[last + 1 :]]))
    for folder in candidates:
        if images and has_labels(folder):
            return folder
    raise InputError(
        f"{file}: no .txt labels in {' or '.join(candidates)}: IMAGES takes a folder such as "
        "images/train, whose labels are in labels/train, or one that has the .txt files as well"
    )
