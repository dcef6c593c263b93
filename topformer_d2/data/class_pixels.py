"""How many pixels each class has in the training data, and weights of the classes by that."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode

from ..errors import InputError
from ..files import file_stamp, is_remote, make_folder, read_json, write_json
from ..tasks import PIXELS
from .config_checks import train_weights
from .folders import CACHE, register_folders
from .formats.parallel import map_in_processes
from .images import read_label
from .registered import load_records

# Below CACHE.
_FILE = "class_pixels.json"


class ClassPixels(NamedTuple):
    """Pixels by class.

    Attributes:
        pixels: (K,) of each class.
        where_present: (K,) labelled pixels of the images that have a pixel of the class.
    """

    pixels: np.ndarray
    where_present: np.ndarray


def count_class_pixels(
    files: Sequence[str], num_classes: int, ignore_value: int, description: str = "counting pixels"
) -> ClassPixels:
    """Count the pixels of label maps, in several processes where they are many.

    Args:
        files: label maps, as read_label takes them.
        num_classes: K.
        ignore_value: the label of pixels that are not counted.
        description: for the progress bar.

    Raises:
        InputError: a file cannot be read, or has a value that is neither a class nor ignored.
    """
    pixels = np.zeros(num_classes, np.int64)
    where_present = np.zeros(num_classes, np.int64)
    read = partial(_count, num_classes, ignore_value)
    for counts, problem in map_in_processes(read, files, description, least=100):
        if problem:
            raise InputError(problem)
        pixels += counts
        where_present += np.where(counts > 0, counts.sum(), 0)
    return ClassPixels(pixels, where_present)


def _count(num_classes: int, ignore_value: int, file: str) -> tuple[np.ndarray, str]:
    """(K,) pixels of a label map, and what is wrong with it."""
    try:
        counts = np.bincount(read_label(file).ravel(), minlength=256)
    except (InputError, OSError) as e:
        return np.zeros(0), str(e) if file in str(e) else f"{file}: {e}"
    wrong = [int(v) for v in counts.nonzero()[0] if v >= num_classes and v != ignore_value]
    if wrong:
        return counts, (
            f"{file} has the value {wrong[0]}; its pixels are of the classes 0 to "
            f"{num_classes - 1}, or {ignore_value}, which is ignored: see `topformer data check`"
        )
    if 0 <= ignore_value < 256:
        counts[ignore_value] = 0
    padded = np.zeros(max(num_classes, 256), np.int64)
    padded[:256] = counts
    return padded[:num_classes], ""


def class_weights(kind: str, counted: ClassPixels) -> list[float]:
    """Weights of the classes, so that the mean weight of a labelled pixel is 1.

    With p the share of a class among the labelled pixels:

    - "inverse_log": 1 / ln(1.02 + p) (ENet, Paszke et al., 2016);
    - "effective_number": 1 / (1 - beta^n) of n pixels (Cui et al., CVPR 2019). Their beta is
      (V - 1) / V, with the volume V of the data; V is a Kth of the labelled pixels here. A fixed
      beta, such as 0.9999, would give as many pixels as images have equal weights;
    - "median_frequency": the median of the frequencies over the class's own, which is its pixels
      over the labelled pixels of the images that have it (Eigen and Fergus, ICCV 2015; SegNet).

    A class without a pixel gets the largest of the others' weights.

    Args:
        kind: one of these.
        counted: by count_class_pixels; the numbers may have a common factor.

    Raises:
        InputError: nothing is labelled.
    """
    pixels = np.asarray(counted.pixels, np.float64)
    if not pixels.sum():
        raise InputError(
            "MODEL.SEM_SEG_LOSS.CLASS_WEIGHTS_FROM needs labelled pixels: those of DATASETS.TRAIN "
            "are all ignored"
        )
    seen = pixels > 0
    shares = pixels[seen] / pixels.sum()
    if kind == "inverse_log":
        weights = 1 / np.log(1.02 + shares)
    elif kind == "effective_number":
        # (1 - 1 / V) ** n of such large numbers is exp(-n / V).
        weights = 1 / -np.expm1(-shares * len(pixels))
    else:
        frequencies = pixels[seen] / np.asarray(counted.where_present, np.float64)[seen]
        weights = np.median(frequencies) / frequencies
    weights /= (shares * weights).sum()
    all_weights = np.full(len(pixels), weights.max())
    all_weights[seen] = weights
    # So many digits survive being written to a config and read again.
    return [float(f"{weight:.9g}") for weight in all_weights]


def count_training_pixels(cfg: CfgNode) -> ClassPixels:
    """Of the config's DATASETS.TRAIN, each with its share by TRAIN_WEIGHTS where those are set.

    The numbers are kept in OUTPUT_DIR/dataset_cache until a label map is another one.

    Raises:
        InputError: as count_class_pixels; or a dataset is not there.
    """
    register_folders(cfg)
    head = cfg.MODEL.SEM_SEG_HEAD
    shares = train_weights(cfg)
    total = ClassPixels(np.zeros(head.NUM_CLASSES), np.zeros(head.NUM_CLASSES))
    for index, name in enumerate(cfg.DATASETS.TRAIN):
        records = load_records(name)
        labelled = [record for record in records if PIXELS.name in record["tasks"]]
        files = [record[PIXELS.record_key] for record in labelled]
        if not files:
            continue
        found = _counted(name, files, head.NUM_CLASSES, head.IGNORE_VALUE, cfg.OUTPUT_DIR)
        # An image of it is drawn so often.
        factor = shares[index] / len(records) if shares else 1
        total = ClassPixels(*(a + factor * b for a, b in zip(total, found, strict=True)))
    return total


def _counted(
    name: str, files: list[str], num_classes: int, ignore_value: int, output: str
) -> ClassPixels:
    """count_class_pixels of a dataset, kept below an output folder."""
    description = f"{name}: counting pixels"
    if not output or is_remote(output):
        return count_class_pixels(files, num_classes, ignore_value, description)
    path = os.path.join(output, CACHE, _FILE)
    made_of = repr((num_classes, ignore_value, *map(file_stamp, files)))
    key = hashlib.sha256(made_of.encode("utf-8", "replace")).hexdigest()
    kept = _read(path)
    try:
        known = kept[name]
        counts = [np.array(known[field], np.int64) for field in ClassPixels._fields]
        if known["key"] == key and all(each.shape == (num_classes,) for each in counts):
            return ClassPixels(*counts)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    found = count_class_pixels(files, num_classes, ignore_value, description)
    kept[name] = {"key": key} | {f: v.tolist() for f, v in found._asdict().items()}
    make_folder(os.path.dirname(path))
    write_json(path, kept)
    return found


def _read(path: str) -> dict:
    """What is kept; empty where there is none, or it is damaged."""
    if not os.path.isfile(path):
        return {}
    try:
        kept = read_json(path)
    except (InputError, OSError):
        return {}
    return kept if isinstance(kept, dict) else {}
