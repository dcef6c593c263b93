"""Registers the datasets that Detectron2 lacks, and completes the metadata of those it has.

Their root is the environment variable DETECTRON2_DATASETS, by default ./datasets; the layouts are
drawn in datasets/README.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from detectron2.data import MetadataCatalog

from .boxes import register_boxes
from .categories import CAMVID_OBJECTS, Categories, load_categories
from .multitask import register_multitask
from .sem_seg import register_sem_seg
from .synthetic import SYNTHETIC_CATEGORIES, SYNTHETIC_OBJECTS


@dataclass(frozen=True)
class _Layout:
    """Where a dataset is below the root; {} stands for the name of the split.

    Attributes:
        images: folder of images.
        labels: folder of label PNGs.
        boxes: COCO JSON.
        command: what prepares it, after `topformer data prepare`.
        splits: as its names end.
    """

    images: str
    command: str
    labels: str = ""
    boxes: str = ""
    splits: tuple[str, ...] = ("train", "val")


_BCCD = _Layout(
    "bccd/images",
    "voc_detection --source BCCD --name bccd",
    boxes="bccd/annotations/instances_{}.json",
)
_CAMVID = _Layout(
    "camvid/images/{}",
    "camvid --source CamVid",
    labels="camvid/annotations_detectron2/{}",
    boxes="camvid/annotations/derived_instances_{}.json",
    splits=("train", "val", "test"),
)
_COCO_STUFF_10K = _Layout(
    "coco/coco_stuff_10k/images",
    "coco_stuff10k --source cocostuff-10k-v1.1.zip",
    labels="coco/coco_stuff_10k/annotations_detectron2/{}",
    splits=("train", "test"),
)
_COCO_2017 = _Layout(
    "coco/{}2017",
    "coco_stuff164k --source train2017.zip --source val2017.zip "
    "--source stuffthingmaps_trainval2017.zip --source annotations_trainval2017.zip",
    labels="coco/stuffthingmaps_detectron2/{}2017",
    boxes="coco/annotations/instances_{}2017.json",
)
_PASCAL_CONTEXT_59, _PASCAL_CONTEXT_60 = (
    _Layout(
        "VOC2010/JPEGImages",
        "pascal_context --source VOCtrainval_03-May-2010.tar --source trainval_merged.json",
        labels=f"VOC2010/annotations_detectron2/context{n}/{{}}",
    )
    for n in (59, 60)
)
_SYNTHETIC = _Layout(
    "synthetic/images/{}",
    "synthetic",
    labels="synthetic/annotations_detectron2/{}",
    boxes="synthetic/annotations/instances_{}.json",
)


def datasets_root() -> str:
    """Where datasets are looked for, as Detectron2 has it."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def _register_all(root: str) -> None:
    for name, layout, things, stuff in (
        ("camvid_sem_seg", _CAMVID, None, load_categories("camvid")),
        ("coco_stuff_10k_sem_seg", _COCO_STUFF_10K, None, load_categories("coco_stuff10k")),
        ("coco_stuff_164k_sem_seg", _COCO_2017, None, load_categories("coco_stuff164k")),
        (
            "pascal_context_59_sem_seg",
            _PASCAL_CONTEXT_59,
            None,
            load_categories("pascal_context59"),
        ),
        (
            "pascal_context_60_sem_seg",
            _PASCAL_CONTEXT_60,
            None,
            load_categories("pascal_context60"),
        ),
        ("synthetic_sem_seg", _SYNTHETIC, None, SYNTHETIC_CATEGORIES),
        ("bccd", _BCCD, load_categories("bccd"), None),
        ("synthetic_boxes", _SYNTHETIC, SYNTHETIC_OBJECTS, None),
        ("coco_2017_multitask", _COCO_2017, _coco_things(), load_categories("coco_stuff164k")),
        ("camvid_multitask", _CAMVID, _camvid_things(), load_categories("camvid")),
        ("synthetic_multitask", _SYNTHETIC, SYNTHETIC_OBJECTS, SYNTHETIC_CATEGORIES),
    ):
        for split in layout.splits:
            _register(f"{name}_{split}", layout, root, split, things, stuff)


def _register(
    name: str,
    layout: _Layout,
    root: str,
    split: str,
    things: Categories | None,
    stuff: Categories | None,
) -> None:
    """One split, with the classes of its boxes, of its pixels, or both."""
    images, labels, boxes = (
        os.path.join(root, template.format(split))
        for template in (layout.images, layout.labels, layout.boxes)
    )
    command = {"prepare_command": f"topformer data prepare {layout.command}"}
    if things and stuff:
        register_multitask(name, boxes, images, labels, things=things, stuff=stuff, **command)
    elif things:
        register_boxes(name, boxes, images, things, **command)
    else:
        register_sem_seg(name, images, labels, stuff, **command)


def _complete_detectron2() -> None:
    """Colours and the command for what Detectron2 registers, whose class names are kept."""
    for name, splits, categories, command in (
        (
            "ade20k_sem_seg",
            ("train", "val"),
            "ade20k",
            "ade20k --source ADEChallengeData2016.zip",
        ),
        (
            "cityscapes_fine_sem_seg",
            ("train", "val", "test"),
            "cityscapes",
            "cityscapes --source leftImg8bit_trainvaltest.zip --source gtFine_trainvaltest.zip",
        ),
    ):
        for split in splits:
            MetadataCatalog.get(f"{name}_{split}").set(
                stuff_colors=load_categories(categories).stuff_metadata()["stuff_colors"],
                prepare_command=f"topformer data prepare {command}",
            )
    for split in ("train", "val"):
        MetadataCatalog.get(f"coco_2017_{split}").set(
            prepare_command="topformer data prepare coco2017 --source train2017.zip "
            "--source val2017.zip --source annotations_trainval2017.zip"
        )


def _coco_things() -> Categories:
    """The 80 classes of COCO's boxes, as Detectron2 has them."""
    coco = MetadataCatalog.get("coco_2017_train")
    return Categories(
        names=tuple(coco.thing_classes),
        colors=tuple(tuple(color) for color in coco.thing_colors),
        source_ids=tuple(coco.thing_dataset_id_to_contiguous_id),
    )


def _camvid_things() -> Categories:
    """The classes whose boxes are derived from the labels, in the labels' colours."""
    camvid = load_categories("camvid")
    return Categories(
        names=CAMVID_OBJECTS,
        colors=tuple(camvid.colors[camvid.names.index(name)] for name in CAMVID_OBJECTS),
        source_ids=tuple(range(1, len(CAMVID_OBJECTS) + 1)),
    )


_register_all(datasets_root())
_complete_detectron2()
