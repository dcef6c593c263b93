"""What is in an image, as truth or as prediction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..data.boxes import corners
from ..data.images import read_label


@dataclass
class Scene:
    """Pixel labels, boxes or both.

    Attributes:
        label: (H, W) class indices, or None where there are none.
        boxes: (n, 4), x0, y0, x1, y1 in pixels.
        classes: n class indices of the boxes.
        scores: n numbers in 0..1; None for the truth.
        confidence: (H, W) float32, the probability of each pixel's label; None where not wanted.
    """

    label: np.ndarray | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    classes: list[int] = field(default_factory=list)
    scores: list[float] | None = None
    confidence: np.ndarray | None = None

    def enlarged(self, factor: int) -> Scene:
        """The scene of the image whose every pixel is `factor` wide and high."""
        label = self.label
        if label is not None:
            label = label.repeat(factor, axis=0).repeat(factor, axis=1)
        return replace(self, label=label, boxes=self.boxes * factor)

    def above(self, min_score: float) -> Scene:
        """The scene without the boxes whose score is below `min_score`; itself without scores."""
        if self.scores is None:
            return self
        keep = [i for i, score in enumerate(self.scores) if score >= min_score]
        return replace(
            self,
            boxes=self.boxes[keep],
            classes=[self.classes[i] for i in keep],
            scores=[self.scores[i] for i in keep],
        )

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
