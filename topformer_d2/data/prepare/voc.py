"""PASCAL-VOC-style folders (one XML of boxes an image) to COCO JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from ...errors import InputError
from ..files import write_beside
from .source import DAMAGED, Source

SPLITS = ("train", "val", "trainval", "test")


@dataclass
class VocReport:
    """What a preparation did.

    Attributes:
        classes: as the JSON files number them, from 1.
        images: {split: images in its JSON}.
        boxes: {class: boxes}, over all images.
        without_boxes: images without an object; they are kept.
        difficult: boxes marked so; they become crowds, which neither reward nor punish.
        clipped: boxes cut to their image.
        dropped: one line for each box of no area inside its image.
        left_out: {name: objects} of classes that were not asked for.
        problems: one line for each image that could not be prepared.
    """

    classes: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    boxes: Counter = field(default_factory=Counter)
    without_boxes: int = 0
    difficult: int = 0
    clipped: int = 0
    dropped: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Text for the terminal."""
        lines = [f"{split}: {count} images" for split, count in self.images.items()]
        lines.append(f"boxes: {', '.join(f'{n} {self.boxes[n]}' for n in self.classes)}")
        if self.without_boxes:
            lines.append(f"images without an object, kept: {self.without_boxes}")
        if self.difficult:
            lines.append(f"boxes marked difficult, now crowds: {self.difficult}")
        if self.clipped:
            lines.append(f"boxes that reached out of their image, now clipped: {self.clipped}")
        if self.dropped:
            lines.append(f"boxes of no area or outside their image, dropped: {len(self.dropped)}")
            lines += [f"  {line}" for line in self.dropped[:5]]
        if self.left_out:
            lines.append(f"objects of other classes, left out: {dict(self.left_out)}")
        return "\n".join(lines + [f"PROBLEM: {problem}" for problem in self.problems])


@dataclass
class _Object:
    name: str
    corners: tuple[float, float, float, float]  # xmin, ymin, xmax, ymax as the file has them
    difficult: bool


def prepare_voc(
    sources: Sequence[str], target: str, classes: Sequence[str] | None = None
) -> VocReport:
    """Write images/ and annotations/instances_{split}.json below `target`.

    Boxes follow VOC's convention, pixels counted from 1 and both ends inclusive, unless a
    coordinate of the source is below 1: then they are edges counted from 0. A second call copies
    only the images that are missing.

    Args:
        sources: the folders, .zip and .tar with Annotations/, JPEGImages/ and ImageSets/Main/, all
            of one data set. Without lists of a split's images there, all go into the split "all".
        target: folder of the dataset.
        classes: names in the order of their ids; None = all that occur, sorted.

    Raises:
        InputError: a source is not there, or they have no such folder.
    """
    files = Source(sources)
    folder = _find_root(files)
    annotation_files = files.folder(f"{folder}Annotations", ".xml")
    image_files = files.folder(f"{folder}JPEGImages")
    report = VocReport()
    objects = {}
    for stem, name in sorted(annotation_files.items()):
        try:
            objects[stem] = _read_objects(files.read(name))
        except (ET.ParseError, ValueError, *DAMAGED) as e:
            report.problems.append(f"{name}: {e}")
        if stem not in image_files:
            report.problems.append(f"{name} has no image")
            objects.pop(stem, None)
    found = {o.name for boxes in objects.values() for o in boxes}
    report.classes = sorted(found) if classes is None else list(classes)
    if not found & set(report.classes):
        raise InputError(f"{files} has no object of {report.classes}; it has {sorted(found)}")

    sizes = _copy_images(files, {stem: image_files[stem] for stem in objects}, target, report)
    from_one = all(min(o.corners) >= 1 for boxes in objects.values() for o in boxes)
    entries = {
        stem: _coco_entry(i, stem, image_files, sizes[stem], objects[stem], from_one, report)
        for i, stem in enumerate(sorted(sizes), start=1)
    }
    for split, stems in _splits(files, folder, sorted(annotation_files)).items():
        missing = [stem for stem in stems if stem not in annotation_files]
        if missing:
            report.problems.append(
                f"{split}: {len(missing)} without an XML, {missing[0]} among them"
            )
        chosen = [entries[stem] for stem in stems if stem in entries]
        report.images[split] = len(chosen)
        _write_json(Path(target), split, chosen, report.classes)
    return report


