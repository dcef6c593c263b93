"""The quick inspection before training: the datasets' lists, and samples of the files."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ...errors import InputError, printable, summarize
from ...logs import get_logger
from ...tasks import IMAGES
from ..images import read_label
from ..registered import load_records, spread_evenly
from .findings import Tally, merge_tallies
from .records import Expected, inspect_record
from .sets import (
    SET_WARNINGS,
    count_objects,
    inspect_set,
    inspect_truth,
    note_no_objects,
    note_pixels,
    note_shared,
    unseen_classes,
    unused_images,
)

logger = get_logger(__name__)
T = TypeVar("T")

# Share of the classes that may be in none of a sample of the labels without a word.
_RARE_CLASSES = 0.1


def check_samples(
    cfg: CfgNode, *, train: bool, arguments: str = "...", num_samples: int = 32
) -> None:
    """Inspect some records, spread evenly over each dataset of a config.

    Args:
        cfg: a config that check_config has passed.
        train: look into DATASETS.TRAIN as well as DATASETS.TEST.
        arguments: the config's file and overrides, to name them in the message.
        num_samples: records of each dataset, at most.

    Raises:
        InputError: there is an error among them.
    """
    names = dict.fromkeys([*(cfg.DATASETS.TRAIN if train else ()), *cfg.DATASETS.TEST])
    records = {name: load_records(name) for name in names}
    expected = {name: Expected.from_config(cfg, records[name], name) for name in names}
    # First what the lists say, then samples of the files, then what these say together.
    tally = Tally()
    for name in names:
        inspect_set(name, records[name], expected[name], tally)
        if name in cfg.DATASETS.TEST:
            inspect_truth(name, records[name], expected[name], tally)
    trained = {name: records[name] for name in cfg.DATASETS.TRAIN} if train else {}
    if trained:
        note_shared(trained, records, tally)
    sampled = {}
    for name in names:
        inspect = partial(inspect_record, expected=expected[name])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(inspect, spread_evenly(records[name], num_samples))
            sampled[name] = merge_tallies(found)
        tally.add(sampled[name])
    warnings = _check_learnt(trained, expected, sampled, tally)
    for name in names:
        alone = Tally()
        note_pixels(name, sampled[name].pixels, expected[name], alone, is_whole=False)
        if not any(finding.is_error for finding in tally.findings):
            warnings += [finding.message for finding in alone.findings]
    errors = [finding for finding in tally.findings if finding.is_error]
    # First the one that has the key to add.
    errors.sort(key=lambda finding: finding.kind != "other label values")
    full = f"topformer data check --config-file {arguments}"
    if errors:
        more = f" ({len(errors) - 1} more among {tally.images} samples)" if errors[1:] else ""
        raise InputError(f"{errors[0].message}{more}; {full} shows all")
    for kind in SET_WARNINGS:
        warnings += [finding.message for finding in tally.findings if finding.kind == kind]
    of_classes = [m for m in map(MetadataCatalog.get, names) if m.get(IMAGES.classes_field)]
    # Of images without label PNGs nothing is said: a part of a folder may be labelled.
    for root in dict.fromkeys(m.image_root for m in of_classes if m.get("image_root")):
        if unused := [os.path.basename(path) for path in unused_images(root)]:
            named = summarize(unused, "images")
            warnings.append(f"{root} has images in no class's folder, which are not used: {named}")
    for warning in warnings:
        logger.warning("%s", printable(warning))
    of_files = [finding for finding in tally.findings if finding.kind not in SET_WARNINGS]
    if of_files:
        logger.warning(
            "%d warnings among %d samples of the datasets, the first: %s; %s shows all",
            *(len(of_files), tally.images, printable(of_files[0].message), full),
        )


def _check_learnt(
    trained: dict[str, list[dict]],
    expected: dict[str, Expected],
    sampled: dict[str, Tally],
    tally: Tally,
) -> list[str]:
    """Note training data from which nothing can be learnt; warnings of classes without any.

    Objects are counted in all records. Of labels, more are read where the samples lack a class.
    """
    warnings = []
    of_pixels = [name for name in trained if "sem_seg" in expected[name].tasks]
    if of_pixels:
        what, first = ", ".join(of_pixels), expected[of_pixels[0]]
        pixels = np.sum([sampled[name].pixels for name in of_pixels], axis=0)
        files = [
            record["sem_seg_file_name"]
            for name in of_pixels
            for record in trained[name]
            if record.get("sem_seg_file_name")
        ]
        looked = sum(sampled[name].images for name in of_pixels)
        if unseen_classes(first.label_names, np.flatnonzero(pixels)) and looked < len(files):
            pixels, looked = count_pixels(files)
        all_read = looked >= len(files)
        note_pixels(what, pixels, first, tally, is_whole=all_read)
        missing = unseen_classes(first.label_names, np.flatnonzero(pixels))
        count = len(first.label_names) - np.count_nonzero(pixels[: len(first.label_names)])
        # Rare classes of a long list are often in none of the labels that are looked at.
        if missing and (all_read or count > _RARE_CLASSES * len(first.label_names)):
            warnings.append(
                f"{what}: NO PIXEL of {missing} in {'all' if all_read else 'a sample of'} "
                f"{min(looked, len(files))} training labels, so they cannot be learnt. Are the "
                "classes file and the values of the labels (0, 1, ...) in one order?"
            )
    of_boxes = [name for name in trained if "instances" in expected[name].tasks]
    if of_boxes:
        what, names = ", ".join(of_boxes), expected[of_boxes[0]].object_names
        objects = sum((count_objects(trained[name]) for name in of_boxes), Counter())
        note_no_objects(what, objects, tally)
        missing = unseen_classes(names, objects)
        if missing and objects:
            warnings.append(
                f"{what}: NO OBJECT of {missing} among {sum(objects.values())} training objects, "
                "so they cannot be learnt"
            )
    return warnings


def count_pixels(
    files: Sequence[str], most: int = 512, seconds: float = 5.0
) -> tuple[np.ndarray, int]:
    """(256,) pixels of each label, and the number of files looked at, spread evenly.

    Args:
        files: label PNGs; those that cannot be read are left out.
        most: of them that are looked at.
        seconds: after which no more are.
    """
    chosen = spread_evenly(files, most)
    # In an order in which any beginning is spread as well.
    chosen = [file for start in range(8) for file in chosen[start::8]]
    pixels, looked, end = np.zeros(256, np.int64), 0, time.monotonic() + seconds
    step = 4 * (os.cpu_count() or 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(chosen), step):
            if time.monotonic() > end:
                break
            for counts in pool.map(_count, chosen[start : start + step]):
                pixels += counts
                looked += 1
    return pixels, looked


def _count(file: str) -> np.ndarray:
    try:
        return np.bincount(read_label(file).reshape(-1), minlength=256)
    except InputError:
        return np.zeros(256, np.int64)
