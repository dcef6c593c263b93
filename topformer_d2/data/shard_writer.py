"""Writing a dataset of any format as tar files in WebDataset's layout, with an index."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tqdm.auto import tqdm

from ..errors import InputError
from ..files import folder_beside, read_bytes, write_json
from ..tasks import BOXES, PIXELS
from .plain_layout import (
    CLASSES,
    JSON,
    box_of,
    coco_of,
    file_names,
    load_for,
    numbered,
    segmentation_of,
    write_classes,
)
from .shards import IMAGES, INDEX, LABELS, SCHEME, index_of

_BLOCK = tarfile.BLOCKSIZE
_MIB = 2**20


def write_shards(name: str, output: str, most_mib: int) -> dict[str, str]:
    """Copy a registered dataset into tar files, as DATASETS.FOLDERS takes it without any option.

    A sample is the files of one name, one after the other in one shard: the image as it is, the
    label (.png), and with boxes a .json: {"boxes": [{"bbox": [x, y, width, height] in pixels,
    "category_id": from 0, "category": its name, "iscrowd": 0 or 1, and "segmentation" as COCO's
    where there is one}]}. That is WebDataset's layout.

    Args:
        name: of the dataset.
        output: folder, which must not exist: `NNNNNN.tar`, `index.json` with the place of each
            image and label, and, as write_plain's, `classes.txt` and `boxes.json`.
        most_mib: of a shard, in MiB; a larger sample has one of its own.

    Returns:
        the entry of DATASETS.FOLDERS.

    Raises:
        InputError: `most_mib` is below 1, or as write_plain.
    """
    target = Path(output)
    if most_mib < 1:
        raise InputError(f"`shard_mb` is {most_mib}; it takes 1 or more")
    records, metadata = load_for(name, output)
    names = _sample_names(records, metadata)
    has_pixels = any(PIXELS.record_key in record for record in records)
    has_boxes = any(BOXES.record_key in record for record in records)
    entry = {"IMAGES": f"{SCHEME}{output}/{IMAGES}"}
    with folder_beside(target) as beside:
        folder = beside / target.name
        folder.mkdir()
        files: dict[str, list[tuple]] = {IMAGES: [], LABELS: []}
        with _Shards(folder, most_mib * _MIB) as shards:
            for record, file in tqdm(list(zip(records, names, strict=True)), unit="image"):
                members = dict(_members(record, file, list(metadata.get("thing_classes") or [])))
                places = shards.add(members)
                files[IMAGES].append((file, *places[file]))
                label = f"{os.path.splitext(file)[0]}.png"
                if PIXELS.record_key in record:
                    files[LABELS].append((label, *places[_label_name(file)]))
        if has_pixels:
            write_classes(folder / CLASSES, metadata)
            entry |= {"LABELS": f"{SCHEME}{output}/{LABELS}", "CLASSES": str(target / CLASSES)}
        if has_boxes:
            write_json(folder / JSON, coco_of(records, names, metadata))
            entry["BOXES"] = str(target / JSON)
        write_json(folder / INDEX, index_of(shards.paths, files))
        os.replace(folder, target)
    return entry


def _sample_names(records: list[dict], metadata: Any) -> list[str]:
    """Names of the images with one dot each: to WebDataset the kind is what follows the first."""
    names = []
    for name in file_names(records, metadata):
        stem, extension = os.path.splitext(name)
        # Names in a tar file and in the index are UTF-8.
        stem = re.sub("[.\ud800-\udfff]", "_", stem)
        names.append(stem + extension.lower())
    return numbered(names, records)


def _label_name(file: str) -> str:
    """A label's name in a shard, where its image may be a .png as well."""
    stem, extension = os.path.splitext(file)
    return f"{stem}.{'label.png' if extension == '.png' else 'png'}"


def _members(record: dict, file: str, classes: list[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files of a sample."""
    yield file, read_bytes(record["file_name"])
    if PIXELS.record_key in record:
        yield _label_name(file), read_bytes(record[PIXELS.record_key])
    if BOXES.record_key in record:
        boxes = [
            {
                "bbox": box_of(each),
                "category_id": each["category_id"],
                "category": classes[each["category_id"]],
                "iscrowd": each.get("iscrowd", 0),
                **segmentation_of(each),
            }
            for each in record[BOXES.record_key]
        ]
        yield f"{os.path.splitext(file)[0]}.json", json.dumps({"boxes": boxes}).encode()


class _Shards:
    """Tar files that are written one after the other."""

    def __init__(self, folder: Path, most: int):
        self.paths: list[Path] = []
        self._folder, self._most = folder, most
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Shards:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, members: dict[str, bytes]) -> dict[str, tuple[int, int, int]]:
        """Write the files of a sample: of each its shard's number, its offset and its size."""
        needed = sum(2 * _BLOCK + len(content) for content in members.values())
        if self._file is not None and self._file.tell() + needed + 2 * _BLOCK > self._most:
            self._close()
        file = self._file or self._open()
        places = {}
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            places[name] = len(self.paths) - 1, file.tell(), len(content)
            file.write(content + bytes(-len(content) % _BLOCK))
        return places

    def _open(self) -> BinaryIO:
        self.paths.append(self._folder / f"{len(self.paths):06d}.tar")
        self._file = open(self.paths[-1], "wb")  # noqa: SIM115 (closed by _close)
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.write(bytes(2 * _BLOCK))  # a tar file's end
            self._file.close()
            self._file = None
