"""Datasets that come as folders of images and folders of label PNGs of the same stems."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .dataset import Dataset, Split, images_in, pair_up
from .source import Source


@dataclass(frozen=True)
class _Folders:
    """The folders of one split: endings of paths in the source, and paths below the dataset's."""

    images: str
    labels: str
    images_out: str
    labels_out: str
    image_extensions: tuple[str, ...] = (".jpg", ".jpeg")
    annotations: str = ""  # folder and name of a COCO JSON on the same images, copied if there


def _find(splits: dict[str, _Folders], files: Source, folder: Path) -> dict[str, Split]:
    found = {}
    for name, split in splits.items():
        images = files.folder(split.images, *split.image_extensions)
        labels = files.folder(split.labels, ".png")
        jsons = files.find(f"({split.annotations})") if split.annotations else {}
        if not images and not labels and not jsons:
            continue
        images_out, labels_out = folder / split.images_out, folder / split.labels_out
        if images or labels:
            found[name] = pair_up(images, labels, images_out, [labels_out])
        else:  # boxes for what an earlier run has prepared
            found[name] = pair_up({}, images_in(labels_out), images_out, [labels_out])
            if not found[name].pairs:
                found[name].problems = ["boxes and no image with a label: are archives missing?"]
        found[name].copies = [(json, folder / key) for key, json in jsons.items()]
    return found


def _camvid(split: str) -> _Folders:
    out = f"images/{split}", f"annotations_detectron2/{split}"
    return _Folders(split, f"{split}annot", *out, image_extensions=(".png", ".jpg", ".jpeg"))


def _ade20k(folder: str) -> _Folders:
    images = f"images/{folder}"
    return _Folders(images, f"annotations/{folder}", images, f"annotations_detectron2/{folder}")


def _coco_stuff164k(folder: str) -> _Folders:
    out = folder, f"stuffthingmaps_detectron2/{folder}"
    return _Folders(folder, folder, *out, annotations=f"annotations/instances_{folder}.json")


CAMVID = Dataset(
    root="camvid",
    expected={"train": 367, "val": 101, "test": 233},
    find=partial(_find, {split: _camvid(split) for split in ("train", "val", "test")}),
    wanted="train/ with trainannot/, val/ with valannot/, test/ with testannot/",
    categories=("camvid",),
    ignored_ids=(11,),
    look_alikes=(("701_StillsRaw", "this is Cambridge's original with 32 classes in colour"),),
)

ADE20K = Dataset(
    root="ADEChallengeData2016",
    expected={"train": 20210, "val": 2000},
    find=partial(_find, {"train": _ade20k("training"), "val": _ade20k("validation")}),
    wanted="images/{training,validation}/ with annotations/{training,validation}/",
    categories=("ade20k",),
    ignored_ids=(0,),
    look_alikes=(
        ("_seg.png", "this is the full ADE20K; the recipe uses ADEChallengeData2016.zip"),
    ),
)

COCO_STUFF_164K = Dataset(
    root="coco",
    expected={"train": 118287, "val": 5000},
    find=partial(_find, {s: _coco_stuff164k(f"{s}2017") for s in ("train", "val")}),
    wanted="{train,val}2017/*.jpg with {train,val}2017/*.png, and instances_{train,val}2017.json",
    categories=("coco_stuff164k",),
    ignored_ids=(255,),
    look_alikes=(
        (
            "stuff_",
            "this is stuff_annotations_trainval2017.zip, without things; the recipe uses "
            "stuffthingmaps_trainval2017.zip",
        ),
        (
            "panoptic_",
            "these are panoptic labels of 133 classes; the recipe uses "
            "stuffthingmaps_trainval2017.zip",
        ),
    ),
)
