"""Regions as pycocotools takes them, of the forms that labelling tools write."""

from __future__ import annotations

import ast
import base64
import binascii
import io
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ...errors import InputError, shortened
from ..image_files import UNREADABLE
from ..images import MAX_PIXELS
from .contract import Shape

# Corners of the polygon that stands for an ellipse; of a circle of radius 100 it misses 0.1 pixel.
_CORNERS = 64


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0) -> tuple[float, ...]:
    """The polygon (x0, y0, ...) of an ellipse by its centre and radii, turned clockwise."""
    turn = math.radians(degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    points = []
    for i in range(_CORNERS):
        angle = 2 * math.pi * i / _CORNERS
        dx, dy = rx * math.cos(angle), ry * math.sin(angle)
        points += [x + dx * cos - dy * sin, y + dx * sin + dy * cos]
    return tuple(points)


def turned_box(
    box: Sequence[float], degrees: float, around: tuple[float, float] | None = None
) -> tuple[float, ...]:
    """The polygon of a box (x0, y0, x1, y1), turned clockwise around its centre or a point."""
    x0, y0, x1, y1 = box
    x, y = around or ((x0 + x1) / 2, (y0 + y1) / 2)
    turn = math.radians(degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    points = []
    for px, py in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
        dx, dy = px - x, py - y
        points += [x + dx * cos - dy * sin, y + dx * sin + dy * cos]
    return tuple(points)


def box_around(points: Sequence[float]) -> tuple[float, float, float, float]:
    """The smallest box (x0, y0, x1, y1) around points (x0, y0, x1, y1, ...)."""
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def check_pixels(size: tuple[int, int], what: str) -> None:
    """Raise InputError where an image or mask cannot have this (width, height)."""
    width, height = size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise InputError(f"{what} has {width}x{height} pixels; it takes 1 to {MAX_PIXELS} in all")


def place_mask(mask: np.ndarray, left: int, top: int, size: tuple[int, int], what: str) -> dict:
    """The RLE of a mask that is a part of an image.

    Args:
        mask: (rows, columns) bool.
        left, top: of its first pixel; what lies outside the image is left out.
        size: (width, height) of the image.
        what: it is, for the message.

    Raises:
        InputError: no pixel of the mask is in the image.
    """
    check_pixels(size, what)
    width, height = size
    mask = mask[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    if not mask.any():
        raise InputError(f"{what} has no pixel within the image: remove it or label it anew")
    top, left = max(0, top), max(0, left)
    # COCO counts pixels down the columns.
    column = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    column[:, 1:-1] = mask.T
    change = np.diff(column, axis=1)
    starts, ends = (
        (xs + left) * height + ys + top for xs, ys in (np.nonzero(change == v) for v in (1, -1))
    )
    # A run to the foot of a column goes on at the head of the next.
    goes_on = starts[1:] == ends[:-1]
    starts, ends = starts[np.r_[True, ~goes_on]], ends[np.r_[~goes_on, True]]
    edges = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(np.r_[0, edges, width * height])
    if not counts[-1]:
        counts = counts[:-1]
    return compress({"size": [height, width], "counts": counts.tolist()})


def compress(rle: dict) -> dict:
    """An RLE with a list of runs as one with compressed text."""
    packed = coco_mask.frPyObjects(rle, *rle["size"])
    return {"size": [int(n) for n in packed["size"]], "counts": packed["counts"].decode()}


def rows_mask(counts: Sequence[int], width: int, height: int, what: str) -> np.ndarray:
    """(height, width) bool of runs along the rows, the first of which is of pixels outside.

    Raises:
        InputError: the runs do not have as many pixels as the mask.
    """
    check_pixels((width, height), what)
    runs = np.asarray(counts, np.int64)
    if (runs < 0).any() or (runs > width * height).any() or int(runs.sum()) != width * height:
        raise InputError(
            f"{what}: its RLE does not have the {width * height} pixels of a mask of "
            f"{width}x{height}: export it anew"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)


def polygon_with_holes(
    outer: Sequence[float],
    holes: Sequence[Sequence[float]],
    size: tuple[int, int],
    what: str,
) -> dict:
    """The RLE of a polygon (x0, y0, ...) without its holes, of an image of (width, height)."""
    check_pixels(size, what)
    width, height = size
    rings = [np.asarray(ring, float).reshape(-1, 2) for ring in (outer, *holes)]
    # What reaches far out would cost time and memory; a vertex that is moved is not in the image.
    rings = [np.clip(ring, [-width, -height], [2 * width, 2 * height]) for ring in rings]
    x0, y0 = np.clip(np.floor(rings[0].min(0)), 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(rings[0].max(0)) + 1, [x0 + 1, y0 + 1], size).astype(int)
    drawn = [_filled(ring - (x0, y0), x1 - x0, y1 - y0) for ring in rings]
    mask = drawn[0]
    for hole in drawn[1:]:
        mask &= ~hole
    return place_mask(mask, int(x0), int(y0), size, what)


def _filled(ring: np.ndarray, width: int, height: int) -> np.ndarray:
    rle = coco_mask.frPyObjects([ring.ravel().tolist()], int(height), int(width))
    return coco_mask.decode(rle)[:, :, 0].astype(bool)


def png_mask(text: object, what: str, *, packed: bool = False) -> np.ndarray:
    """(rows, columns) bool of a mask that JSON has as the base64 of a PNG.

    Pixels are inside where they are opaque, or else where they are not 0.

    Args:
        text: base64.
        what: it is, for the message.
        packed: the PNG is compressed by zlib once more, or not, as Supervisely has both.

    Raises:
        InputError: it is not that.
    """
    if not isinstance(text, str):
        raise InputError(f"{what}: its mask is {shortened(text, 60)}; it takes a PNG in base64")
    try:
        content = base64.b64decode(text, validate=False)
        if packed and not content.startswith(b"\x89PNG"):
            unpacking = zlib.decompressobj()
            content = unpacking.decompress(content, MAX_PIXELS)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            check_pixels(image.size, what)
            if "transparency" in image.info or image.mode in ("LA", "RGBA"):
                return np.asarray(image.convert("RGBA"))[:, :, 3] > 0
            values = np.asarray(image) > 0
    except InputError:
        raise
    except (*UNREADABLE, binascii.Error, zlib.error) as e:
        raise InputError(f"{what}: its mask is not a PNG in base64 ({e}): export it anew") from e
    return values if values.ndim == 2 else np.any(values, axis=2)


def union(rles: Sequence[dict]) -> dict:
    """The RLE of the pixels of any of several of one image."""
    merged = coco_mask.merge(list(rles))
    return {"size": [int(n) for n in merged["size"]], "counts": merged["counts"].decode()}


def polygon_rle(polygon: Sequence[float], size: tuple[int, int], what: str) -> dict:
    """The RLE of a polygon of an image."""
    return polygon_with_holes(polygon, (), size, what)


def area_of(shape: Shape) -> float:
    """The area of a shape in square pixels: its box's, or else its mask's or polygons'."""
    if (box := shape.box) is not None and (found := (box[2] - box[0]) * (box[3] - box[1])) > 0:
        return found
    if (rle := shape.rle) is not None:
        if isinstance(rle["counts"], list):
            rle = compress(rle)
        return float(coco_mask.area(rle))
    return sum(map(_polygon_area, shape.polygons))


def _polygon_area(polygon: Sequence[float]) -> float:
    xs, ys = polygon[::2], polygon[1::2]
    twice = sum(x * ys[i - 1] - xs[i - 1] * y for i, (x, y) in enumerate(zip(xs, ys, strict=True)))
    return abs(twice) / 2


def check_rle(rle: Any, what: str) -> dict:
    """An RLE of a COCO JSON as pycocotools can decode it, which trusts what it is given.

    Args:
        rle: {"size": [height, width], "counts": ...}, whose counts are a list of runs, or
            compressed text, also as Python prints its bytes: "b'...'".
        what: it is, for the message.

    Raises:
        InputError: it is not that, or its runs are not as many pixels as its size.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(n) in (int, float) for n in size)
        and all(n == n and 1 <= n <= MAX_PIXELS and n == int(n) for n in size)
    ):
        raise InputError(f"{what}: its RLE's 'size' {shortened(size, 60)} is not [height, width]")
    height, width = int(size[0]), int(size[1])
    check_pixels((width, height), what)
    if isinstance(counts, str):
        counts = _plain(counts)
        runs = _runs_of(counts, what)
    elif isinstance(counts, list) and {*map(type, counts)} <= {int}:
        if any(not 0 <= n <= width * height for n in counts):
            raise InputError(f"{what}: its RLE has a run that is longer than the mask")
        runs = np.asarray(counts, np.int64)
    else:
        raise InputError(
            f"{what}: its RLE's 'counts' are {shortened(counts, 60)}; they take text or a list of "
            "integers"
        )
    if (runs < 0).any() or int(runs.sum()) != width * height:
        raise InputError(
            f"{what}: its RLE has {int(runs.sum())} pixels, and its size is {width}x{height}"
        )
    return {"size": [height, width], "counts": counts}


def _plain(counts: str) -> str:
    """Compressed counts that were written as Python prints bytes; "'" and '"' are in no RLE."""
    if counts[:2] in ("b'", 'b"'):
        try:
            return ast.literal_eval(counts).decode("ascii")
        except (ValueError, SyntaxError, MemoryError, RecursionError, AttributeError):
            return counts
    return counts


def _runs_of(counts: str, what: str) -> np.ndarray:
    """The runs of compressed counts: 5 bits a character, the least first, and differences of runs.

    Source: rleFrString of cocoapi's maskApi.c.
    """
    try:
        units = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        units = np.array([-1])
    last = np.flatnonzero((units & 32) == 0)
    lengths = np.diff(last, prepend=-1)
    if (
        ((units < 0) | (units > 63)).any()
        or not len(units)
        or units[-1] & 32
        or lengths.max(initial=0) > 6
    ):
        raise InputError(
            f"{what}: its RLE's 'counts' {shortened(counts, 60)} is cut, or no compressed RLE"
        )
    first = last - lengths + 1
    place = np.arange(len(units)) - np.repeat(first, lengths)
    runs = np.add.reduceat((units & 31) << (5 * place), first)
    runs -= np.where(units[last] & 16, np.int64(1) << (5 * lengths), 0)
    for start in (1, 2):
        runs[start::2] = np.cumsum(runs[start::2])
    if (np.abs(runs) > MAX_PIXELS).any():
        raise InputError(f"{what}: its RLE has a run of more pixels than an image can have")
    return runs
