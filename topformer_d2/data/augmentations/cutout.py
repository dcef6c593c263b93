"""Cut-out: rectangles of the image without content (DeVries and Taylor, 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform

from .visible import pixel_window, shown_box


class CutOutTransform(Transform):
    """Fills rectangles: the image with `fill`, the labels with `ignore_value`.

    A box is cut to what is still seen of it, or dropped where that is less than `min_visible`.
    """

    def __init__(
        self,
        h: int,
        w: int,
        holes: np.ndarray,
        fill: Sequence[int] = (0, 0, 0),
        ignore_value: int = 255,
        min_visible: float = 0.0,
    ):
        """
        Args:
            h, w: size of the image in pixels.
            holes: (n, 4) int, XYXY in pixels within the image.
            fill, ignore_value: values of the pixels inside.
            min_visible: share of a box's area.
        """
        super().__init__()
        self._set_attributes(locals())

    def _filled(self, img: np.ndarray, value: tuple) -> np.ndarray:
        img = np.array(img)  # a label may be of memory that is not to be written
        for x0, y0, x1, y1 in self.holes.tolist():
            img[y0:y1, x0:x1] = value
        return img

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 to the same."""
        return self._filled(img, tuple(self.fill))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(h, w) uint8 to the same."""
        return self._filled(segmentation, (self.ignore_value,))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """(n, 4) XYXY to the same; a box of which too little is seen has no area."""
        boxes = np.array(box)
        shown = self._filled(np.ones((self.h, self.w), bool), (False,))
        for i, each in enumerate(boxes):
            window = pixel_window(each, (self.h, self.w))
            part = shown[window]
            if not part.all():
                whole = np.ones_like(part)
                boxes[i] = shown_box(each, window, whole, part, self.min_visible)
        return boxes

    def inverse(self) -> Transform:
        return NoOpTransform()


class CutOut(T.Augmentation):
    """One to `max_holes` rectangles of random sides and places.

    Args:
        max_holes: the most of them.
        size_range: of each side, as a share of the image's.
        fill, ignore_value, min_visible: as CutOutTransform has them.
    """

    def __init__(
        self,
        max_holes: int,
        size_range: tuple[float, float],
        fill: Sequence[int] = (0, 0, 0),
        ignore_value: int = 255,
        min_visible: float = 0.0,
    ):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        count = np.random.randint(1, self.max_holes + 1)
        low, high = self.size_range
        sides = np.random.uniform(low, high, (count, 2)) * (w, h)
        # The middle may be anywhere, so that what lies at the border is covered as often.
        middles = np.random.uniform(size=(count, 2)) * (w, h)
        holes = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
        holes = holes.round().astype(int).clip(0, [w, h, w, h])
        return CutOutTransform(h, w, holes, self.fill, self.ignore_value, self.min_visible)
