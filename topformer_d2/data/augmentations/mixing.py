"""Mosaic and copy-paste: samples of several images, each resized, warped, cropped and flipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import cv2
import numpy as np

from ..object_outlines import Outline, fill_outline
from .visible import cut_boxes, pixel_window, shown_box

# Regions of one class that count as objects where there are no boxes: in pixels, and as a share of
# the image, so that the sky or a road is none.
_LEAST_PIXELS, _LARGEST_SHARE = 64, 0.25


@dataclass(eq=False)
class Picture:
    """An augmented image and its truth.

    Attributes:
        image: (H, W, 3) uint8.
        sem_seg: (H, W) uint8, or None where there are no pixel labels.
        boxes: (n, 4) float32 XYXY in pixels, inside the image; None where there are no boxes.
        classes: (n,) int64, of the boxes.
        outlines: of the objects in the boxes, where copy-paste needs them; None = none is known.
    """

    image: np.ndarray
    sem_seg: np.ndarray | None = None
    boxes: np.ndarray | None = None
    classes: np.ndarray | None = None
    outlines: list[Outline] | None = None

    def keep_boxes(
        self, boxes: np.ndarray, classes: np.ndarray, outlines: list[Outline] | None = None
    ) -> None:
        """Set boxes, classes and outlines to those of an area."""
        kept = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        self.boxes, self.classes = boxes[kept].astype(np.float32), classes[kept]
        self.outlines = None if outlines is None else list(compress(outlines, kept))


class Mixing:
    """Mosaic and copy-paste, each with its probability.

    Both take whole samples, as the augmentations before leave them, so that labels and boxes are
    cut and pasted with their pixels.
    """

    def __init__(
        self,
        *,
        mosaic_prob: float = 0.0,
        copy_paste_prob: float = 0.0,
        fill: Sequence[int] = (0, 0, 0),
        ignore_value: int = 255,
        min_visible: float = 0.0,
        object_labels: Sequence[int] = (),
    ):
        """
        Args:
            mosaic_prob, copy_paste_prob: probabilities.
            fill, ignore_value: values of a pixel that no image covers.
            min_visible: a box is dropped where less than this share of its object is left.
            object_labels: of each class of the boxes the pixel label that such objects have, -1
                where there is none; classes beyond its end have none.
        """
        self.mosaic_prob = mosaic_prob
        self.copy_paste_prob = copy_paste_prob
        self.fill = tuple(fill)
        self.ignore_value = ignore_value
        self.min_visible = min_visible
        self.object_labels = tuple(object_labels)

    def __call__(self, picture: Picture, draw_other: Callable[[], Picture]) -> Picture:
        """The picture itself, or one that is made of it and others with truth of the same kinds."""
        if self.mosaic_prob and np.random.uniform() < self.mosaic_prob:
            picture = self.mosaic([picture, *(draw_other() for _ in range(3))])
        if self.copy_paste_prob and np.random.uniform() < self.copy_paste_prob:
            picture = self.copy_paste(picture, draw_other())
        return picture

    def mosaic(self, pictures: Sequence[Picture]) -> Picture:
        """Four pictures around a random point in one of the first one's size (YOLOv4, 2020).

        Each gives a random part of the size of its quarter, or all of itself where it is smaller.
        """
        h, w = pictures[0].image.shape[:2]
        middle_x, middle_y = (int(side * np.random.uniform(0.25, 0.75)) for side in (w, h))
        made = Picture(np.empty((h, w, 3), np.uint8))
        made.image[:] = self.fill
        if pictures[0].sem_seg is not None:
            made.sem_seg = np.full((h, w), self.ignore_value, np.uint8)
        boxes, classes = [], []
        outlines: list[Outline] = []
        for i, picture in enumerate(pictures):
            place_x, x, part_w = _quarter(middle_x, w, i % 2, picture.image.shape[1])
            place_y, y, part_h = _quarter(middle_y, h, i // 2, picture.image.shape[0])
            target = slice(place_y, place_y + part_h), slice(place_x, place_x + part_w)
            source = slice(y, y + part_h), slice(x, x + part_w)
            made.image[target] = picture.image[source]
            if made.sem_seg is not None and picture.sem_seg is not None:
                made.sem_seg[target] = picture.sem_seg[source]
            if picture.boxes is not None:
                window = np.array([x, y, x + part_w, y + part_h])
                cut = cut_boxes(picture.boxes, window, self.min_visible)
                has_area = cut[:, 2] > cut[:, 0]
                shift = place_x - x, place_y - y, place_x - x, place_y - y
                boxes.append(cut[has_area] + shift)
                classes.append(picture.classes[has_area])
                outlines += [
                    [polygon + shift[:2] for polygon in outline]
                    for outline in compress(_outlines_of(picture), has_area)
                ]
        if boxes:
            made.keep_boxes(np.concatenate(boxes), np.concatenate(classes), outlines)
        return made

    def copy_paste(self, onto: Picture, donor: Picture) -> Picture:
        """`onto` with a random part of the objects of `donor` pasted over it (Ghiasi et al., 2021).

        They stay where they are in the donor, whose own augmentation has moved them. An object is
        what its outline covers of its box, or the whole box where it has none; of that, the pixels
        of its class where the class has a pixel label. Without boxes it is a connected region of
        one class, drawn evenly from those that have any.
        """
        h, w = np.minimum(onto.image.shape[:2], donor.image.shape[:2])
        donor = self._cut(donor, h, w)
        mask = np.zeros(onto.image.shape[:2], np.uint8)
        if donor.boxes is not None:
            self._mark_boxes(donor, mask)
        elif donor.sem_seg is not None:
            self._mark_regions(donor.sem_seg, mask)
        if not mask.any():
            return onto
        made = Picture(onto.image.copy())
        part = mask[:h, :w]
        made.image[:h, :w] = cv2.copyTo(donor.image, part, made.image[:h, :w].copy())
        if onto.sem_seg is not None and donor.sem_seg is not None:
            made.sem_seg = onto.sem_seg.copy()
            made.sem_seg[:h, :w] = np.where(part, donor.sem_seg, made.sem_seg[:h, :w])
        if onto.boxes is not None and donor.boxes is not None:
            boxes = [self._shown(onto, mask == 0), self._shown(donor, part > 0)]
            made.keep_boxes(np.concatenate(boxes), np.concatenate([onto.classes, donor.classes]))
        return made

    def _cut(self, picture: Picture, h: int, w: int) -> Picture:
        """The upper left (h, w) of a picture."""
        made = Picture(picture.image[:h, :w])
        if picture.sem_seg is not None:
            made.sem_seg = picture.sem_seg[:h, :w]
        if picture.boxes is not None:
            cut = cut_boxes(picture.boxes, np.array([0, 0, w, h]), self.min_visible)
            made.keep_boxes(cut, picture.classes, picture.outlines)
        return made

    def _region(self, picture: Picture, i: int) -> tuple[tuple[slice, slice], np.ndarray]:
        """Where object i is: rows and columns of its box, and (h, w) bool in there."""
        window = pixel_window(picture.boxes[i], picture.image.shape[:2])
        category = int(picture.classes[i])
        label = self.object_labels[category] if category < len(self.object_labels) else -1
        rows, columns = window
        if picture.outlines and picture.outlines[i]:
            region = fill_outline(picture.outlines[i], window)
        else:
            region = np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
        if picture.sem_seg is not None and label >= 0:
            region &= picture.sem_seg[window] == label
        return window, region

    def _mark_boxes(self, donor: Picture, mask: np.ndarray) -> None:
        """Set a random part of the donor's objects, one at least, to 1 in the mask."""
        count = len(donor.boxes)
        if not count:
            return
        for i in np.random.permutation(count)[: np.random.randint(1, count + 1)]:
            window, region = self._region(donor, i)
            mask[window] |= region

    def _mark_regions(self, label: np.ndarray, mask: np.ndarray) -> None:
        """Set a random part of the objects of one class of the label to 1 in the mask."""
        present = np.flatnonzero(cv2.calcHist([label], [0], None, [256], [0, 256]))
        for category in np.random.permutation(present[present != self.ignore_value]):
            of_class = (label == category).astype(np.uint8)
            _, numbers, stats, _ = cv2.connectedComponentsWithStats(of_class)
            areas = stats[:, cv2.CC_STAT_AREA]
            objects = (areas >= _LEAST_PIXELS) & (areas <= _LARGEST_SHARE * label.size)
            objects[0] = False  # what is not of the class
            found = np.flatnonzero(objects)
            if len(found):
                drawn = np.random.permutation(found)[: np.random.randint(1, len(found) + 1)]
                height, width = label.shape
                mask[:height, :width] |= np.isin(numbers, drawn)
                return

    def _shown(self, picture: Picture, shown: np.ndarray) -> np.ndarray:
        """The picture's boxes (n, 4) around what is seen of them where `shown` (H, W) is true."""
        boxes = picture.boxes.copy()
        for i, box in enumerate(picture.boxes):
            window, region = self._region(picture, i)
            if not region.any():  # no pixel of its class: then the box as a whole counts
                region = np.ones_like(region)
            boxes[i] = shown_box(box, window, region, shown[window], self.min_visible)
        return boxes


def _outlines_of(picture: Picture) -> list[Outline]:
    """Of each of its boxes."""
    return picture.outlines or [[] for _ in picture.boxes]


def _quarter(middle: int, side: int, is_second: int, available: int) -> tuple[int, int, int]:
    """Along one side: where a picture's part begins in the mosaic and in itself, and its length."""
    room = side - middle if is_second else middle
    length = min(room, available)
    start = np.random.randint(available - length + 1)
    return (middle if is_second else middle - length), start, length
