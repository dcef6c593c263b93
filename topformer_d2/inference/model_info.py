"""ModelInfo: the tasks, classes, colours, normalisation and image sizes of a model.

It is made from a config, or read from an exported file, which needs no config to be run.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from detectron2.config import CfgNode

from ..config import check_dense, complete_config, model_tasks
from ..data.augmentation import FitForTest
from ..data.class_table import ClassTable
from ..errors import InputError
from ..files import parse_json
from ..tasks import TASKS
from .fields import Fields, distinct, integer, number, one_of, optional, text, tuple_of


@dataclass(frozen=True)
class ModelInfo:
    """What must be known of a model to prepare its input and to read its output.

    Attributes:
        tasks: "sem_seg", "instances" or both.
        pixels, objects: the classes of the two tasks; empty for one that the model does not do.
        image_format: "BGR" or "RGB", the order of the network's input.
        pixel_mean, pixel_std: of the normalisation, in that order, of values in 0..255.
        short_side, long_side: an image is resized to fit within them; short_side 0 = it is not.
        size_divisor: then each side is stretched up to a multiple of it.
    """

    tasks: tuple[str, ...]
    pixels: ClassTable
    objects: ClassTable
    image_format: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    short_side: int
    long_side: int
    size_divisor: int

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str | None = None) -> ModelInfo:
        """Of a config's model.

        Its classes are named by `dataset_name`, then by DATASETS.TEST and TRAIN; where
        those are empty, by DATASETS.FOLDERS.
        """
        cfg = complete_config(cfg)
        tasks = model_tasks(cfg)
        check_dense(cfg)
        named = [dataset_name] if dataset_name else []
        sets = cfg.DATASETS
        datasets = [*named, *sets.TEST, *sets.TRAIN] or list(sets.get("FOLDERS", ()))
        tables = {task.table: ClassTable() for task in TASKS.values()}
        for task in map(TASKS.get, tasks):
            count = cfg.MODEL[task.config_node].NUM_CLASSES
            tables[task.table] = ClassTable.from_datasets(datasets, task.name, count)
        return cls(
            tasks=tuple(tasks),
            **tables,
            image_format=cfg.INPUT.FORMAT,
            pixel_mean=tuple(cfg.MODEL.PIXEL_MEAN),
            pixel_std=tuple(cfg.MODEL.PIXEL_STD),
            short_side=cfg.INPUT.MIN_SIZE_TEST,
            long_side=cfg.INPUT.MAX_SIZE_TEST,
            size_divisor=cfg.INPUT.TEST_SIZE_DIVISOR,
        )

    def resizing(self) -> FitForTest:
        """The protocol's resizing of a test image."""
        return FitForTest(self.short_side, self.long_side, self.size_divisor)

    def to_json(self) -> str:
        """For the metadata of an exported file."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """What to_json wrote.

        Raises:
            InputError: it is something else.
        """
        try:
            return cls.from_fields(Fields(parse_json(text, "the text")))
        except ValueError as e:
            raise InputError(f"this is not the description of a model: {e}") from e

    @classmethod
    def from_fields(cls, values: Fields) -> ModelInfo:
        """Of an object of JSON that anybody may have written; ValueError where it is another."""
        color, source = tuple_of(integer(0, 255), 3), integer(-_MOST, _MOST)
        tables = {}
        for key in (task.table for task in TASKS.values()):
            table = values.object(key)
            names = table.take("names", tuple_of(text))
            tables[key] = ClassTable(
                names=names,
                colors=table.take("colors", tuple_of(color, len(names), one_for="names")),
                ids=table.take("ids", optional(tuple_of(source, len(names), one_for="names"))),
                dataset=table.take("dataset", text),
            )
            table.end()
        tasks = tuple_of(one_of(*TASKS), most=len(TASKS))
        info = cls(
            tasks=values.take("tasks", lambda value: distinct(tasks(value))),
            **tables,
            image_format=values.take("image_format", one_of("BGR", "RGB")),
            pixel_mean=values.take("pixel_mean", tuple_of(number(-_MOST, _MOST), 3)),
            pixel_std=values.take("pixel_std", tuple_of(number(1e-6, _MOST), 3)),
            short_side=values.take("short_side", integer(0, MOST_SIDE)),
            long_side=values.take("long_side", integer(1, _MOST)),
            size_divisor=values.take("size_divisor", integer(1, MOST_SIDE)),
        )
        values.end()
        if not info.tasks:
            raise ValueError(f"{values.name('tasks')} is empty")
        for name, task in TASKS.items():
            key = task.table
            if (name in info.tasks) != bool(tables[key].names):
                raise ValueError(
                    f"{values.name(key)} has {len(tables[key].names)} names, and "
                    f"{values.name('tasks')} is {list(info.tasks)}"
                )
        return info


# Of a side in pixels that is not taken for nonsense, and of any other integer.
MOST_SIDE = 1 << 15
_MOST = 1 << 31
