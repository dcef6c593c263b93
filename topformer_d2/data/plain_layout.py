"""Writing a dataset of any format as plain files: images, label PNGs, a class list, a COCO JSON."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from tqdm.auto import tqdm

from ..errors import InputError
from ..files import folder_beside, is_remote, read_bytes, write_beside, write_json
from ..tasks import BOXES, PIXELS
from ..tasks import IMAGES as OF_CLASSES
from .coco_json import corners
from .labelling.matching import image_size
from .object_outlines import rounded
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
        InputError: `output` exists or is remote, or the dataset cannot be loaded or is of class
            folders.
    """
    target = Path(output)
    records, metadata = load_for(name, output)
    names = numbered(file_names(records, metadata), records)
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
            write_json(folder / JSON, coco_of(records, names, metadata))
            entry["BOXES"] = str(target / JSON)
        os.replace(folder, target)
    return entry


def load_for(name: str, output: str) -> tuple[list[dict], Any]:
    """The records of a dataset, with outlines of objects, and its metadata.

    Args:
        name: of the dataset.
        output: where it is to be written.

    Raises:
        InputError: as write_plain.
    """
    if is_remote(output):
        raise InputError(
            f"`output` {output} is a remote store's: name a folder on this machine, and copy it"
        )
    if os.path.lexists(output):
        raise InputError(f"`output` {output} exists: name a new folder")
    check_dataset_present(name)
    records = load_records(name, with_outlines=True)
    if any(OF_CLASSES.record_key in record for record in records):
        raise InputError(
            f"dataset {name!r} has a folder of images for each class (CLASS_FOLDERS), and what is "
            "written has pixel labels and boxes alone: use these folders as they are"
        )
    return records, MetadataCatalog.get(name)


def _copy(source: str, target: Path) -> None:
    """Copy a file, which may be one of a shard or a remote store."""
    if is_remote(source):
        target.write_bytes(read_bytes(source))
    else:
        shutil.copyfile(source, target)


def file_names(records: Sequence[dict], metadata: Any) -> list[str]:
    """Names of the images in one folder: those of subfolders begin with theirs."""
    files = [record["file_name"] for record in records]
    root = metadata.get("image_root") or os.path.commonpath(files)
    below = (os.path.relpath(file, root) for file in files)
    return [name.replace(os.sep, "_").replace("..", "_") for name in below]


def numbered(names: list[str], records: Sequence[dict]) -> list[str]:
    """The names with a number first, where two have one stem or they would not keep their order.

    A COCO JSON has the order of its images. Without one they are read in the order of their stems.
    """
    stems = [os.path.splitext(name)[0] for name in names]
    is_sorted = stems == sorted(stems) or any(BOXES.record_key in record for record in records)
    if is_sorted and len({*stems}) == len(stems):
        return names
    digits = max(6, len(str(len(names) - 1)))
    return [f"{i:0{digits}d}_{name}" for i, name in enumerate(names)]


def write_classes(path: Path, metadata: object) -> None:
    """Write the list of the classes of a dataset's pixels, with their colours where it has some."""
    names, colors = metadata.stuff_classes, getattr(metadata, "stuff_colors", None)  # type: ignore
    lines = list(names)
    if colors and len(colors) == len(names):
        lines = [f"{name} {' '.join(map(str, c))}" for name, c in zip(names, colors, strict=True)]
    write_beside(path, ("\n".join(lines) + "\n").encode())


def coco_of(records: Sequence[dict], names: Sequence[str], metadata: Any) -> dict:
    """The content of a COCO JSON.

    Images and categories keep the ids that they have in a COCO JSON; others are numbered from 1.

    Args:
        records: Detectron2 dataset dicts; the size of those without is read from their images.
        names: of the images, as the JSON has them.
        metadata: Detectron2's, of the dataset.
    """
    categories = _category_ids(metadata)
    images: list[dict] = []
    annotations: list[dict] = []
    for number, record, file in zip(_image_ids(records), records, names, strict=True):
        if "width" in record and "height" in record:
            width, height = record["width"], record["height"]
        else:
            width, height = image_size(record["file_name"])
        images.append({"id": number, "file_name": file, "width": width, "height": height})
        for annotation in record.get(BOXES.record_key, ()):
            x, y, w, h = box_of(annotation)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[annotation["category_id"]],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": annotation.get("iscrowd", 0),
                    **segmentation_of(annotation),
                }
            )
    listed = [
        {"id": id_, "name": name}
        for id_, name in zip(categories, metadata.thing_classes, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": listed}


def box_of(annotation: dict) -> list[float]:
    """[x, y, width, height] in pixels of an annotation of a record."""
    x0, y0, x1, y1 = map(float, corners(annotation))
    return [x0, y0, x1 - x0, y1 - y0]


def segmentation_of(annotation: dict) -> dict[str, Any]:
    """The "segmentation" of an annotation of a record as a COCO JSON has it; {} = it has none."""
    found = annotation.get("segmentation")
    if found is None or len(found) == 0:
        return {}
    if not isinstance(found, Mapping):
        return {"segmentation": rounded([[*map(float, polygon)] for polygon in found])}
    counts = found["counts"]
    counts = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"segmentation": {"size": [*found["size"]], "counts": counts}}


def _image_ids(records: Sequence[dict]) -> Sequence[int]:
    """The ids that records of a COCO JSON have; those of others are names of files."""
    ids = [record.get("image_id") for record in records]
    if len({*ids}) == len(ids) and all(type(each) is int for each in ids):
        return ids
    return range(1, len(records) + 1)


def _category_ids(metadata: Any) -> Sequence[int]:
    """By index of the class. A JSON's categories are read in the order of their ids."""
    count = len(metadata.thing_classes)
    to_index = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ids = sorted(to_index)
    is_whole = [to_index[each] for each in ids] == [*range(count)]
    return ids if is_whole else range(1, count + 1)
