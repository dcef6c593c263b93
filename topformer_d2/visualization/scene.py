"""What is in an image, as truth or as prediction, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from detectron2.utils.visualizer import Visualizer

from ..config import model_tasks
from ..data.boxes import corners
from ..data.files import read_label
from ..data.styles import class_styles
from ..data.tasks import has_task
from .overlay import add_legend, blend_labels


@dataclass
class Scene:
    """Pixel labels, boxes or both.

    Attributes:
        label: (H, W) class indices, or None where there are none.
        boxes: (n, 4), x0, y0, x1, y1 in pixels.
        classes: n class indices of the boxes.
        scores: n numbers in 0..1; None for the truth.
    """

    label: np.ndarray | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    classes: list[int] = field(default_factory=list)
    scores: list[float] | None = None

    def enlarged(self, factor: int) -> Scene:
        """The scene of the image whose every pixel is `factor` wide and high."""
        label = self.label
        if label is not None:
            label = label.repeat(factor, axis=0).repeat(factor, axis=1)
        return replace(self, label=label, boxes=self.boxes * factor)

    @classmethod
    def from_record(cls, record: dict, tasks: tuple[str, ...]) -> Scene:
        """The truth of a dataset's record for `tasks` (as from model_tasks); crowds left out.

        A record whose "tasks" lacks one of them has no labels for it.
        """
        scene, tasks = cls(), set(tasks).intersection(record.get("tasks", tasks))
        if "sem_seg" in tasks:
            scene.label = read_label(record["sem_seg_file_name"])
        if "instances" in tasks:
            objects = [a for a in record.get("annotations", []) if not a.get("iscrowd", 0)]
            scene.boxes = np.array([corners(a) for a in objects]).reshape(-1, 4)
            scene.classes = [a["category_id"] for a in objects]
        return scene

    @classmethod
    def from_sample(cls, sample: dict) -> Scene:
        """The truth that a training sample of TaskMapper carries."""
        scene = cls()
        if "sem_seg" in sample:
            scene.label = sample["sem_seg"].numpy()
        if "instances" in sample:
            scene.boxes = sample["instances"].gt_boxes.tensor.numpy()
            scene.classes = sample["instances"].gt_classes.tolist()
        return scene

    @classmethod
    def from_output(cls, output: dict) -> Scene:
        """A model's output for an image: "sem_seg" logits (K, H, W), "instances", or both."""
        scene = cls()
        if "sem_seg" in output:
            logits = output["sem_seg"]
            label = logits.argmax(dim=0).cpu().numpy()
            scene.label = label.astype(np.uint8 if len(logits) <= 256 else np.uint16)
        if "instances" in output:
            found = output["instances"].to("cpu")
            scene.boxes = found.pred_boxes.tensor.numpy()
            scene.classes = found.pred_classes.tolist()
            scene.scores = found.scores.tolist()
        return scene


class Painter:
    """Draws scenes in the names and colours of datasets, made up where they have none.

    Attributes:
        stuff, things: metadata of the first dataset that has classes of pixels, and of objects;
            empty where none has.
    """

    @configurable
    def __init__(
        self,
        dataset_names: Sequence[str],
        *,
        tasks: tuple[str, ...],
        num_labels: int,
        num_objects: int,
    ):
        """
        Args:
            dataset_names: registered datasets. Of several with one task each, the first that has
                the classes of a task names them.
            tasks: of the model, "sem_seg", "instances" or both.
            num_labels, num_objects: classes of its pixels and of its boxes.
        """
        self.dataset_names = dataset_names
        self.tasks = tasks
        self.stuff = _first_with("sem_seg", dataset_names)
        self.things = _first_with("instances", dataset_names)
        self._stuff = class_styles(self.stuff, "stuff", num_labels)
        self._things = class_styles(self.things, "thing", num_objects)

    @classmethod
    def from_config(cls, cfg, dataset_name: str | None = None):
        """Of a config's model; in the colours of `dataset_name`, then of DATASETS.TEST."""
        first = (dataset_name,) if dataset_name else ()
        return {
            "dataset_names": (*first, *cfg.DATASETS.TEST),
            "tasks": model_tasks(cfg),
            "num_labels": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "num_objects": cfg.MODEL.RETINANET.NUM_CLASSES,
        }

    def draw(self, image: np.ndarray, scene: Scene, opacity: float = 0.55) -> np.ndarray:
        """Tint `image` (H, W, 3) uint8 RGB by the labels, and draw named boxes over it."""
        if scene.label is not None:
            image = blend_labels(image, scene.label, self._stuff[1], opacity)
        return draw_boxes(image, scene, *self._things)

    def add_legend(self, picture: np.ndarray, *scenes: Scene) -> np.ndarray:
        """Name the labels of `scenes` beside `picture`; boxes bear their names."""
        labels = [scene.label.reshape(-1) for scene in scenes if scene.label is not None]
        return add_legend(picture, np.concatenate(labels), *self._stuff) if labels else picture


def _first_with(task: str, dataset_names: Sequence[str]):
    """The metadata of the first of these datasets that has labels for a task, or an empty dict."""
    found = (name for name in dataset_names if has_task(name, task))
    return next(map(MetadataCatalog.get, found), {})


def draw_boxes(image: np.ndarray, scene: Scene, names: list[str], colors: np.ndarray) -> np.ndarray:
    """Draw the scene's boxes, each with its class's name and, where it has one, its score.

    By Detectron2's Visualizer, whose own draw_instance_predictions takes no colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        scene: its boxes, classes and scores are drawn.
        names, colors: of the classes, as from class_styles.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if len(scene.boxes) == 0:
        return image
    # Visualizer sets a pair of dollars as mathematics.
    labels = [names[c].replace("$", r"\$") for c in scene.classes]
    if scene.scores is not None:
        labels = [f"{n} {score:.0%}" for n, score in zip(labels, scene.scores, strict=True)]
    drawing = Visualizer(image).overlay_instances(
        boxes=scene.boxes,
        labels=labels,
        assigned_colors=[colors[c] / 255 for c in scene.classes],
        alpha=1.0,
    )
    return np.ascontiguousarray(drawing.get_image())
