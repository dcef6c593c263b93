"""What a caller must know of a model, beside its network, to run it and to read its answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.data import MetadataCatalog

from ..config import complete_config, model_tasks
from ..data.augmentation import FitForTest
from ..data.styles import class_styles
from ..data.tasks import has_task
from ..errors import InputError


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
        """The classes of the first of these registered datasets that has some for `task`."""
        dataset = next((name for name in names if has_task(name, task)), "")
        metadata = MetadataCatalog.get(dataset) if dataset else {}
        kind = "stuff" if task == "sem_seg" else "thing"
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
class ModelInfo:
    """From a config, or from the metadata of an exported file.

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
    def from_config(cls, cfg, dataset_name: str | None = None) -> ModelInfo:
        """Of a config's model, its classes named by `dataset_name`, then by DATASETS.TEST."""
        cfg = complete_config(cfg)
        tasks = model_tasks(cfg)
        datasets = ([dataset_name] if dataset_name else []) + list(cfg.DATASETS.TEST)
        counts = {
            "sem_seg": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "instances": cfg.MODEL.RETINANET.NUM_CLASSES,
        }
        pixels, objects = (
            ClassTable.from_datasets(datasets, task, count) if task in tasks else ClassTable()
            for task, count in counts.items()
        )
        return cls(
            tasks=tuple(tasks),
            pixels=pixels,
            objects=objects,
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
            values = json.loads(text)
            for name in ("pixels", "objects"):
                values[name] = ClassTable(**_as_tuples(values[name]))
            return cls(**_as_tuples(values))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise InputError(f"this is not the description of a model: {e}") from e


def as_tuple(value):
    """JSON's lists, and lists of lists, as tuples."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def _as_tuples(values: dict) -> dict:
    return {key: as_tuple(value) for key, value in values.items()}
