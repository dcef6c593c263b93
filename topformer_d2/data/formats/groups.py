"""Shapes that a labelling tool has grouped as one object."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ...errors import InputError
from .contract import Shape
from .regions import check_pixels, polygon_rle, union


def join_groups(
    shapes: Sequence[tuple[Shape, Hashable]], size: tuple[int, int] | None
) -> list[Shape]:
    """The shapes, where those of one label and one group are one object.

    Args:
        shapes: each with its group; None = it is an object on its own.
        size: (width, height) of the image; only where a mask is in a group with others.

    Returns:
        each object where the first shape of it was.

    Raises:
        InputError: as regions.check_pixels.
    """
    members: dict[Hashable, list[Shape]] = {}
    for index, (shape, group) in enumerate(shapes):
        key = (index,) if group is None else (shape.label, group)
        members.setdefault(key, []).append(shape)
    return [each[0] if len(each) == 1 else _join(each, size) for each in members.values()]


def _join(shapes: Sequence[Shape], size: tuple[int, int] | None) -> Shape:
    label = shapes[0].label
    polygons = tuple(
        polygon for s in shapes if s.rle is None for polygon in (s.polygons or (_corners(s.box),))
    )
    masks = [shape.rle for shape in shapes if shape.rle is not None]
    if not masks:
        return Shape(label, polygons=polygons)
    if polygons:
        what = f"a group of {label!r}"
        if size is None:
            raise InputError(f"{what} has masks and polygons, and the image's size is missing")
        check_pixels(size, what)
        masks += [polygon_rle(each, size, what) for each in polygons]
    return Shape(label, rle=union(masks))


def _corners(box: tuple[float, float, float, float]) -> tuple[float, ...]:
    x0, y0, x1, y1 = box
    return x0, y0, x1, y0, x1, y1, x0, y1
