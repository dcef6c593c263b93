"""Rotation, scale, shear, shift and perspective as one warp of image, labels and boxes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform

from .visible import GONE, cut_boxes


class WarpTransform(Transform):
    """A projective map of the plane; the image keeps its size.

    Images are read bilinearly, labels by nearest neighbour. A box becomes the box around its four
    warped corners within the image.
    """

    def __init__(
        self,
        h: int,
        w: int,
        matrix: np.ndarray,
        fill: Sequence[int] = (0, 0, 0),
        ignore_value: int = 255,
        min_visible: float = 0.0,
    ):
        """
        Args:
            h, w: size of the image in pixels.
            matrix: (3, 3), from a point (x, y, 1) to where it goes; pixel (0, 0) is the square from
                (0, 0) to (1, 1), as in Detectron2's coordinates.
            fill: the three values of a pixel from outside the image; `ignore_value` is its label.
            min_visible: a box is dropped where a smaller share of its warped area is in the image.
        """
        super().__init__()
        self._set_attributes(locals())

    def _warped(self, img: np.ndarray, interpolation: int, outside: tuple) -> np.ndarray:
        # OpenCV's coordinates are those of the pixels' centres.
        to_corners = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = np.linalg.inv(to_corners) @ self.matrix @ to_corners
        size = self.w, self.h
        if np.array_equal(matrix[2], [0, 0, 1]):
            return cv2.warpAffine(img, matrix[:2], size, flags=interpolation, borderValue=outside)
        return cv2.warpPerspective(img, matrix, size, flags=interpolation, borderValue=outside)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 to the same."""
        return self._warped(img, cv2.INTER_LINEAR, tuple(map(int, self.fill)))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(h, w) uint8 to the same."""
        return self._warped(segmentation, cv2.INTER_NEAREST, (self.ignore_value,))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(n, 2) x and y in pixels to the same."""
        points = np.c_[coords, np.ones(len(coords))] @ self.matrix.T
        return points[:, :2] / points[:, 2:]

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """(n, 4) XYXY to the same; a box of which too little is seen has no area."""
        frame = np.array([0, 0, self.w, self.h])
        boxes = cut_boxes(np.asarray(box, np.float64), frame, 0.0)
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
        shapes = self.apply_coords(corners).reshape(-1, 4, 2)
        found = np.concatenate([shapes.min(1), shapes.max(1)], axis=1)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        leaves = (found[:, :2] < 0).any(1) | (found[:, 2:] > frame[2:]).any(1)
        for i in np.flatnonzero(leaves):
            inside = _within(shapes[i], self.w, self.h)
            share = _area(inside) / max(_area(shapes[i]), 1e-9)
            is_seen = share > 0 and share >= self.min_visible
            found[i] = np.concatenate([inside.min(0), inside.max(0)]) if is_seen else GONE
        found[~has_area] = GONE
        return found

    def inverse(self) -> Transform:
        parts = self.fill, self.ignore_value, self.min_visible
        return WarpTransform(self.h, self.w, np.linalg.inv(self.matrix), *parts)


def _area(polygon: np.ndarray) -> float:
    """Of a polygon (n, 2)."""
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _within(polygon: np.ndarray, w: int, h: int) -> np.ndarray:
    """The part of a convex polygon (n, 2) in the image, by cutting it at each of the four sides."""
    for axis, sign, limit in ((0, 1, 0), (1, 1, 0), (0, -1, -w), (1, -1, -h)):
        if not len(polygon):
            break
        # Positive on the side that stays.
        distances = sign * polygon[:, axis] - limit
        kept = []
        for here, ahead, d, d_ahead in zip(
            *(polygon, np.roll(polygon, -1, 0), distances, np.roll(distances, -1)), strict=True
        ):
            if d >= 0:
                kept.append(here)
            if d * d_ahead < 0:
                kept.append(here + (ahead - here) * (d / (d - d_ahead)))
        polygon = np.array(kept).reshape(-1, 2)
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
