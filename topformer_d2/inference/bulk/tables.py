"""Tables of Arrow, as which Ray Data keeps images and results.

A path may have bytes that are no text, so it is kept as bytes.
"""

from __future__ import annotations

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
        # As bytes: pyarrow 26 never lets a memoryview go, and its image with it.
        "pixels": [None if image is None else image.tobytes() for image in images],
        "problem": [found.problem for _, found in block],
    }
    more = [
        *(("height", arrow.int64()), ("width", arrow.int64())),
        *(("pixels", arrow.large_binary()), ("problem", arrow.string())),
    ]
    return arrow.table(columns, schema=arrow.schema([*_fields(arrow), *more]))


def rows_of(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of a table of images, whose pixels stay where they are."""
    pixels = table.column("pixels")
    for row, octets in zip(table.drop_columns(["pixels"]).to_pylist(), pixels, strict=True):
        yield {**row, "pixels": octets.as_buffer()}


def read_of(row: dict[str, Any]) -> Read:
    """What was read, of a row of rows_of; the image's memory is the row's."""
    item = _item_of(row)
    image = None
    if row["pixels"] is not None:
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
