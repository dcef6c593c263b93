"""Making the records of a dataset: from labels of any format to label maps and boxes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...errors import InputError, did_you_mean, printable, shortened
from ...files import make_folder
from ...logs import get_logger
from ...tasks import BOXES, PIXELS
from ..formats.contract import BACKGROUND, LabelledImage, Labelling, Problem
from ..formats.parallel import map_in_processes
from .cache import LABELS, only_user
from .classes import MOST_CLASSES, value_of
from .matching import ImageFolder, shared_end
from .rendering import Item, Rendered, Renderer
from .source import LabelSource
from .splits import choose
from .unknown import describe_unknown

logger = get_logger(__name__)


def make_records(dataset: LabelSource) -> dict[str, list]:
    """The records and the problems of a dataset, as JSON has them; label maps are written.

    Raises:
        InputError: no label has an image.
    """
    problems: list[Problem] = []
    matched: dict[str, dict[str, LabelledImage]] = {}
    used = {BACKGROUND}
    ids: dict[str, str] = {}
    for task in dataset.entry.tasks:
        labelling = dataset.labelling(task)
        problems += labelling.problems
        used |= {*labelling.names}
        ids |= labelling.ids
        matched[task] = _match(dataset, task, labelling, problems)
    problems += _never_seen(dataset, used, ids)
    # Where there are boxes, their files list the images.
    chosen = choose([*matched[dataset.entry.tasks[-1]]], dataset.entry, dataset.where)
    found: dict[str, dict[str, Rendered]] = {}
    for task, images in matched.items():
        renderer = _renderer(dataset, task)
        make_folder(renderer.folder)
        items = [Item(file, images[file]) for file in chosen if file in images]
        what = f"{dataset.name}: reading labels"
        rendered = list(map_in_processes(renderer, items, what, least=50))
        problems += [r.problem for r in rendered if r.problem]
        pairs = zip(items, rendered, strict=True)
        unknown = {item.labels.origin(r.file): r.unknown for item, r in pairs if r.unknown}
        classes = renderer.pixels or renderer.boxes
        assert classes is not None
        problems += describe_unknown(unknown, classes, renderer.format, dataset.where)
        found[task] = {r.file: r for r in rendered if not r.problem and not r.unknown}
    with only_user(dataset.cache) as is_only:
        if is_only:
            _remove_others(dataset, {r.label for part in found.values() for r in part.values()})
    # The labels of pixels and of objects may be the same files.
    problems = list(dict.fromkeys(problems))
    records = _join(dataset, found)
    _add_ids(records, matched[dataset.entry.tasks[-1]])
    return {"records": records, "problems": [list(each) for each in problems]}


def _never_seen(dataset: LabelSource, used: set[str], ids: Mapping[str, str]) -> list[Problem]:
    """Names of LABEL_MAP and IGNORE that no label has, as a misspelt one.

    Raises:
        InputError: a number or a colour is there, and labels have names alone, or other ids. A name
            may be one that another split has; a number is none of theirs either.
    """
    entry, path = dataset.entry, dataset.entry.path(dataset.entry.tasks[0])
    keys = {**dict.fromkeys(entry.label_map, "LABEL_MAP"), **dict.fromkeys(entry.ignore, "IGNORE")}
    # Labels that are called "1" and "2" may be fewer in one split than in another.
    are_numbers = not ids and any(value_of(name) is not None for name in used)
    for label, key in keys.items():
        if value_of(label) is None or label in used or label in ids:
            continue
        if dataset.has_values or are_numbers:
            continue
        known = [f"{i} ({name})" for i, name in ids.items()] or sorted(used)
        raise InputError(
            f"{dataset.where}.{key} has {label!r}, which is no label of {path}: they are "
            f"{shortened(known)}. Write a label's name{' or its id' if ids else ''}"
        )
    return [
        Problem(
            "label never seen",
            path,
            f"{dataset.where}.{key} has {label!r}, which no label is called"
            f"{did_you_mean(label, sorted(used))}; they are {shortened(sorted(used))}",
        )
        for label, key in keys.items()
        if label not in used and value_of(label) is None
    ]


def _match(
    dataset: LabelSource, task: str, labelling: Labelling, problems: list[Problem]
) -> dict[str, LabelledImage]:
    """{file of an image below IMAGES: its labels}."""
    labels = sorted({file for each in labelling.images for file in each.files})
    images = ImageFolder(dataset.entry.images, labels)
    matched: dict[str, LabelledImage] = {}
    missing: list[LabelledImage] = []
    for each in labelling.images:
        source = each.origin(dataset.entry.path(task))
        try:
            file = images.find(each.image)
        except InputError as e:
            problems.append(Problem("label without image", source, f"{source}: {e}"))
            continue
        if file is None:
            missing.append(each)
        elif file not in matched:
            matched[file] = each
        elif (known := matched[file]).image != each.image and (
            more := shared_end(each.image, file) - shared_end(known.image, file)
        ):
            # Of images of one name in two folders, only one is there.
            matched[file] = each if more > 0 else known
            missing.append(known if more > 0 else each)
        else:
            message = f"{source}: the image {file} has labels twice; the first are used"
            problems.append(Problem("image labelled twice", source, message))
    if not matched:
        what = f"{dataset.where}: {dataset.entry.path(task)} has"
        if not missing:
            raise InputError(f"{what} no label that can be used")
        raise InputError(
            f"{what} labels of {missing[0].image!r} and {len(missing) - 1} more images, of which "
            f"{os.path.abspath(dataset.entry.images)} has none; it has {images.files[0]!r}. Is "
            "IMAGES the folder of these images?"
        )
    for each in missing:
        source = each.origin(dataset.entry.path(task))
        message = f"{source}: the image {each.image!r} is not in {dataset.entry.images}"
        problems.append(Problem("listed image missing", source, message))
    return matched


def _renderer(dataset: LabelSource, task: str) -> Renderer:
    labelling, kind = dataset.labelling(task), dataset.format(task)
    classes, ignored = dataset.classes(task), dataset.ignore_value
    if task == PIXELS.name and len(classes.names) > MOST_CLASSES:
        raise InputError(
            f"{dataset.where}: the labels have {len(classes.names)} classes of pixels, and label "
            f"maps of 8 bits hold {MOST_CLASSES}: make several one by LABEL_MAP, or leave some "
            "out by IGNORE"
        )
    folder = os.path.join(dataset.cache, LABELS)
    common = (dataset.entry.images, folder, kind, labelling.names)
    if task == BOXES.name:
        return Renderer(*common, boxes=classes, with_outlines=dataset.with_outlines)
    if kind.decode is not None:
        table = classes.table(labelling, ignored, has_colors=kind.has_colors)
        values = labelling.values
        return Renderer(*common, pixels=classes, table=table, values=values, ignore_value=ignored)
    index = classes.find(BACKGROUND)
    background = ignored if index is None or index < 0 else index
    what = "not learnt" if background == ignored else f"of class {background}, {BACKGROUND!r}"
    logger.info("%s: pixels that no shape covers are %s", dataset.where, what)
    return Renderer(*common, pixels=classes, ignore_value=ignored, background=background)


def _join(
    dataset: LabelSource, found: Mapping[str, Mapping[str, Rendered]]
) -> list[dict[str, Any]]:
    """Of the images with boxes, if there are any, each with its label map."""
    pixels, boxes = found.get(PIXELS.name, {}), found.get(BOXES.name)
    listing = pixels if boxes is None else boxes
    records = []
    without: list[str] = []
    for file in sorted(listing):
        record: dict[str, Any] = {"file": file, "size": list(listing[file].size)}
        if boxes is not None:
            record["boxes"] = [list(box) for box in boxes[file].boxes]
            if dataset.with_outlines:
                record["outlines"] = list(boxes[file].outlines)
        if file in pixels:
            record |= {"label": pixels[file].label, "label_bytes": pixels[file].num_bytes}
        elif PIXELS.name in found:
            without.append(file)
        records.append(record)
    if without:
        logger.warning(
            "%s: %d of %d images have no pixel label and are used for their boxes alone, %s "
            "among them",
            *(dataset.where, len(without), len(records), printable(without[0], newlines=True)),
        )
    return records


def _add_ids(records: list[dict[str, Any]], labels: Mapping[str, LabelledImage]) -> None:
    """Give the records the numbers by which the labels call their images, if all have one."""
    ids = [labels[record["file"]].id for record in records]
    if None not in ids and len({*ids}) == len(ids):
        for record, number in zip(records, ids, strict=True):
            record["id"] = number


def _remove_others(dataset: LabelSource, names: set[str]) -> None:
    """Remove label maps of files that have changed since, and what a killed process left."""
    with os.scandir(os.path.join(dataset.cache, LABELS)) as entries:
        for entry in entries:
            if entry.name not in names and not entry.is_dir(follow_symlinks=False):
                os.remove(entry.path)
