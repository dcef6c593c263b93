"""Names and colours of classes: a dataset's own, or generated ones."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import Metadata, MetadataCatalog

from ..tasks import TASKS
from .labelled import has_task, registered_tasks


@dataclass(frozen=True)
class ClassTable:
    """Classes in the order of their indices.

    Attributes:
        names: K names.
        colors: K times (red, green, blue), 0..255.
        ids: what the dataset calls them in COCO's results format; None where it has no such table.
        dataset: that they come from; "" where their names are made up.
    """

    names: tuple[str, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    ids: tuple[int, ...] | None = None
    dataset: str = ""

    @classmethod
    def from_datasets(cls, names: Sequence[str], task: str, num_classes: int) -> ClassTable:
        """The classes of the first of these registered datasets that has as many for `task`.

        Where none has, the first of them that is for this task at all; its classes are numbered.
        """
        kind = TASKS[task].classes_field.removesuffix("_classes")
        having = [name for name in names if has_task(name, task)]
        fitting = [
            name
            for name in having
            if len(MetadataCatalog.get(name).get(f"{kind}_classes") or ()) == num_classes
        ]
        dataset = next(iter(fitting + having), "")
        metadata = MetadataCatalog.get(dataset) if dataset else {}
        class_names, colors = class_styles(metadata, kind, num_classes)
        to_index = metadata.get("thing_dataset_id_to_contiguous_id") if kind == "thing" else None
        ids = {index: source for source, index in to_index.items()} if to_index else {}
        return cls(
            tuple(class_names),
            tuple(tuple(color) for color in colors.tolist()),
            tuple(ids[i] for i in range(num_classes))
            if set(range(num_classes)) <= set(ids)
            else None,
            dataset,
        )


@dataclass(frozen=True)
class DatasetClasses:
    """What is drawn of a dataset, whatever the model.

    Attributes:
        tasks: "sem_seg", "instances" or both.
        pixels, objects: the classes of the two tasks; empty for one that it has no labels for.
    """

    tasks: tuple[str, ...]
    pixels: ClassTable
    objects: ClassTable

    @classmethod
    def of_dataset(cls, name: str) -> DatasetClasses:
        """Of a registered dataset whose metadata have its classes."""
        tables = {task.table: ClassTable() for task in TASKS.values()}
        tasks = registered_tasks(name)
        for task in map(TASKS.get, tasks):
            count = len(MetadataCatalog.get(name).get(task.classes_field) or ())
            tables[task.table] = ClassTable.from_datasets([name], task.name, count)
        return cls(tasks, **tables)


def class_styles(metadata: Metadata, kind: str, num_classes: int) -> tuple[list[str], np.ndarray]:
    """Names and colours of the classes from a dataset's metadata; generated where it has none.

    Args:
        metadata: of a dataset, or an empty dict.
        kind: "stuff" (classes of pixels) or "thing" (classes of boxes).
        num_classes: of the model; a dataset with another number has no names for it.

    Returns:
        num_classes names, and (num_classes, 3) uint8 RGB.
    """
    names = list(metadata.get(f"{kind}_classes") or [])
    colors = list(metadata.get(f"{kind}_colors") or [])
    if len(names) != num_classes:
        names = [f"class {i}" for i in range(num_classes)]
    if len(colors) != num_classes:
        # Hues by the golden ratio, so that neighbours in number differ in colour.
        colors = [
            [
                round(255 * c)
                for c in colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.65, 0.6 + 0.35 * (i % 2))
            ]
            for i in range(num_classes)
        ]
    return names, np.array(colors, np.uint8)
