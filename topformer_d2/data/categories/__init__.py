"""Class names, ids and colours of the datasets, one JSON file each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

# Of CamVid's classes, those that come as objects.
CAMVID_OBJECTS = ("Car", "Pedestrian", "Bicyclist")


@dataclass(frozen=True)
class Categories:
    """The classes of a dataset, in the order of their training ids.

    Attributes:
        names: one for each class.
        colors: (R, G, B), 0..255, for each class.
        source_ids: value of each class in the official label files, or its id in a COCO JSON.
        ignore_label: training id of pixels without a class.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    source_ids: tuple[int, ...]
    ignore_label: int = 255

    def lookup_table(self) -> np.ndarray:
        """Official id to training id; every other id is ignored.

        (256,) uint8, or (65536,) where an official id is above 255.
        """
        size = 256 if max(self.source_ids) < 256 else 65536
        table = np.full(size, self.ignore_label, dtype=np.uint8)
        table[list(self.source_ids)] = np.arange(len(self.names))
        return table

    def stuff_metadata(self) -> dict:
        """The fields of Detectron2's metadata that say what a pixel label is."""
        return {
            "ignore_label": self.ignore_label,
            "stuff_classes": list(self.names),
            "stuff_colors": [list(color) for color in self.colors],
            "stuff_dataset_id_to_contiguous_id": {s: i for i, s in enumerate(self.source_ids)},
        }

    def thing_metadata(self) -> dict:
        """The fields of Detectron2's metadata that say what an object is."""
        return {
            "thing_classes": list(self.names),
            "thing_colors": [list(color) for color in self.colors],
            "thing_dataset_id_to_contiguous_id": {s: i for i, s in enumerate(self.source_ids)},
        }


def load_categories(name: str) -> Categories:
    """The categories in `<name>.json` of this folder."""
    data = json.loads(files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    classes = sorted(data["classes"], key=lambda c: c["train_id"])
    assert [c["train_id"] for c in classes] == list(range(len(classes))), name
    return Categories(
        names=tuple(c["name"] for c in classes),
        colors=tuple(tuple(c["color"]) for c in classes),
        source_ids=tuple(c["source_id"] for c in classes),
        ignore_label=data["ignore_label"],
    )
