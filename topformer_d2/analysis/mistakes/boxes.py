"""What a detector gets wrong on a dataset, as plain values and small pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...data.images import read_image
from ...data.scene import Scene
from ...data.suspects import KINDS, Suspect
from ...evaluation import BoxMistakes
from ...evaluation.box_mistakes import (
    BoxImage,
    ImageBoxes,
    best_threshold,
    box_confusion,
    reliability_of,
    suspected_boxes,
    worst_images,
)
from ...evaluation.tide import CLASS, ERRORS, IGNORED, RIGHT, Detections
from ...visualization import Painter
from ...visualization.mistakes import box_errors, crop, shrunk
from .pictures import ROW_NAMES, THUMBNAIL, Row, picture

PAIRS, EXAMPLES, SUSPECTS = 12, 2, 24
# Around a box, of its longer side, that is shown with it.
_MARGIN = 0.5


def describe_boxes(
    evaluator: BoxMistakes, metrics: Mapping[str, float], painter: Painter, num_worst: int
) -> tuple[dict, list[Row]]:
    """The part of a report about the boxes.

    Args:
        evaluator: after evaluate(); its `matched` is set.
        metrics: its results, in percent.
        painter: in whose colours pictures are drawn.
        num_worst: images that are shown.

    Returns:
        plain values, with pictures as JPEG in base64; and the worst images' pictures, the worst
        first.
    """
    matched, names = evaluator.matched, evaluator.class_names
    assert matched is not None
    threshold = best_threshold(matched)
    confusion = box_confusion(matched, threshold)
    reliability, ap50 = reliability_of(matched), matched.ap50()
    artist = _Artist(evaluator, painter, threshold)
    values: dict[str, Any] = {
        "metrics": {
            **{k: metrics[k] for k in ("AP", "AP50", "AP75", "APs", "APm", "APl") if k in metrics},
            "ECE": 100 * reliability.ece(),
        },
        "threshold": threshold,
        "classes": _classes(matched, names, metrics, ap50, threshold),
        "confusion": confusion.tolist(),
        "calibration": reliability.to_dict(),
        "errors": _errors(matched),
    }
    rows = [artist.worst(each) for each in worst_images(evaluator, threshold, num_worst)]
    values["worst"] = [row.to_dict() for row in rows]
    values["pairs"] = artist.pairs(confusion)
    values["suspects"] = [artist.suspect(s) for s in suspected_boxes(evaluator)[:SUSPECTS]]
    return values, rows


def _classes(
    matched: Detections,
    names: list[str],
    metrics: Mapping[str, float],
    ap50: np.ndarray,
    threshold: float,
) -> list[dict]:
    counted = (matched.scores >= threshold) & (matched.kinds != IGNORED)
    rows = []
    for i, name in enumerate(names):
        objects = int(((matched.truth_classes == i) & ~matched.crowd).sum())
        mine = counted & (matched.classes == i)
        hits = int((mine & (matched.kinds == RIGHT)).sum())
        rows.append(
            {
                "class": name,
                "objects": objects,
                # Where there is one class alone, the evaluation gives no AP of it.
                "AP": metrics.get(f"AP-{name}", metrics["AP"] if len(names) == 1 else None),
                "AP50": float(ap50[i]),
                "precision": 100 * hits / int(mine.sum()) if mine.any() else None,
                "recall": 100 * hits / objects if objects else None,
            }
        )
    return rows


def _errors(matched: Detections) -> list[dict]:
    """Of each kind of error its number, its share, and the AP50 that fixing it would give."""
    counts, now = matched.errors(), _mean(matched.ap50())
    total = max(1, sum(counts.values()))
    found = []
    for kind, name in ERRORS.items():
        fixed = _mean(matched.ap50(kind))
        gain = None if now is None or fixed is None else max(0.0, fixed - now)
        found.append(
            {
                "kind": name,
                "count": counts[kind],
                "share": 100 * counts[kind] / total,
                "AP50 if fixed": None if gain is None or now is None else now + gain,
                "gain": gain,
            }
        )
    return found


def _mean(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


class _Artist:
    """Draws the images of a dataset with their boxes."""

    def __init__(self, evaluator: BoxMistakes, painter: Painter, threshold: float):
        self.names = evaluator.class_names
        self.matched: Detections = evaluator.matched
        self.images = evaluator.images
        self.painter = painter
        self.threshold = threshold
        self._by_file = {image.file_name: image for image in evaluator.images}

    def worst(self, worst: BoxImage) -> Row:
        """Image, truth, detections and errors, as thumbnails."""
        image = worst.image
        original = read_image(image.file_name, "RGB")
        small = shrunk(original, THUMBNAIL)
        factor = small.shape[1] / original.shape[1]
        truth, found = self._scenes(image, factor)
        kinds = self.matched.kinds[image.found]
        shown = (self.matched.scores[image.found] >= self.threshold) & (kinds != IGNORED)
        seen = np.zeros(len(image.truth_boxes), bool)
        hits = shown & (kinds == RIGHT)
        seen[self.matched.objects[image.found][hits] - image.truth.start] = True
        missed = image.truth_boxes[~seen & ~self.matched.crowd[image.truth]]
        right = kinds[shown] == RIGHT
        errors = box_errors(small, image.boxes[shown] * factor, right, missed * factor)
        drawn = [self.painter.draw(small, scene) for scene in (truth, found)]
        caption = f"{worst.missed} missed, {worst.false} wrong"
        names = dict(zip(ROW_NAMES, (small, *drawn, errors), strict=True))
        return Row(image.file_name, caption, names)

    def pairs(self, confusion: np.ndarray) -> list[dict]:
        """The pairs of classes that are confused most, with examples of the highest scores."""
        matched = self.matched
        wrong = confusion[:-1, :-1].copy()
        objects = confusion[:-1].sum(axis=1)
        np.fill_diagonal(wrong, 0)
        found = []
        for cell in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]:
            i, j = map(int, np.unravel_index(cell, wrong.shape))
            if not wrong[i, j]:
                break
            is_pair = (matched.kinds == CLASS) & (matched.classes == j)
            is_pair[is_pair] = matched.truth_classes[matched.objects[is_pair]] == i
            places = np.flatnonzero(is_pair)
            places = places[np.argsort(-matched.scores[places], kind="stable")][:EXAMPLES]
            found.append(
                {
                    "labelled": self.names[i],
                    "predicted": self.names[j],
                    "count": int(wrong[i, j]),
                    "share": 100 * int(wrong[i, j]) / int(objects[i]),
                    "examples": [self._example(place) for place in places],
                }
            )
        return found

    def suspect(self, suspect: Suspect) -> dict:
        """A suspect's values with a picture of its place."""
        image = self._by_file[suspect.file_name]
        return {
            "file": suspect.file_name,
            "box": list(suspect.box),
            "labelled": suspect.labelled,
            "predicted": suspect.predicted,
            "confidence": suspect.confidence,
            "what": KINDS[suspect.kind],
            "picture": self._picture(
                image,
                np.array(suspect.box),
                self.names.index(suspect.predicted),
                suspect.confidence,
            ),
        }

    def _example(self, place: int) -> dict:
        image = next(i for i in self.images if i.found.start <= place < i.found.stop)
        box = image.boxes[place - image.found.start]
        category, score = int(self.matched.classes[place]), float(self.matched.scores[place])
        return {"file": image.file_name, "picture": self._picture(image, box, category, score)}

    def _picture(self, image: ImageBoxes, box: np.ndarray, category: int, score: float) -> str:
        """The place of a detection, with the labels there, and with the detection."""
        pixels = read_image(image.file_name, "RGB")
        height, width = pixels.shape[:2]
        margin = max(16, int(_MARGIN * (box[2:] - box[:2]).max()))
        low = np.clip(np.floor(box[:2]) - margin, 0, [width - 1, height - 1]).astype(int)
        high = np.minimum(np.ceil(box[2:]) + margin, [width, height]).astype(int)
        high = np.maximum(high, low + 1)
        frame = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        found = Scene(boxes=box[None], classes=np.array([category]), scores=np.array([score]))
        scenes = [_within(scene, frame) for scene in (self._scenes(image, 1)[0], found)]
        return picture(crop(self.painter, pixels, frame, box.tolist(), scenes))

    def _scenes(self, image: ImageBoxes, factor: float) -> tuple[Scene, Scene]:
        """The truth without crowds, and the detections from the threshold on."""
        matched = self.matched
        single = ~matched.crowd[image.truth]
        truth = Scene(
            boxes=image.truth_boxes[single] * factor,
            classes=matched.truth_classes[image.truth][single],
        )
        found = Scene(
            boxes=image.boxes * factor,
            classes=matched.classes[image.found],
            scores=matched.scores[image.found],
        )
        return truth, found.above(self.threshold)


def _within(scene: Scene, frame: tuple[int, int, int, int]) -> Scene:
    """The boxes of a scene that reach into a part of its image, in the part's pixels."""
    x0, y0, x1, y1 = frame
    boxes = scene.boxes.clip([x0, y0] * 2, [x1, y1] * 2) - np.array([x0, y0] * 2, np.float32)
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 2).all(axis=1)
    scores = None if scene.scores is None else scene.scores[kept]
    return Scene(boxes=boxes[kept], classes=scene.classes[kept], scores=scores)
