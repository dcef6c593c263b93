"""Cityscapes: leftImg8bit and gtFine, as Detectron2's builtin loader reads them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...files import parse_json
from .dataset import Dataset, Pair, Split, decode_png, match
from .source import Source

_IMAGE = "_leftImg8bit.png"
_LABEL = "_gtFine_labelIds.png"
# Detectron2's loader opens the polygons for the size and asserts that the instances are there.
_COMPANIONS = (_LABEL, "_gtFine_instanceIds.png", "_gtFine_polygons.json")


def _find(files: Source, folder: Path) -> dict[str, Split]:
    found = {}
    for split in CITYSCAPES.expected:
        images = _frames(files, f"leftImg8bit/{split}", _IMAGE)
        annotations = {e: _frames(files, f"gtFine/{split}", e) for e in _COMPANIONS}
        labels = annotations[_LABEL]
        if not images and not labels:
            continue
        standing = {
            f"{path.parent.name}/{path.name.removesuffix(_IMAGE)}": str(path)
            for path in (folder / "leftImg8bit" / split).glob(f"*/[!.]*{_IMAGE}")
        }
        matched, problems = match(images, labels, standing)
        found[split] = Split([], problems)
        for frame, (image, label) in matched.items():
            missing = [e for e in _COMPANIONS if frame not in annotations[e]]
            if missing:
                problems += [f"{label} has no {frame.split('/')[1]}{e} beside it" for e in missing]
                continue
            out = str(folder / "gtFine" / split / frame)
            found[split].pairs.append(
                Pair(
                    image,
                    folder / "leftImg8bit" / split / f"{frame}{_IMAGE}",
                    (label, annotations["_gtFine_polygons.json"][frame]),
                    (Path(f"{out}_gtFine_labelTrainIds.png"),),
                    tuple((annotations[e][frame], Path(out + e)) for e in _COMPANIONS),
                )
            )
    return found


def _frames(files: Source, folder: str, ending: str) -> dict[str, str]:
    """{"city/city_sequence_frame": name}."""
    return files.find(rf"{folder}/([^/]+/[^/]+){re.escape(ending)}")


def _decode(files: Source, names: tuple[str, str]) -> np.ndarray:
    label, polygons = names
    ids = decode_png(files, label)
    try:
        content = parse_json(files.read(polygons), polygons)
    except InputError as e:  # one of many files, and no reason to end
        raise ValueError(str(e)) from e
    try:
        size = content["imgHeight"], content["imgWidth"]
    except (KeyError, TypeError) as e:
        raise ValueError(f"{polygons} has no imgHeight and imgWidth") from e
    if size != ids.shape:
        raise ValueError(f"{polygons} is for {size} (height, width), {label} is {ids.shape}")
    return ids


CITYSCAPES = Dataset(
    root="cityscapes",
    expected={"train": 2975, "val": 500, "test": 1525},
    find=_find,
    wanted="leftImg8bit/{train,val,test}/*/ with gtFine/{train,val,test}/*/",
    categories=("cityscapes",),
    ignored_ids=(*range(7), 9, 10, 14, 15, 16, 18, 29, 30),
    decode=_decode,
    look_alikes=(
        ("gtCoarse", "these are the coarse labels; the recipe uses gtFine_trainvaltest.zip"),
        ("train_extra", "these are the extra images; the recipe uses leftImg8bit_trainvaltest.zip"),
    ),
)
