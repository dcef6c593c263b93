"""PASCAL Context: VOC2010's images with the masks of PASCAL in Detail (trainval_merged.json)."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from pycocotools import mask as rle
from tqdm.auto import tqdm

from ...errors import InputError, printable
from ..categories import load_categories
from .dataset import Dataset, Split, pair_up
from .source import Source

_JSON = "trainval_merged.json"
# The file has 590 MB and the rest of it (parts, boundaries, occlusion) is the larger part.
_KEYS = {"images", "categories", "annos_segmentation"}
_KEYS |= {"image_id", "file_name", "width", "height", "phase"}
_KEYS |= {"category_id", "segmentation", "size", "counts"}


@dataclass
class _Masks:
    """The annotations of one image, in the file's order."""

    size: tuple[int, int]  # (height, width)
    objects: list[tuple[int, dict]]  # (category id, RLE)


def _find(files: Source, folder: Path) -> dict[str, Split]:
    jsons = files.find(f"({_JSON})")
    if not jsons:
        return {}
    labels_of = _read_json(files, jsons[_JSON])
    images = _in_voc2010(files, "JPEGImages", ".jpg")
    lists = _in_voc2010(files, "ImageSets/Main", ".txt")
    found = {}
    for split, labels in labels_of.items():
        found[split] = pair_up(
            {stem: images[stem] for stem in labels if stem in images},  # VOC2010 has more
            labels,
            folder / "JPEGImages",
            [folder / f"annotations_detectron2/context{n}/{split}" for n in (59, 60)],
        )
        if split in lists:
            listed = [s for line in files.read_lines(lists[split]) for s in line.split()]
            left_out = sorted(set(listed) - labels.keys())
            found[split].notes.append(
                f"images of ImageSets/Main/{split}.txt that {_JSON} lacks: {_count(left_out)}"
            )
        bare = [stem for stem, masks in labels.items() if not masks.objects]
        found[split].notes.append(f"images without an annotation: {_count(bare)}")
    return found


def _count(stems: list[str]) -> str:
    """Such as "7 (a, b, c, d, e, ..)"."""
    some = [*stems[:5], *([".."] if len(stems) > 5 else [])]
    return f"{len(stems)} ({', '.join(some)})" if stems else "none"


def _in_voc2010(files: Source, folder: str, extension: str) -> dict[str, str]:
    """Files of VOC2010, which may be the source itself; VOC2012 beside it has the same stems."""
    return files.folder(f"VOC2010/{folder}", extension) or files.folder(folder, extension)


def _read_json(files: Source, name: str) -> dict[str, dict[str, _Masks]]:
    """{"train" or "val": {stem: masks}}; images of other phases have none and are left out."""
    tqdm.write(f"reading {printable(name)}")
    try:
        content = json.loads(
            files.read(name), object_hook=lambda d: {k: d[k] for k in _KEYS & d.keys()}
        )
        ids = {c["category_id"] for c in content["categories"]}
        objects = defaultdict(list)
        for entry in content["annos_segmentation"]:
            objects[entry["image_id"]].append((entry["category_id"], entry["segmentation"]))
        splits: dict[str, dict[str, _Masks]] = {split: {} for split in PASCAL_CONTEXT.expected}
        for image in content["images"]:
            if image["phase"] in splits:
                masks = _Masks((image["height"], image["width"]), objects[image["image_id"]])
                splits[image["phase"]][PurePosixPath(image["file_name"]).stem] = masks
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise InputError(
            f"{name} is cut off or is not PASCAL in Detail's: {type(e).__name__}: {e}"
        ) from e
    if ids != set(load_categories("pascal_context59").source_ids):
        raise InputError(
            f"{name} has {len(ids)} categories, and not the 59 of {_JSON} of PASCAL in Detail"
        )
    return splits


def _decode(_: Source, masks: _Masks) -> np.ndarray:
    """Later annotations over earlier ones; what none covers is 0, the background."""
    if not all(isinstance(s, int) and 0 < s < 1 << 14 for s in masks.size):
        raise ValueError(f"{_JSON} has height and width {masks.size}")
    label = np.zeros(masks.size, np.uint16)
    for category, segmentation in masks.objects:
        try:
            if tuple(segmentation["size"]) != label.shape:  # before memory is taken for it
                raise ValueError(
                    f"a mask of category {category} is {tuple(segmentation['size'])}, not "
                    f"{label.shape}"
                )
            mask = rle.decode(segmentation)
        except (KeyError, TypeError) as e:
            raise ValueError(f"a mask of category {category} is not an RLE: {e}") from e
        label[mask.astype(bool)] = category
    return label


PASCAL_CONTEXT = Dataset(
    root="VOC2010",
    # The paper has 4,998 and 5,105; this JSON lacks three of VOC2010's images.
    expected={"train": 4996, "val": 5104},
    find=_find,
    wanted=f"VOC2010/JPEGImages/ with {_JSON} (each as a `source`)",
    categories=("pascal_context59", "pascal_context60"),
    ignored_ids=(0,),
    decode=_decode,
    look_alikes=(
        (".mat", f"these are the masks of 459 classes, which differ; the recipe uses {_JSON}"),
        (".pth", f"these are pickles of another project; the recipe uses {_JSON}"),
    ),
)
