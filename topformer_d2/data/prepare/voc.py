"""PASCAL-VOC-style folders (one XML of boxes an image) to COCO JSON."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import InputError
from ...files import locked_output, write_beside, write_json
from .dataset import in_threads
from .opening import DAMAGED
from .source import Source
from .voc_files import VocObject, find_root, read_splits, read_xml


@dataclass
class VocReport:
    """What a preparation did.

    Attributes:
        problems_file: where the problems go when they are many.
        classes: as the JSON files number them, from 1.
        images: {split: images in its JSON}.
        boxes: {class: boxes}, over all images.
        without_boxes: images without an object; they are kept.
        without_size: images whose XML has no <size>, or one of 0: their own size is taken.
        unlisted: XMLs of images that are in no split.
        origin: how coordinates were read.
        difficult: boxes marked so; they become crowds, which neither reward nor punish.
        clipped: boxes cut to their image.
        dropped: one line for each box of no area inside its image.
        left_out: {name: objects} of classes that were not asked for.
        problems: one line for each image that could not be prepared.
    """

    problems_file: Path
    classes: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    boxes: Counter = field(default_factory=Counter)
    without_boxes: int = 0
    without_size: int = 0
    unlisted: int = 0
    origin: str = ""
    difficult: int = 0
    clipped: int = 0
    dropped: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Text for the terminal, without the problems."""
        lines = [f"{split}: {count} images" for split, count in self.images.items()]
        lines.append(f"boxes: {', '.join(f'{n} {self.boxes[n]}' for n in self.classes)}")
        lines.append(f"coordinates: {self.origin}")
        if self.without_boxes:
            lines.append(f"images without an object, kept: {self.without_boxes}")
        if self.without_size:
            lines.append(f"XMLs without the image's size, taken from it: {self.without_size}")
        if self.unlisted:
            lines.append(f"XMLs of images that no list names, left out: {self.unlisted}")
        if self.difficult:
            lines.append(f"boxes marked difficult, now crowds: {self.difficult}")
        if self.clipped:
            lines.append(f"boxes that reached out of their image, now clipped: {self.clipped}")
        if self.dropped:
            lines.append(f"boxes of no area or outside their image, dropped: {len(self.dropped)}")
            lines += [f"  {line}" for line in self.dropped[:5]]
        if self.left_out:
            lines.append(f"objects of other classes, left out: {dict(self.left_out)}")
        return "\n".join(lines)


def prepare_voc(
    sources: Sequence[str],
    target: str,
    classes: Sequence[str] | None = None,
    *,
    max_gib: float | None = None,
) -> VocReport:
    """Write images/ and annotations/instances_{split}.json below `target`.

    Boxes follow VOC's convention, pixels counted from 1 and both ends inclusive, unless one begins
    in [0, 1): then all are edges counted from 0. A second call writes only the images that are
    missing or differ.

    Args:
        sources: the folders, .zip and .tar with Annotations/, JPEGImages/ and ImageSets/Main/, all
            of one dataset. Each list of images there is a split (VOC's lists by class are not);
            without any, all images go into the split "all".
        target: folder of the dataset.
        classes: names in the order of their ids; None = all that occur, sorted.
        max_gib: GiB that each file of a source may have; None = the limits of Source.

    Raises:
        InputError: a source is not there, they have no such folder, nothing in it can be used, or
            another process writes to `target`.
    """
    if classes is not None and len(set(classes)) < len(classes):
        raise InputError(f"classes has a name twice: {list(classes)}; name each once")
    files = Source(sources, max_gib=max_gib)
    root = find_root(files)
    with locked_output(target, "preparing VOC boxes"):
        return _prepare(files, root, target, classes)


def _prepare(files: Source, root: str, target: str, classes: Sequence[str] | None) -> VocReport:
    report = VocReport(Path(target) / "problems.txt")
    names = files.folder("Annotations", ".xml", root=root, problems=report.problems)
    images = files.folder("JPEGImages", root=root, problems=report.problems)
    splits = read_splits(files, root, report.problems) or {"all": sorted(names)}
    report.unlisted = len(names.keys() - set().union(*splits.values()))
    for split, stems in splits.items():
        missing = [stem for stem in stems if stem not in names]
        if missing:
            problem = f"{split}: {len(missing)} without an XML, {missing[0]} among them"
            report.problems.append(problem)

    objects, claimed = _read_annotations(files, names, images, classes, report)
    sizes = _copy_images(files, {stem: images[stem] for stem in objects}, claimed, target, report)
    file_names = {stem: PurePosixPath(images[stem]).name for stem in sizes}
    entries = _coco_entries(file_names, sizes, objects, report)
    for split, stems in splits.items():
        chosen = [entries[stem] for stem in stems if stem in entries]
        report.images[split] = len(chosen)
        _write_json(Path(target), split, chosen, report.classes)
        if not chosen:
            report.problems.append(f"{split}: 0 images, of {len(stems)} in its list")
    if classes is not None:
        bare = [name for name in classes if not report.boxes[name]]
        report.problems += [f"{name!r} was asked for, and no box has it" for name in bare]
    return report


