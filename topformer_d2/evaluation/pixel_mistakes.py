"""What a segmenter gets wrong: gathered in the pass that evaluates it, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.utils import comm

from ..data.suspects import Suspect
from ..inference.sampled_confidence import STRIDE
from .boundary import BoundaryCounts
from .calibration import Reliability
from .confusion import ConfusionEvaluator, confusion_matrix
from .regions import Region, wrong_regions
from .top import Top

# Places for each pair of classes, suspects of an image, and in all, that are kept.
_EXAMPLES, _PER_IMAGE, _SUSPECTS = 2, 2, 100
# Pairs of classes with examples that are kept; those with the fewest pixels go first.
_MOST_PAIRS = 300
# Around a region, of its longer side, that is kept with it.
_MARGIN = 0.5


@dataclass(frozen=True)
class Place:
    """A region that is wrong, with the prediction around it.

    Attributes:
        file_name: of the image.
        region: what is wrong.
        frame: x0, y0, x1, y1 in pixels, around the region and within the image.
        png: the predicted classes within `frame`, as PNG.
    """

    file_name: str
    region: Region
    frame: tuple[int, int, int, int]
    png: bytes = field(repr=False)

    def prediction(self) -> np.ndarray:
        """The predicted classes within `frame`: (h, w) integers."""
        return _from_png(self.png)


@dataclass(frozen=True)
class WorstImage:
    """An image that is segmented badly.

    Attributes:
        file_name: of the image.
        miou: percent, the mean IoU of the classes that its truth has.
        png: the predicted classes, as PNG.
    """

    file_name: str
    miou: float
    png: bytes = field(repr=False)

    def prediction(self) -> np.ndarray:
        """The predicted classes: (H, W) integers."""
        return _from_png(self.png)


class PixelFindings:
    """What PixelMistakes has gathered.

    Attributes:
        boundary: BoundaryCounts.
        reliability: of the pixels' confidence.
        worst: the images with the lowest mIoU.
        suspects: places where the model is most sure of another class than the label's.
        examples: {(truth, prediction): the largest regions of that confusion}.
    """

    def __init__(self, num_classes: int, num_worst: int):
        self.boundary = BoundaryCounts(num_classes)
        self.reliability = Reliability()
        self.worst: Top[WorstImage] = Top(num_worst)
        self.suspects: Top[Place] = Top(_SUSPECTS)
        self.examples: dict[tuple[int, int], Top[Place]] = {}

    def merge(self, other: PixelFindings) -> None:
        """Add another process's."""
        self.boundary.merge(other.boundary)
        self.reliability.merge(other.reliability)
        self.worst.merge(other.worst)
        self.suspects.merge(other.suspects)
        for pair, places in other.examples.items():
            self.examples.setdefault(pair, Top(_EXAMPLES)).merge(places)

    def add_regions(self, file_name: str, prediction: np.ndarray, regions: list[Region]) -> None:
        """Keep those regions of an image that are among the largest or the surest."""
        regions = sorted(regions, key=lambda region: -(region.confidence or 0.0))
        for rank, region in enumerate(regions):
            pair, sure = (region.truth, region.predicted), region.confidence
            places = self.examples.setdefault(pair, Top(_EXAMPLES))
            is_sure = sure is not None and rank < _PER_IMAGE and self.suspects.wants(sure)
            if not (is_sure or places.wants(region.pixels)):
                continue
            frame = _frame(region.box, prediction.shape)
            x0, y0, x1, y1 = frame
            place = Place(file_name, region, frame, _to_png(prediction[y0:y1, x0:x1]))
            places.add(region.pixels, place)
            if sure is not None and is_sure:
                self.suspects.add(sure, place)
        while len(self.examples) > _MOST_PAIRS:
            largest = {p: top.items()[0].region.pixels for p, top in self.examples.items()}
            del self.examples[min(largest, key=largest.__getitem__)]


