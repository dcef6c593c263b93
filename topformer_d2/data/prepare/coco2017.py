"""COCO 2017's images and boxes in Detectron2's layout: nothing to convert, everything to check."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np

from .dataset import Dataset, Pair, Split, images_in, match
from .source import DAMAGED, Source


def _find(files: Source, folder: Path) -> dict[str, Split]:
    found = {}
    for split in COCO_2017.expected:
        images = files.folder(f"{split}2017", ".jpg", ".jpeg")
        images_out = folder / f"{split}2017"
        json_out = folder / "annotations" / f"instances_{split}2017.json"
        json_file = files.find(f"annotations/({json_out.name})").get(json_out.name)
        if not images and not json_file:
            continue
        sizes = {}
        try:
            if json_file:
                sizes = _read_sizes(files.read(json_file))
            elif json_out.is_file():  # an earlier run's
                sizes = _read_sizes(json_out.read_bytes())
        except (KeyError, TypeError, ValueError, OSError, *DAMAGED) as e:
            problem = f"{json_file or json_out} is cut off or is not COCO's: {type(e).__name__}"
            found[split] = Split([], [f"{problem}: {e}"])
            continue
        matched, problems = match(images, sizes, images_in(images_out))
        pairs = [
            Pair(image, images_out / PurePosixPath(image).name, size, ())
            for image, size in matched.values()
        ]
        found[split] = Split(pairs, problems, copies=[(json_file, json_out)] if json_file else [])
    return found


def _read_sizes(content: bytes) -> dict[str, tuple[int, int]]:
    """{stem: (height, width)} of a JSON's images."""
    return {
        PurePosixPath(image["file_name"]).stem: (int(image["height"]), int(image["width"]))
        for image in json.loads(content)["images"]
    }


def _decode(_: Source, size: tuple[int, int]) -> np.ndarray:
    """A map of nothing, by whose size the image is checked: there are no pixel labels."""
    return np.zeros(size, np.uint8)


COCO_2017 = Dataset(
    root="coco",
    expected={"train": 118287, "val": 5000},
    find=_find,
    wanted="{train,val}2017/*.jpg with annotations/instances_{train,val}2017.json",
    categories=(),
    ignored_ids=(0,),
    decode=_decode,
)