def _read_annotations(
    files: Source,
    names: dict[str, str],
    images: dict[str, str],
    classes: Sequence[str] | None,
    report: VocReport,
) -> tuple[dict[str, list[VocObject]], dict[str, tuple[int, int] | None]]:
    """{stem: objects} and {stem: size} of the XMLs that have an image, and the report's classes.

    Raises:
        InputError: none can be used, none has an object of `classes`, or all boxes are in
            fractions of their image.
    """
    objects: dict[str, list[VocObject]] = {}
    claimed: dict[str, tuple[int, int] | None] = {}
    for stem, name in sorted(names.items()):
        try:
            objects[stem], claimed[stem] = read_xml(files.read(name))
        except (ET.ParseError, LookupError, ValueError, OverflowError, *DAMAGED) as e:
            report.problems.append(f"{name}: {e}")
        if stem not in images:
            report.problems.append(f"{name} has no image")
            objects.pop(stem, None)
    found = {o.name for boxes in objects.values() for o in boxes}
    report.classes = sorted(found) if classes is None else list(classes)
    if not objects:
        problems = "; ".join(report.problems[:3])
        raise InputError(
            f"{files}: none of {len(names)} images can be used "
            f"({len(report.problems)} problems: {problems})"
        )
    if not found & set(report.classes):
        raise InputError(f"{files} has no object of {report.classes}; it has {sorted(found)}")
    if all(0 <= c <= 1 for boxes in objects.values() for o in boxes for c in o.corners):
        raise InputError(
            f"{files}: all coordinates of boxes are within 0..1, fractions of the image: VOC's are "
            "pixels; multiply them by the image's width and height"
        )
    return objects, claimed


def _copy_images(
    files: Source,
    names: dict[str, str],
    claimed: dict[str, tuple[int, int] | None],
    target: str,
    report: VocReport,
) -> dict[str, tuple[int, int]]:
    """Copy images that can be read to the end; returns {stem: (width, height)}."""

    def copy(stem: str) -> Any:
        out = Path(target) / "images" / PurePosixPath(names[stem]).name
        try:
            content, image = files.read_image(names[stem])
        except ValueError as e:
            return str(e)
        if claimed[stem] not in (None, image.size):
            return image.size
        if not out.is_file() or out.read_bytes() != content:
            write_beside(out, content)
        return image.size

    sizes, others = {}, []
    with in_threads(copy, list(names), "images", "image") as outcomes:
        for stem, outcome in zip(names, outcomes, strict=True):
            if isinstance(outcome, str):
                report.problems.append(outcome)
            elif claimed[stem] not in (None, outcome):
                others.append(f"{names[stem]} is {outcome}, <size> of its XML is {claimed[stem]}")
            else:
                sizes[stem] = outcome
                report.without_size += claimed[stem] is None
    if others:
        report.problems += others
        report.problems.append(
            f"{len(others)} of {len(names)} images have another size than their XML says, so that "
            "their boxes may be wrong: they are left out; name the images that were annotated, or "
            "correct <size>"
        )
    if others and not sizes:
        raise InputError(f"{files}: no image can be used: {report.problems[-1]}; {others[0]}")
    return sizes


def _coco_entries(
    file_names: dict[str, str],
    sizes: dict[str, tuple[int, int]],
    objects: dict[str, list[VocObject]],
    report: VocReport,
) -> dict[str, tuple[dict, list]]:
    """{stem: (the "images" entry, the "annotations" without their ids)} of the stems of `sizes`."""
    first = next((s for s, b in objects.items() if any(o.begins_at_zero() for o in b)), None)
    report.origin = "pixels from 1, both ends inclusive, as VOC has them"
    if first is not None:
        report.origin = f"edges from 0, since a box of {first} begins there"
    entries = {}
    for index, (stem, size) in enumerate(sorted(sizes.items()), start=1):
        image = {"id": index, "file_name": file_names[stem], "width": size[0], "height": size[1]}
        boxes = _coco_boxes(image, stem, objects[stem], first is None, report)
        report.without_boxes += not boxes
        entries[stem] = image, boxes
    return entries


def _coco_boxes(
    image: dict, stem: str, objects: list[VocObject], from_one: bool, report: VocReport
) -> list[dict]:
    width, height = image["width"], image["height"]
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
                "image_id": image["id"],
                "category_id": report.classes.index(o.name) + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(o.difficult),
            }
        )
    return annotations


def _write_json(
    target: Path, split: str, entries: list[tuple[dict, list]], classes: Sequence[str]
) -> None:
    annotations = [a for _, boxes in entries for a in boxes]
    content = {
        "images": [image for image, _ in entries],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
    }
    write_json(str(target / "annotations" / f"instances_{split}.json"), content)
