"""Tables of Arrow, as which Ray Data keeps images and results.

A path may have bytes that are no text, so it is kept as bytes.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import import_optional
from ..batches import FilePrediction
from .partitions import Item
from .work import Read, Result

INSTALL = "topformer_d2[ray]"


def _arrow() -> Any:
    return import_optional("pyarrow", "the engine ray", INSTALL)


def _fields(arrow: Any) -> list[tuple[str, Any]]:
    whole, octets = arrow.int64(), arrow.binary()
    return [
        *(("partition", whole), ("place", whole)),
        *(("path", octets), ("name", octets), ("image_id", arrow.string())),
    ]


def _columns(items: Sequence[Item]) -> dict[str, list]:
    return {
        "partition": [item.partition for item in items],
        "place": [item.place for item in items],
        "path": [os.fsencode(item.path) for item in items],
        "name": [os.fsencode(item.name) for item in items],
        "image_id": [json.dumps(item.image_id) for item in items],
    }


def items_table(items: Sequence[Item]) -> Any:
    """One row for a partition, packed: those of all partitions are kept until the end."""
    arrow = _arrow()
    packed = zlib.compress(json.dumps(items).encode(), 1)
    return arrow.table({"items": arrow.array([packed], arrow.binary())})


def items_of(table: Any) -> list[Item]:
    """The images of an items_table."""
    packed = table.column("items").to_pylist()
    return [Item(*each) for value in packed for each in json.loads(zlib.decompress(value))]


def _item_of(row: dict[str, Any]) -> Item:
    return Item(
        row["partition"],
        row["place"],
        os.fsdecode(row["path"]),
        os.fsdecode(row["name"]),
        json.loads(row["image_id"]),
    )


def images_table(block: Sequence[Read]) -> Any:
    """A row for each image, with its pixels, or what kept it from being read."""
    arrow = _arrow()
    images = [found.image for _, found in block]
    columns = _columns([item for item, _ in block]) | {
        "height": [None if image is None else image.shape[0] for image in images],
        "width": [None if image is None else image.shape[1] for image in images],
        "problem": [found.problem for _, found in block],
    }
    more = [("height", arrow.int64()), ("width", arrow.int64()), ("problem", arrow.string())]
    table = arrow.table(columns, schema=arrow.schema([*_fields(arrow), *more]))
    kind = arrow.large_binary()
    pixels = arrow.chunked_array([_as_array(arrow, kind, image) for image in images], kind)
    return table.append_column("pixels", pixels)


def _as_array(arrow: Any, kind: Any, image: np.ndarray | None) -> Any:
    """An array of one value: the memory of an image, which is not copied; or null."""
    if image is None:
        return arrow.nulls(1, kind)
    image = np.ascontiguousarray(image)
    ends = arrow.py_buffer(np.array([0, image.nbytes]))
    return arrow.Array.from_buffers(kind, 1, [None, ends, arrow.py_buffer(image)])


def rows_of(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of a table of images, whose pixels stay where they are."""
    pixels = (octets for chunk in table.column("pixels").chunks for octets in _values_of(chunk))
    for row, octets in zip(table.drop_columns(["pixels"]).to_pylist(), pixels, strict=True):
        yield {**row, "pixels": octets}


def _values_of(array: Any) -> Iterator[Any]:
    """The memory of each value of an array of large_binary, where one of its own would be a copy.

    That of a null is empty.
    """
    _, ends, octets = array.buffers()
    places = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1].tolist()
    for start, end in itertools.pairwise(places):
        yield octets.slice(start, end - start) if end > start else b""


def read_of(row: dict[str, Any]) -> Read:
    """What was read, of a row of rows_of; the image's memory is the row's."""
    item = _item_of(row)
    image = None
    if row["height"] is not None:
        image = np.frombuffer(row["pixels"], np.uint8).reshape(row["height"], row["width"], 3)
    return item, FilePrediction(item.path, image=image, problem=row["problem"])


def results_table(results: Sequence[Result]) -> Any:
    """A row for each Result, with its fields as columns."""
    arrow = _arrow()
    kinds = (
        *(arrow.int64(), arrow.int64()),
        *(arrow.large_binary(), arrow.large_binary(), arrow.string()),
    )
    schema = arrow.schema(list(zip(Result._fields, kinds, strict=True)))
    columns = {name: [getattr(each, name) for each in results] for name in Result._fields}
    return arrow.table(columns, schema=schema)
