"""COCO 2017's images and boxes in Detectron2's layout: nothing to convert, everything to check."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from ...files import parse_json
from .dataset import Dataset, Pair, Split, images_in, match
from .opening import DAMAGED
from .source import Source


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
                sizes = _read_sizes(files.read(json_file), json_file)
            elif json_out.is_file():  # an earlier run's
                sizes = _read_sizes(json_out.read_bytes(), str(json_out))
        except (KeyError, TypeError, ValueError, OverflowError, OSError, *DAMAGED) as e:
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


def _read_sizes(content: bytes, name: str) -> dict[str, tuple[int, int]]:
    """{stem: (height, width)} of a JSON's images."""
    return {
        PurePosixPath(image["file_name"]).stem: (int(image["height"]), int(image["width"]))
        for image in parse_json(content, name)["images"]
    }


def _decode(_: Source, size: tuple[int, int]) -> np.ndarray:
    """A map of nothing, by whose size the image is checked: there are no pixel labels."""
    if min(size) < 1 or max(size) >= 1 << 31:
        raise ValueError(f"its JSON has height and width {size}")
    return np.broadcast_to(np.uint8(0), size)  # takes no memory, whatever the JSON claims


COCO_2017 = Dataset(
    root="coco",
    expected={"train": 118287, "val": 5000},
    find=_find,
    wanted="{train,val}2017/*.jpg with annotations/instances_{train,val}2017.json",
    categories=(),
    ignored_ids=(0,),
    decode=_decode,
)
