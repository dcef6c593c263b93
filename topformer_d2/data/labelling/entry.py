"""An entry of DATASETS.FOLDERS: its keys, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError, did_you_mean, shortened
from ...tasks import BOXES, PIXELS, TASKS

# The target of LABEL_MAP for labels that are not learnt.
IGNORE = "ignore"
_PATHS = ("IMAGES", "LABELS", "BOXES", "LIST")
KEYS = (*_PATHS, "CLASSES", "FORMAT", "LABEL_MAP", "IGNORE", "SHARE", "GROUP", "SPLIT_SEED")
_TAKES = (
    "it takes IMAGES with LABELS (pixels), BOXES (objects) or both, and where they are needed "
    f"{', '.join(KEYS[3:])}; or CLASS_FOLDERS for a classifier"
)


@dataclass(frozen=True)
class Entry:
    """What an entry says.

    Attributes:
        images: folder of the images.
        labels, boxes: file or folder of the pixel labels, and of the objects; "" = none.
        classes: a text file (read_classes), or the names of the classes; empty = as the labels
            have them. They are those of the pixels, and also of the objects unless these have
            labels of their own.
        format: name of the labels' format; "" = as they look.
        label_map: {label as the files have it: the class it becomes, its index, or "ignore"}.
        ignore: labels that are not learnt.
        list_file: a text file of the images that are used, a name a line; "" = all.
        share: of the images, (first, last) from 0 to 1, in a random order by `split_seed`.
        group: a regular expression; images of which it finds the same text stay together.
    """

    images: str
    labels: str = ""
    boxes: str = ""
    classes: str | tuple[str, ...] = ""
    format: str = ""
    label_map: Mapping[str, str | int] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    list_file: str = ""
    share: tuple[float, float] = (0.0, 1.0)
    group: str = ""
    split_seed: int = 0

    @classmethod
    def parse(cls, name: str, entry: Any) -> Entry:
        """
        Args:
            name: of the entry, for messages.
            entry: the mapping of its keys.

        Raises:
            InputError: a key is unknown or missing, or a value is not of its kind.
        """
        where = f"DATASETS.FOLDERS.{name}"
        if not isinstance(entry, Mapping):
            raise InputError(f"{where} is {shortened(entry)}; {_TAKES}")
        for key, value in entry.items():
            if key not in KEYS:
                raise InputError(f"{where}.{key} is unknown{did_you_mean(key, [*KEYS])}; {_TAKES}")
            if key in _PATHS:
                _check_path(f"{where}.{key}", value)
        if "IMAGES" not in entry or not {"LABELS", "BOXES"}.intersection(entry):
            raise InputError(f"{where} has {', '.join(entry) or 'no key'}; {_TAKES}")
        return cls(
            images=entry["IMAGES"],
            labels=entry.get("LABELS", ""),
            boxes=entry.get("BOXES", ""),
            classes=_classes(f"{where}.CLASSES", entry["CLASSES"]) if "CLASSES" in entry else "",
            format=_text(f"{where}.FORMAT", entry.get("FORMAT", "")),
            label_map=_label_map(f"{where}.LABEL_MAP", entry.get("LABEL_MAP", {})),
            ignore=_ignore(f"{where}.IGNORE", entry.get("IGNORE", [])),
            list_file=entry.get("LIST", ""),
            share=_share(f"{where}.SHARE", entry.get("SHARE", [0.0, 1.0])),
            group=_pattern(f"{where}.GROUP", entry.get("GROUP", "")),
            split_seed=_seed(f"{where}.SPLIT_SEED", entry.get("SPLIT_SEED", 0)),
        )

    def path(self, task: str) -> str:
        """The labels of a task; "" = none."""
        return self.labels if task == PIXELS.name else self.boxes

    def lists(self, task: str) -> bool:
        """Whether CLASSES has the classes of a task."""
        own_boxes = self.labels and self.boxes != self.labels
        return bool(self.classes) and not (task == BOXES.name and own_boxes)

    @property
    def tasks(self) -> list[str]:
        """Those that it has labels for."""
        return [task for task in TASKS if self.path(task)]

    @property
    def is_plain(self) -> bool:
        """Whether it has paths alone, so that files may be used as they are."""
        return self == Entry(self.images, self.labels, self.boxes, self.classes)


def label_key(label: object) -> str:
    """A label as LABEL_MAP and IGNORE have it: a colour is three numbers with a space between."""
    text = str(label).strip()
    if isinstance(label, (list, tuple)) or re.fullmatch(r"[\[(]?\d+(\s*,\s*|\s+)\d+.*", text):
        numbers = re.findall(r"\d+", text)
        if len(numbers) == 3:
            return " ".join(str(int(number)) for number in numbers)
    return text


def _check_path(where: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} is {shortened(value)}; it takes a path")
    if value.startswith(("http://", "https://", "ftp://")):
        raise InputError(
            f"{where} is {value}, a web address, whose files cannot be listed: download it and "
            "name the path here"
        )


def _classes(where: str, value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        _check_path(where, value)
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(f"{where} is {shortened(value)}; it takes a text file or a list of names")
    names = tuple(str(_text_of(where, name)).strip() for name in value)
    for name in names:
        if not name or names.count(name) > 1:
            raise InputError(f"{where} has the name {name!r} twice or empty; each class has one")
        if name == IGNORE:
            raise InputError(f"{where} has {name!r}, which LABEL_MAP takes for labels not learnt")
    return names


def _text_of(where: str, label: Any) -> Any:
    """A label, unless YAML has made another value of its text."""
    if isinstance(label, bool) or label is None:
        raise InputError(
            f"{where} has the value {label}, as YAML reads yes, no, on, off and null: write the "
            "name in quotes, such as 'no'"
        )
    return label


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} is {shortened(value)}; it takes text")
    return value


def _label_map(where: str, value: Any) -> dict[str, str | int]:
    if not isinstance(value, Mapping):
        raise InputError(
            f"{where} is {shortened(value)}; it takes label: class, such as {{0: road, 255: "
            "ignore}"
        )
    found: dict[str, str | int] = {}
    for label, target in value.items():
        if not isinstance(target, (str, int)) or isinstance(target, bool) or target == "":
            raise InputError(
                f"{where} makes {label!r} {shortened(target)}; it takes the name of a class, its "
                f"index or {IGNORE}"
            )
        found[label_key(_text_of(where, label))] = target
    return found


def _ignore(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{where} is {shortened(value)}; it takes a list of labels")
    return tuple(label_key(_text_of(where, label)) for label in value)


def _share(where: str, value: Any) -> tuple[float, float]:
    numbers = value if isinstance(value, (list, tuple)) else ()
    if (
        len(numbers) != 2
        or not all(type(number) in (int, float) for number in numbers)
        or not 0 <= numbers[0] < numbers[1] <= 1
    ):
        raise InputError(
            f"{where} is {shortened(value)}; it takes where the images begin and end, such as "
            "[0, 0.8] for training and [0.8, 1] for validation"
        )
    return float(numbers[0]), float(numbers[1])


def _pattern(where: str, value: Any) -> str:
    try:
        re.compile(_text(where, value))
    except re.error as e:
        raise InputError(f"{where} is {value!r}, which is not a regular expression: {e}") from e
    return value


def _seed(where: str, value: Any) -> int:
    if type(value) is not int:
        raise InputError(f"{where} is {shortened(value)}; it takes a whole number")
    return value
