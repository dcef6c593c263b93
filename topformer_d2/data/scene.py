"""What is in an image, as truth or as prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from ..errors import InputError, import_optional, shortened
from ..tasks import BOXES, PIXELS
from .boxes import corners
from .images import read_label

if TYPE_CHECKING:
    import supervision

    from .class_table import ClassTable


class HasClasses(Protocol):
    """What a Scene must know of the model that predicted it.

    Attributes:
        pixels, objects: the classes of the pixels and of the boxes.
    """

    @property
    def pixels(self) -> ClassTable: ...

    @property
    def objects(self) -> ClassTable: ...


@dataclass(eq=False)
class Scene:
    """Pixel labels, boxes or both.

    Lists are taken as well and kept as these arrays.

    Attributes:
        label: (H, W) class indices, or None where there are none.
        boxes: (n, 4) float32; x0, y0, x1, y1 in pixels.
        classes: (n,) int64, class indices of the boxes.
        scores: (n,) float32 in 0..1; None for the truth.
        confidence: (H, W) float32, the probability of each pixel's label; None where not wanted.
        size: (height, width) of the image in pixels; None = unknown.
        info: of the model that predicted it, with the classes' names; None for the truth.
        tracks: (n,) int64; the number of the object that a box shows, the same through a video,
            from 1 on; 0 = none. None where nothing is tracked.
    """

    label: np.ndarray | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    scores: np.ndarray | None = None
    confidence: np.ndarray | None = None
    size: tuple[int, int] | None = None
    info: HasClasses | None = field(default=None, repr=False)
    tracks: np.ndarray | None = None

    def __post_init__(self) -> None:
        boxes = _numbers(self.boxes, np.float32, "boxes")
        if boxes.size and boxes.shape[-1] != 4:
            raise InputError(f"a scene's boxes have shape {boxes.shape}; it takes (n, 4)")
        self.boxes = boxes.reshape(-1, 4)
        if self.label is not None:
            self.label = np.asarray(self.label)
            if self.label.ndim != 2:
                raise InputError(f"a scene's label has shape {self.label.shape}; it takes (H, W)")
            kind = self.label.dtype.kind
            if kind not in "iubf" or (kind == "f" and not (self.label == self.label // 1).all()):
                raise InputError(
                    f"a scene's label is of {self.label.dtype}; it takes integers, the classes"
                )
        self.classes = _numbers(self.classes, np.int64, "classes").reshape(-1)
        if self.scores is not None:
            self.scores = _numbers(self.scores, np.float32, "scores").reshape(-1)
        if self.tracks is not None:
            self.tracks = _numbers(self.tracks, np.int64, "tracks").reshape(-1)
        if self.size is not None and np.shape(self.size) != (2,):
            raise InputError(f"a scene's size is {self.size!r}; it takes (height, width)")
        if self.size is None and self.label is not None:
            self.size = tuple(self.label.shape)
        for name in ("classes", "scores", "tracks"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.boxes):
                raise InputError(f"a scene of {len(self.boxes)} boxes has {len(values)} {name}")

    def enlarged(self, factor: int) -> Scene:
        """The scene of the image whose every pixel is `factor` wide and high.

        Raises:
            InputError: the factor is not an integer of 1 or more.
        """
        if not isinstance(factor, Real) or factor % 1 or not 1 <= factor < math.inf:
            raise InputError(f"factor is {factor}; it takes an integer of 1 or more")
        factor = int(factor)
        label, confidence = (
            None if pixels is None else pixels.repeat(factor, axis=0).repeat(factor, axis=1)
            for pixels in (self.label, self.confidence)
        )
        size = None if self.size is None else (self.size[0] * factor, self.size[1] * factor)
        return replace(
            self, label=label, confidence=confidence, boxes=self.boxes * factor, size=size
        )

    def above(self, min_score: float) -> Scene:
        """The scene without the boxes whose score is below `min_score`; itself without scores.

        Boxes of an object that is tracked are kept.

        Raises:
            InputError: `min_score` is no number.
        """
        if not isinstance(min_score, Real):
            raise InputError(f"min_score is {min_score!r}; it takes a number from 0 to 1")
        if self.scores is None:
            return self
        keep = self.scores >= min_score
        if self.tracks is not None:
            keep |= self.tracks > 0
        return replace(
            self,
            boxes=self.boxes[keep],
            classes=self.classes[keep],
            scores=self.scores[keep],
            tracks=None if self.tracks is None else self.tracks[keep],
        )

    def to_instances(self) -> Instances:
        """The boxes as Detectron2's models give them, on the CPU.

        Returns:
            pred_boxes, scores and pred_classes; for the truth gt_boxes and gt_classes.

        Raises:
            InputError: the size of the image is unknown.
        """
        if self.size is None:
            raise InputError("this scene's image size is unknown: set its size to (height, width)")
        kind = "gt" if self.scores is None else "pred"
        instances = Instances(tuple(self.size))
        instances.set(f"{kind}_boxes", Boxes(torch.from_numpy(self.boxes.copy())))
        instances.set(f"{kind}_classes", torch.from_numpy(self.classes.copy()))
        if self.scores is not None:
            instances.scores = torch.from_numpy(self.scores.copy())
        return instances

    def to_supervision(self) -> supervision.Detections:
        """The boxes as a Detections of the library supervision.

        Its data["class_name"] has their classes' names, where the model that found them is known.

        Raises:
            InputError: the library is not installed.
        """
        library = import_optional("supervision", "Scene.to_supervision", "supervision")
        data = {} if self.info is None else {"class_name": np.array(self._names(), dtype=str)}
        return library.Detections(
            xyxy=self.boxes.copy(),
            confidence=None if self.scores is None else self.scores.copy(),
            class_id=self.classes.copy(),
            tracker_id=None if self.tracks is None else self.tracks.copy(),
            data=data,
        )

    def to_dict(self) -> dict:
        """As plain Python values, for JSON.

        Returns:
            "size": [height, width] or None;
            "boxes": a list of {"box": [x0, y0, x1, y1] in pixels, "class": its index, "score": 0..1
            or None for the truth, "name": of the class where the model is known, "track": of an
            object that is tracked}; None stands for a number that is not finite;
            "label": None, or a list with an entry for each class that has pixels: {"class", the
            index; "pixels", their number; "name" where the model is known; "rle", where they are}.
            That is {"size", "counts"} as COCO compresses it, and pycocotools.mask.decode(rle) gives
            (height, width) uint8, 1 at the class's pixels.
            The confidence is left out.
        """
        scores = [None] * len(self.boxes) if self.scores is None else self.scores.tolist()
        classes = self.classes.tolist()
        boxes = [
            {"box": [*map(_finite, box)], "class": category, "score": _finite(score)}
            for box, category, score in zip(self.boxes.tolist(), classes, scores, strict=True)
        ]
        if self.info is not None:
            for entry, name in zip(boxes, self._names(), strict=True):
                entry["name"] = name
        for entry, track in zip(boxes, [] if self.tracks is None else self.tracks, strict=False):
            if track > 0:
                entry["track"] = int(track)
        size = None if self.size is None else [int(side) for side in self.size]
        return {"size": size, "boxes": boxes, "label": self._runs()}

    def _names(self) -> list[str]:
        return [_name(self.info.objects.names, i) for i in self.classes]

    def _runs(self) -> list[dict] | None:
        """The label map's classes and where they are, as to_dict has them."""
        if self.label is None:
            return None
        from pycocotools import mask

        found = []
        for category, pixels in zip(*np.unique(self.label, return_counts=True), strict=True):
            runs = mask.encode(np.asfortranarray(self.label == category, dtype=np.uint8))
            entry: dict[str, Any] = {"class": int(category), "pixels": int(pixels)}
            if self.info is not None:
                entry["name"] = _name(self.info.pixels.names, category)
            sides = [int(side) for side in runs["size"]]
            found.append({**entry, "rle": {"size": sides, "counts": runs["counts"].decode()}})
        return found

    @classmethod
    def from_record(cls, record: dict, tasks: tuple[str, ...]) -> Scene:
        """The truth of a dataset's record for `tasks` (as from model_tasks); crowds left out.

        A record whose "tasks" lacks one of them has no labels for it.

        Raises:
            InputError: it has no label file where pixels are wanted, or that cannot be read.
        """
        wanted = set(tasks).intersection(record.get("tasks", tasks))
        objects, label = [], None
        if PIXELS.name in wanted:
            if "sem_seg_file_name" not in record:
                raise InputError(f"{record['file_name']} has no label: no sem_seg_file_name")
            label = read_label(record["sem_seg_file_name"])
        if BOXES.name in wanted:
            objects = [a for a in record.get("annotations", []) if not a.get("iscrowd", 0)]
        size = (record["height"], record["width"]) if {"height", "width"} <= {*record} else None
        found: dict[str, Any] = {
            "boxes": [corners(a) for a in objects],
            "classes": [a["category_id"] for a in objects],
        }
        return cls(label=label, size=size, **found)

    @classmethod
    def from_sample(cls, sample: dict) -> Scene:
        """The truth that a training sample of TaskMapper carries."""
        fields: dict[str, Any] = {"size": tuple(sample["image"].shape[-2:])}
        if "sem_seg" in sample:
            fields["label"] = sample["sem_seg"].numpy()
        if "instances" in sample:
            fields["boxes"] = sample["instances"].gt_boxes.tensor.numpy()
            fields["classes"] = sample["instances"].gt_classes.numpy()
        return cls(**fields)


def _numbers(values: Any, kind: type, name: str) -> np.ndarray:
    """A field of a scene as an array."""
    try:
        return np.asarray(values, kind)
    except (OverflowError, TypeError, ValueError) as e:
        raise InputError(f"a scene's {name} are {shortened(values)}: {e}") from e


def _finite(value: float | None) -> float | None:
    """The number, or None where JSON has none for it."""
    return value if value is not None and math.isfinite(value) else None


def _name(names: Sequence[str], index: int) -> str:
    """Of a class; its index where the model does not have it, such as 255 of an ignored pixel."""
    return names[index] if 0 <= index < len(names) else str(index)