def _find_root(files: Source) -> str:
    """The path up to Annotations/, ending with "/" where it is not empty."""
    roots = {
        str(path.parent.parent)
        for path in map(PurePosixPath, files.names)
        if path.suffix == ".xml" and path.parent.name == "Annotations"
    }
    if not roots:
        raise InputError(f"{files} has no folder Annotations with .xml files: is it VOC's layout?")
    if len(roots) > 1:
        raise InputError(f"{files} holds {len(roots)} datasets, {sorted(roots)}: name one of them")
    root = roots.pop()
    return "" if root == "." else f"{root}/"


def _read_objects(content: bytes) -> list[_Object]:
    objects = []
    for element in ET.fromstring(content).iter("object"):
        name, box = element.findtext("name"), element.find("bndbox")
        if not name or box is None:
            raise ValueError("an object without a name or a bndbox")
        corners = tuple(
            float(box.findtext(key, default="nan")) for key in ("xmin", "ymin", "xmax", "ymax")
        )
        if any(c != c for c in corners):
            raise ValueError(f"a bndbox of {name.strip()!r} lacks a coordinate")
        difficult = element.findtext("difficult", default="0").strip() == "1"
        objects.append(_Object(name.strip(), corners, difficult))
    return objects


def _copy_images(
    files: Source, names: dict[str, str], target: str, report: VocReport
) -> dict[str, tuple[int, int]]:
    """Copy images that can be read to the end; returns {stem: (width, height)}."""

    def copy(stem: str):
        out = Path(target) / "images" / PurePosixPath(names[stem]).name
        try:
            content, image = files.read_image(names[stem], out)
        except ValueError as e:
            return str(e)
        if not out.is_file():
            write_beside(out, content)
        return image.size

    sizes = {}
    with ThreadPoolExecutor() as pool:
        outcomes = tqdm(pool.map(copy, names), total=len(names), desc="images", unit="image")
        for stem, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, str):
                report.problems.append(outcome)
            else:
                sizes[stem] = outcome
    return sizes


def _coco_entry(index, stem, image_files, size, objects, from_one, report) -> tuple[dict, list]:
    """The "images" entry and the "annotations" of one image, without ids of the latter."""
    width, height = size
    name = PurePosixPath(image_files[stem]).name
    image = {"id": index, "file_name": name, "width": width, "height": height}
    annotations = []
    for o in objects:
        if o.name not in report.classes:
            report.left_out[o.name] += 1
            continue
        xmin, ymin, xmax, ymax = o.corners
        # xmin = xmax is one pixel by the letter of VOC, and a slip of the mouse in fact.
        x0, y0 = (xmin - 1, ymin - 1) if from_one else (xmin, ymin)
        inside = max(x0, 0.0), max(y0, 0.0), min(xmax, width), min(ymax, height)
        if xmax <= xmin or ymax <= ymin or inside[0] >= inside[2] or inside[1] >= inside[3]:
            report.dropped.append(f"{stem}: {o.name} {o.corners} in {width}x{height}")
            continue
        report.clipped += inside != (x0, y0, xmax, ymax)
        report.difficult += o.difficult
        report.boxes[o.name] += 1
        box = [inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1]]
        annotations.append(
            {
                "image_id": index,
                "category_id": report.classes.index(o.name) + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(o.difficult),
            }
        )
    report.without_boxes += not annotations
    return image, annotations


def _splits(files: Source, folder: str, stems: list[str]) -> dict[str, list[str]]:
    lists = files.folder(f"{folder}ImageSets/Main", ".txt")
    splits = {
        split: files.read(lists[split]).decode().split() for split in SPLITS if split in lists
    }
    return splits or {"all": stems}


def _write_json(target: Path, split: str, entries: list[tuple[dict, list]], classes) -> None:
    annotations = [a for _, boxes in entries for a in boxes]
    content = {
        "images": [image for image, _ in entries],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
    }
    path = target / "annotations" / f"instances_{split}.json"
    write_beside(path, json.dumps(content).encode())
