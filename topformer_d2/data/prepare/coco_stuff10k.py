"""COCO-Stuff-10k v1.1: images with .mat files of labels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ...errors import InputError
from .dataset import Dataset, Split, pair_up
from .mat_file import read_mat
from .source import Source

_NUM_NAMES = 182  # ids 1 to 182; v1.0 has 172, and 1 is unlabeled there


def _find(files: Source, folder: Path) -> dict[str, Split]:
    images = files.folder("images", ".jpg", ".jpeg")
    labels = files.folder("annotations", ".mat")
    lists = files.folder("imageLists", ".txt")
    if not labels:
        return {}
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
    try:
        variables = read_mat(files.read(name))
        ids, names = variables["S"].values, variables["names"]
    except KeyError as e:
        raise ValueError(f"{name} has no variable {e}") from e
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e
    num_names = math.prod(names.shape)
    if num_names == 172:
        raise InputError(
            f"{name} is of COCO-Stuff-10k v1.0, whose ids differ; the recipe uses "
            "cocostuff-10k-v1.1.zip"
        )
    if num_names != _NUM_NAMES:
        raise ValueError(f"{name} has {num_names} names instead of {_NUM_NAMES}")
    if ids is None:
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
