"""What the files of an entry of DATASETS.FOLDERS say, and the classes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InputError
from ...tasks import BOXES, PIXELS
from ..categories import Categories
from ..class_list import listed_classes
from ..formats import DatasetFormat, detect_format, files_beyond
from ..formats.contract import Labelling
from ..source_cache import parse_once
from .classes import ClassMap, box_classes, pixel_classes
from .entry import Entry
from .unknown import suggest_classes


@dataclass(frozen=True)
class LabelSource:
    """Images with labels of any format, as an entry of DATASETS.FOLDERS names them.

    Attributes:
        name: of the dataset.
        entry: of it.
        cache: folder of what is kept.
        ignore_value: the training id of pixels that are not learnt.
        with_outlines: objects have their outlines, where the labels have shapes.
    """

    name: str
    entry: Entry
    cache: str
    ignore_value: int = 255
    with_outlines: bool = False

    @property
    def where(self) -> str:
        """The entry's key, for messages."""
        return f"DATASETS.FOLDERS.{self.name}"

    def format(self, task: str) -> DatasetFormat:
        """Of the labels of a task; InputError where they are of none."""
        path = self.entry.path(task)
        key = f"{self.where}.{'LABELS' if task == PIXELS.name else 'BOXES'}"
        return detect_format(path, self.entry.images, task, self.entry.format, key)

    def labelling(self, task: str) -> Labelling:
        """What the files say."""
        sources = self.entry.path(task), self.entry.images
        return parse_once(self.format(task).read, *sources, beyond=files_beyond(*sources))

    @property
    def has_values(self) -> bool:
        """Whether numbers of LABEL_MAP are values of pixels, or their colours."""
        return PIXELS.name in self.entry.tasks and self.format(PIXELS.name).decode is not None

    def classes(self, task: str) -> ClassMap:
        """Of a task."""
        labelling, listed = self.labelling(task), self.listed(task)
        if self.has_values:
            labelling.ids = {}
        if task == BOXES.name:
            return box_classes(labelling, self.entry, listed, where=self.where)
        decode = self.format(task).decode
        is_raster = decode is not None
        if decode and listed is None and not labelling.values and not self.entry.label_map:
            raise InputError(
                f"{self.where}: the labels in {self.entry.labels} have no names of classes. "
                + suggest_classes(labelling, self.format(task), self.where)
            )
        return pixel_classes(labelling, self.entry, listed, is_raster=is_raster, where=self.where)

    def class_ids(self, task: str) -> tuple[int, ...]:
        """The number of each class in files that number images, too; else empty.

        Empty as well where a class is of several numbers.
        """
        labelling, classes = self.labelling(task), self.classes(task)
        if not any(image.id is not None for image in labelling.images):
            return ()
        found: dict[int, list[str]] = {}
        for number, name in labelling.ids.items():
            index = classes.find(name)
            found.setdefault(-1 if index is None else index, []).append(number)
        numbers = [found.get(index, []) for index in range(len(classes.names))]
        if any(len(each) != 1 or not each[0].isdecimal() for each in numbers):
            return ()
        return tuple(int(number) for (number,) in numbers)

    def listed(self, task: str) -> Categories | None:
        """CLASSES; None = not given for a task."""
        return (
            listed_classes(self.entry.classes, self.ignore_value)
            if self.entry.lists(task)
            else None
        )
