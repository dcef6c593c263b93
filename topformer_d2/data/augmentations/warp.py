"""Rotation, scale, shear, shift and perspective as one warp of image, labels and boxes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform, Transform

from .visible import cut_boxes


class WarpTransform(Transform):
    """A projective map of the plane; the image keeps its size, or is cut to a window of it.

    Images are read bilinearly, labels by nearest neighbour. A box becomes the box around what is
    left of its warped shape, a quadrilateral.
    """

    def __init__(
        self,
        h: int,
        w: int,
        matrix: np.ndarray,
        fill: Sequence[int] = (0, 0, 0),
        ignore_value: int = 255,
        min_visible: float = 0.0,
        crop: CropTransform | None = None,
    ):
        """
        Args:
            h, w: size of the image in pixels.
            matrix: (3, 3), from a point (x, y, 1) to where it goes; pixel (0, 0) is the square from
                (0, 0) to (1, 1), as in Detectron2's coordinates.
            fill: the three values of a pixel from outside the image; `ignore_value` is its label.
            min_visible: a box is dropped where a smaller share of its warped area is in the image,
                whatever the crop.
            crop: what is cut out of the warped image; None = nothing is.
        """
        super().__init__()
        self._set_attributes(locals())
        # XYXY of what is kept, in the warped image.
        self.window = (
            np.array([0, 0, w, h])
            if crop is None
            else np.array([crop.x0, crop.y0, crop.x0 + crop.w, crop.y0 + crop.h])
        )

    def _warped(self, img: np.ndarray, interpolation: int, outside: tuple) -> np.ndarray:
        x0, y0, x1, y1 = self.window.tolist()
        # OpenCV's coordinates are those of the pixels' centres.
        from_centres = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        to_centres = np.array([[1, 0, -0.5 - x0], [0, 1, -0.5 - y0], [0, 0, 1]])
        matrix = to_centres @ self.matrix @ from_centres
        size = x1 - x0, y1 - y0
        if np.array_equal(matrix[2], [0, 0, 1]):
            return cv2.warpAffine(img, matrix[:2], size, flags=interpolation, borderValue=outside)
        return cv2.warpPerspective(img, matrix, size, flags=interpolation, borderValue=outside)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 to the same, of the crop's size."""
        return self._warped(img, cv2.INTER_LINEAR, tuple(map(int, self.fill)))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(h, w) uint8 to the same, of the crop's size."""
        return self._warped(segmentation, cv2.INTER_NEAREST, (self.ignore_value,))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(n, 2) x and y in pixels to the same."""
        return self._moved(coords) - self.window[:2]

    def _moved(self, points: np.ndarray) -> np.ndarray:
        """Where points (n, 2) are in the warped image, before the crop."""
        moved = np.c_[points, np.ones(len(points))] @ self.matrix.T
        return moved[:, :2] / moved[:, 2:]

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """(n, 4) XYXY to the same; a box of which too little is seen has no area."""
        image = np.array([0, 0, self.w, self.h])
        boxes = cut_boxes(np.asarray(box, np.float64), image, 0.0)
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        shapes = self._moved(corners).reshape(-1, 4, 2)
        found = np.zeros_like(boxes)
        for i in np.flatnonzero(boxes[:, 2] > boxes[:, 0]):
            shape = shapes[i].tolist()
            inside = _within(shape, image.tolist())
            if _area(inside) < self.min_visible * _area(shape):
                continue
            inside = _within(inside, self.window.tolist())
            if inside:
                xs, ys = zip(*inside, strict=True)
                found[i] = min(xs), min(ys), max(xs), max(ys)
                found[i] -= self.window[[0, 1, 0, 1]]
        return found


# Polygons are lists: of so few points NumPy would take ten times as long.


def _area(polygon: list) -> float:
    """Of a polygon, a list of (x, y)."""
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(x * y_next - x_next * y for (x, y), (x_next, y_next) in pairs)) / 2


def _within(polygon: list, window: list) -> list:
    """The part of a convex polygon in a window XYXY, by cutting it at each of its sides."""
    for axis, sign, limit in zip((0, 1, 0, 1), (1, 1, -1, -1), window, strict=True):
        # Positive on the side that stays.
        distances = [sign * (point[axis] - limit) for point in polygon]
        if min(distances, default=0) >= 0:
            continue
        kept = []
        for i, d in enumerate(distances):
            before, d_before = polygon[i - 1], distances[i - 1]
            here = polygon[i]
            if d * d_before < 0:
                share = d_before / (d_before - d)
                kept.append([b + (h - b) * share for b, h in zip(before, here, strict=True)])
            if d >= 0:
                kept.append(here)
        polygon = kept
    return polygon


class Warp(T.Augmentation):
    """A random rotation, scale, shear, shift and perspective about the image's centre."""

    def __init__(
        self,
        *,
        rotation: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        translation: float = 0.0,
        perspective: float = 0.0,
        fill: Sequence[int] = (0, 0, 0),
        ignore_value: int = 255,
        min_visible: float = 0.0,
    ):
        """
        Args:
            rotation: largest angle in degrees, either way.
            scale: smallest and largest factor; its logarithm is drawn evenly.
            shear: largest angle in degrees by which vertical lines lean, and horizontal ones.
            translation: largest shift as a share of the image's sides.
            perspective: largest shift of each corner, as a share of the sides; below 0.25, so that
                the image stays convex.
            fill, ignore_value, min_visible: as WarpTransform has them.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        h, w = image.shape[:2]
        matrix = self._draw_matrix(h, w)
        return WarpTransform(h, w, matrix, self.fill, self.ignore_value, self.min_visible)

    def _draw_matrix(self, h: int, w: int) -> np.ndarray:
        angle = np.deg2rad(np.random.uniform(-self.rotation, self.rotation))
        factor = np.exp(np.random.uniform(*np.log(self.scale)))
        lean = np.tan(np.deg2rad(np.random.uniform(-self.shear, self.shear, 2)))
        shift = np.random.uniform(-self.translation, self.translation, 2) * (w, h)
        moves = np.random.uniform(-self.perspective, self.perspective, (4, 2)) * (w, h)
        c, s = factor * np.cos(angle), factor * np.sin(angle)
        about_centre = np.eye(3)
        about_centre[:2, :2] = np.array([[c, -s], [s, c]]) @ [[1, lean[0]], [lean[1], 1]]
        to_centre, back = np.eye(3), np.eye(3)
        to_centre[:2, 2] = -w / 2, -h / 2
        back[:2, 2] = shift + np.array([w / 2, h / 2])
        matrix = back @ about_centre @ to_centre
        if not self.perspective:
            return matrix
        corners = np.array([[0, 0], [w, 0], [w, h], [0, h]])
        moved = (corners + moves).astype(np.float32)
        return matrix @ cv2.getPerspectiveTransform(corners.astype(np.float32), moved)


class WarpedCrop(T.Augmentation):
    """A crop, with some probability of a warped image, of which the crop alone is then made."""

    def __init__(self, warp: Warp, crop: T.Augmentation, prob: float):
        """
        Args:
            warp: what is done to the image.
            crop: an augmentation whose transform is a CropTransform.
            prob: probability of the warp.
        """
        super().__init__()
        self._init(locals())

    def __call__(self, aug_input: Any) -> Transform:
        """Warp and crop `aug_input`."""
        if self._rand_range() >= self.prob:
            return self.crop(aug_input)
        warp = self.warp.get_transform(aug_input.image)
        # The crop is chosen by the labels and boxes of the warped image; of the image itself it
        # needs the size.
        warped = copy.copy(aug_input)
        if aug_input.sem_seg is not None:
            warped.sem_seg = warp.apply_segmentation(aug_input.sem_seg)
        if aug_input.boxes is not None:
            warped.boxes = warp.apply_box(aug_input.boxes)
        crop = self.crop(warped)
        parts = warp.fill, warp.ignore_value, warp.min_visible, crop
        transform = WarpTransform(warp.h, warp.w, warp.matrix, *parts)
        aug_input.transform(transform)
        return transform
