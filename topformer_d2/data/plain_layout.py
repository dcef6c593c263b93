"""Writing a dataset of any format as plain files: images, label PNGs, a class list, a COCO JSON."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog
from tqdm.auto import tqdm

from ..errors import InputError
from ..files import folder_beside, is_remote, read_bytes, write_beside, write_json
from ..tasks import BOXES, PIXELS
from .coco_json import corners
from .labelling.matching import image_size
from .registered import check_dataset_present, load_records

IMAGES, LABELS, CLASSES, JSON = "images", "labels", "classes.txt", "boxes.json"


def write_plain(name: str, output: str) -> dict[str, str]:
    """Copy a registered dataset into a new folder, as DATASETS.FOLDERS takes it without any option.

    Args:
        name: of the dataset.
        output: folder, which must not exist: `images/`, and with pixel labels `labels/` (PNGs of
            the classes' indices) and `classes.txt`, with boxes `boxes.json` (COCO).

    Returns:
        the entry of DATASETS.FOLDERS.

    Raises:
        InputError: `output` exists, or the dataset cannot be loaded.
    """
    target = Path(output)
    if os.path.lexists(target):
        raise InputError(f"`output` {output} exists: name a new folder")
    check_dataset_present(name)
    records, metadata = load_records(name), MetadataCatalog.get(name)
    root = metadata.get("image_root") or os.path.commonpath([r["file_name"] for r in records])
    names = file_names([record["file_name"] for record in records], root)
    has_pixels = any(PIXELS.record_key in record for record in records)
    has_boxes = any(BOXES.record_key in record for record in records)
    entry = {"IMAGES": str(target / IMAGES)}
    with folder_beside(target) as beside:
        folder = beside / target.name
        (folder / IMAGES).mkdir(parents=True)
        if has_pixels:
            (folder / LABELS).mkdir()
        for record, file in tqdm(list(zip(records, names, strict=True)), unit="image"):
            _copy(record["file_name"], folder / IMAGES / file)
            if PIXELS.record_key in record:
                label = f"{os.path.splitext(file)[0]}.png"
                _copy(record[PIXELS.record_key], folder / LABELS / label)
        if has_pixels:
            write_classes(folder / CLASSES, metadata)
            entry |= {"LABELS": str(target / LABELS), "CLASSES": str(target / CLASSES)}
        if has_boxes:
            content = coco_of(records, names, metadata.thing_classes)
            write_json(folder / JSON, content)
            entry["BOXES"] = str(target / JSON)
        os.replace(folder, target)
    return entry


def _copy(source: str, target: Path) -> None:
    """Copy a file, which may be one of a shard or a remote store."""
    if is_remote(source):
        target.write_bytes(read_bytes(source))
    else:
        shutil.copyfile(source, target)


def file_names(files: Sequence[str], root: str) -> list[str]:
    """Names of the images in one folder: those of subfolders begin with theirs."""
    names = []
    for file in files:
        below = os.path.relpath(file, root)
        names.append(below.replace(os.sep, "_").replace("..", "_"))
    stems = [os.path.splitext(name)[0] for name in names]
    if len({*stems}) < len(stems):
        names = [f"{i:06d}_{name}" for i, name in enumerate(names)]
    return names


def write_classes(path: Path, metadata: object) -> None:
    """Write the list of the classes of a dataset's pixels, with their colours where it has some."""
    names, colors = metadata.stuff_classes, getattr(metadata, "stuff_colors", None)  # type: ignore
    lines = list(names)
    if colors and len(colors) == len(names):
        lines = [f"{name} {' '.join(map(str, c))}" for name, c in zip(names, colors, strict=True)]
    write_beside(path, ("\n".join(lines) + "\n").encode())


def coco_of(records: Sequence[dict], names: Sequence[str], classes: Sequence[str]) -> dict:
    """The content of a COCO JSON.

    Args:
        records: Detectron2 dataset dicts; the size of those without is read from their images.
        names: of the images, as the JSON has them.
        classes: names by category_id.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for number, (record, file) in enumerate(zip(records, names, strict=True), start=1):
        if "width" in record and "height" in record:
            width, height = record["width"], record["height"]
        else:
            width, height = image_size(record["file_name"])
        images.append({"id": number, "file_name": file, "width": width, "height": height})
        for annotation in record.get(BOXES.record_key, ()):
            x0, y0, x1, y1 = map(float, corners(annotation))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": annotation["category_id"] + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": annotation.get("iscrowd", 0),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}
