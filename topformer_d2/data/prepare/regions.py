"""Boxes derived from pixel labels, where a dataset has no others: one for each connected region."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ...files import locked_output, write_json
from ..categories import CAMVID_OBJECTS, load_categories
from ..images import read_label
from ..sem_seg import load_image_label_pairs
from .pixel_datasets import Report, prepare_sem_seg

# Smaller regions are mostly what an occluder leaves of an object.
_MIN_PIXELS = 64


def prepare_camvid(
    sources: Sequence[str], root: str, *, max_gib: float | None = None
) -> dict[str, Report]:
    """CamVid's images and labels, and boxes derived from the labels of CAMVID_OBJECTS.

    Arguments, result and errors are those of prepare_sem_seg.
    """
    folder = Path(root) / "camvid"
    with locked_output(folder, "preparing camvid"):
        reports = prepare_sem_seg("camvid", sources, root, max_gib=max_gib)
        _write_boxes(folder, reports)
    return reports


def _write_boxes(folder: Path, reports: dict[str, Report]) -> None:
    names = load_categories("camvid").names
    for split, report in reports.items():
        if not report.total:
            continue
        content = derive_boxes(
            str(folder / "images" / split),
            str(folder / "annotations_detectron2" / split),
            {name: names.index(name) for name in CAMVID_OBJECTS},
            min_pixels=_MIN_PIXELS,
        )
        write_json(str(folder / "annotations" / f"derived_instances_{split}.json"), content)
        report.notes.append(f"{len(content['annotations'])} boxes derived from connected regions")


def derive_boxes(
    image_root: str, label_root: str, labels: dict[str, int], *, min_pixels: int
) -> dict:
    """A COCO JSON's content, with a box around each connected region of some classes.

    Args:
        image_root, label_root: folders of images and of label PNGs with their stems.
        labels: {class: its label}; category ids are 1, 2, ... in this order.
        min_pixels: smaller regions are left out.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, record in enumerate(load_image_label_pairs(image_root, label_root), start=1):
        label = read_label(record["sem_seg_file_name"])
        images.append(
            {
                "id": image_id,
                "file_name": Path(record["file_name"]).name,
                "height": label.shape[0],
                "width": label.shape[1],
            }
        )
        for category_id, value in enumerate(labels.values(), start=1):
            for x, y, width, height, pixels in region_boxes(label == value, min_pixels):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": category_id,
                        "bbox": [x, y, width, height],
                        "area": pixels,
                        "iscrowd": 0,
                    }
                )
    return {
        "info": {"description": "boxes around connected regions of the pixel labels, derived"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(labels, start=1)],
    }


def region_boxes(mask: np.ndarray, min_pixels: int = 1) -> list[tuple[int, int, int, int, int]]:
    """(x, y, width, height, pixels) of each 8-connected region of a mask (H, W) bool.

    Objects that touch share a region; one that another cuts in two has two.

    Args:
        min_pixels: smaller regions are left out.
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    regions = stats[1:]  # the first is what lies outside the mask
    return [tuple(r) for r in regions[regions[:, cv2.CC_STAT_AREA] >= min_pixels].tolist()]
