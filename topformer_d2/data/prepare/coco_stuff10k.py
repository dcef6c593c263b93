"""COCO-Stuff-10k v1.1: images with .mat files of labels."""

from __future__ import annotations

import importlib
import io
import math
from pathlib import Path

import numpy as np

from ...errors import InputError
from .dataset import Dataset, Split, pair_up
from .source import Source

_NUM_NAMES = 182  # ids 1 to 182; v1.0 has 172, and 1 is unlabeled there

_MAX_VALUES = 1 << 26  # of one variable; the largest image has fewer than 2^19 pixels


def _scipy_io():
    try:
        return importlib.import_module("scipy.io")
    except ImportError as e:
        raise InputError(
            "the labels of COCO-Stuff-10k are .mat files, which scipy reads: pip install scipy"
        ) from e


def _find(files: Source, folder: Path) -> dict[str, Split]:
    images = files.folder("images", ".jpg", ".jpeg")
    labels = files.folder("annotations", ".mat")
    lists = files.folder("imageLists", ".txt")
    if not labels:
        return {}
    _scipy_io()  # said once and before anything is written
    found = {}
    for split in COCO_STUFF_10K.expected:
        if split not in lists:
            raise InputError(f"{files} has no imageLists/{split}.txt, the images of that split")
        stems = [s for line in files.read_lines(lists[split]) for s in line.split()]
        found[split] = pair_up(
            {s: images[s] for s in stems if s in images},
            {s: labels[s] for s in stems if s in labels},
            folder / "images",
            [folder / "annotations_detectron2" / split],
        )
        found[split].problems += [
            f"{s} of imageLists/{split}.txt has neither image nor label"
            for s in stems
            if s not in images and s not in labels
        ]
    return found


def _decode(files: Source, name: str) -> np.ndarray:
    scipy_io, content = _scipy_io(), files.read(name)
    try:
        for variable, shape, _ in scipy_io.whosmat(io.BytesIO(content)):
            if math.prod(shape) > _MAX_VALUES:
                raise ValueError(f"{variable} claims to have the shape {shape}")
        variables = scipy_io.loadmat(io.BytesIO(content), variable_names=["S", "names"])
        ids, names = variables["S"], variables["names"]
    except Exception as e:  # a damaged .mat raises anything, from TypeError to MemoryError
        raise ValueError(f"{name}: {type(e).__name__}: {e}") from e
    if names.size == 172:
        raise InputError(
            f"{name} is of COCO-Stuff-10k v1.0, whose ids differ; the recipe uses "
            "cocostuff-10k-v1.1.zip"
        )
    if names.size != _NUM_NAMES:
        raise ValueError(f"{name} has {names.size} names instead of {_NUM_NAMES}")
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "uif":
        raise ValueError(f"{name}: S is not an array of numbers")
    # Stored as bytes or as doubles, as MATLAB chose when it saved.
    if ids.size == 0 or not ((ids >= 0) & (ids <= _NUM_NAMES) & (ids == np.floor(ids))).all():
        raise ValueError(f"{name}: S holds something other than the ids 0 to {_NUM_NAMES}")
    return ids.astype(np.uint8)


COCO_STUFF_10K = Dataset(
    root="coco/coco_stuff_10k",
    expected={"train": 9000, "test": 1000},
    find=_find,
    wanted="images/*.jpg with annotations/*.mat and imageLists/{train,test}.txt",
    categories=("coco_stuff10k",),
    ignored_ids=(0,),
    decode=_decode,
)