class PixelMistakes(ConfusionEvaluator):
    """ConfusionEvaluator, and what the model gets wrong, in `findings`.

    Its results are ConfusionEvaluator's. What it keeps beside them does not grow with the dataset:
    some images' label maps and parts of others, as PNG.
    """

    needs = "confidence"

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        distributed: bool = True,
        num_worst: int = 8,
        confidence: bool = True,
    ):
        """
        Args:
            dataset_name: as ConfusionEvaluator's.
            output_dir: as ConfusionEvaluator's.
            distributed: as ConfusionEvaluator's.
            num_worst: images with the lowest mIoU that are kept.
            confidence: False where the model gives label maps alone; then `findings` have no
                reliability and no suspects.
        """
        self.num_worst = num_worst
        self.has_confidence = confidence
        if not confidence:
            self.needs = "label_map"
        super().__init__(dataset_name, output_dir=output_dir, distributed=distributed)

    def reset(self) -> None:
        super().reset()
        self.num_images = 0
        self.findings = PixelFindings(len(self.class_names), self.num_worst)

    def process(self, inputs: list[dict], outputs: list) -> None:
        """As ConfusionEvaluator's; outputs with a label map have "sem_seg_confidence", too."""
        for record, output, prediction, truth in self.pairs(inputs, outputs):
            sure = _confidence(output) if self.has_confidence else None
            self.add(record["file_name"], prediction, truth, sure)

    def add(
        self,
        file_name: str,
        prediction: np.ndarray,
        truth: np.ndarray,
        confidence: np.ndarray | None,
    ) -> None:
        """Add one image.

        Args:
            file_name: of the image.
            prediction: (H, W) integers, below the number of classes.
            truth: (H, W) integers, below the number of classes, or the ignored label.
            confidence: floats in 0..1, of the prediction at every fourth row and column (see
                inference.sampled_confidence); None = there is none.
        """
        matrix = confusion_matrix(prediction, truth, len(self.class_names), self.ignore_label)
        self.matrix += matrix
        self.num_images += 1
        ignored = truth == self.ignore_label
        found = self.findings
        found.boundary.add(prediction, np.where(ignored, len(self.class_names), truth))
        if confidence is not None:
            right, seen = ((prediction == truth)[::STRIDE, ::STRIDE], ~ignored[::STRIDE, ::STRIDE])
            found.reliability.add(confidence[seen], right[seen])
        miou = image_miou(matrix)
        if found.worst.wants(-miou):
            found.worst.add(-miou, WorstImage(file_name, miou, _to_png(prediction)))
        regions = wrong_regions(prediction, truth, confidence, matrix)
        found.add_regions(file_name, prediction, list(regions))

    def evaluate(self) -> OrderedDict | None:
        """As ConfusionEvaluator's; `findings` are then of all processes on the main one."""
        if self._distributed and comm.get_world_size() > 1:
            others = comm.gather((self.num_images, self.findings))[1:]
            for count, findings in others:
                self.num_images += count
                self.findings.merge(findings)
        return super().evaluate()

    def suspects(self) -> list[Suspect]:
        """The places whose labels are most likely wrong, the surest first."""
        return list(self._suspects())

    def _suspects(self) -> Iterator[Suspect]:
        for place in self.findings.suspects.items():
            region = place.region
            assert region.confidence is not None  # as of all that add_regions keeps there
            yield Suspect(
                file_name=place.file_name,
                kind="region",
                box=region.box,
                labelled=self.class_names[region.truth],
                predicted=self.class_names[region.predicted],
                confidence=region.confidence,
            )


def image_miou(matrix: np.ndarray) -> float:
    """The mean IoU in percent of the classes that an image's truth has; infinite where it has none.

    Args:
        matrix: (K, K), the image's confusion matrix.
    """
    truth = matrix.sum(axis=1)
    has = truth > 0
    if not has.any():
        return float("inf")
    hits = matrix.diagonal()
    union = truth + matrix.sum(axis=0) - hits
    return float(100 * (hits[has] / union[has]).mean())


def _confidence(output: Any) -> np.ndarray:
    """Of an output at every fourth row and column: as the model gives it, or by its logits."""
    found = output.get("sem_seg_confidence") if isinstance(output, dict) else None
    if found is None:
        logits = output["sem_seg"] if isinstance(output, dict) else output
        found = torch.softmax(logits[:, ::STRIDE, ::STRIDE].float(), dim=0).amax(dim=0)
    return np.asarray(found if isinstance(found, np.ndarray) else found.cpu())


def _frame(box: tuple[int, int, int, int], size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box with a margin, within an image (height, width)."""
    x0, y0, x1, y1 = box
    margin = max(16, int(_MARGIN * max(x1 - x0, y1 - y0)))
    return (
        max(0, x0 - margin),
        max(0, y0 - margin),
        min(size[1], x1 + margin),
        min(size[0], y1 + margin),
    )


def _to_png(label: np.ndarray) -> bytes:
    kind = np.uint8 if label.max(initial=0) < 256 else np.uint16
    return cv2.imencode(".png", label.astype(kind), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _from_png(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
