"""Registers the datasets that Detectron2 lacks, and completes the metadata of those it has.

Their root is the environment variable DETECTRON2_DATASETS, by default ./datasets; the layouts are
drawn in datasets/README.md.
"""

from __future__ import annotations

import os

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..errors import InputError
from .boxes import register_boxes
from .categories import Categories, load_categories
from .files import IMAGE_EXTENSIONS
from .synthetic import SYNTHETIC_CATEGORIES, SYNTHETIC_OBJECTS


def datasets_root() -> str:
    """Where datasets are looked for, as Detectron2 has it."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def load_image_label_pairs(image_root: str, label_root: str) -> list[dict]:
    """Detectron2 records of all label PNGs of a folder with the images of the same stem.

    Unlike Detectron2's load_sem_seg, which pairs two sorted lists of equal length without comparing
    names, this pairs by stem, whatever the image's extension. Images without a label are left out.

    Raises:
        InputError: a folder is missing, holds no labels, or a label has no image.
    """
    for folder in (image_root, label_root):
        if not PathManager.isdir(folder):
            raise InputError(f"folder {os.path.abspath(folder)} does not exist")
    images = {}
    for name in PathManager.ls(image_root):
        stem, extension = os.path.splitext(name)
        if extension.lower() in IMAGE_EXTENSIONS:
            if stem in images:
                raise InputError(f"{images[stem]} and {name} share a stem: which has the label?")
            images[stem] = os.path.join(image_root, name)
    stems = sorted(n.removesuffix(".png") for n in PathManager.ls(label_root) if n.endswith(".png"))
    if not stems:
        raise InputError(f"folder {os.path.abspath(label_root)} holds no label PNG")
    without = [stem for stem in stems if stem not in images]
    if without:
        raise InputError(
            f"{len(without)} labels of {label_root} have no image in {image_root}, "
            f"{without[0]}.png among them"
        )
    return [
        {
            "file_name": images[stem],
            "sem_seg_file_name": os.path.join(label_root, f"{stem}.png"),
        }
        for stem in stems
    ]


def register_sem_seg(
    name: str, image_root: str, label_root: str, categories: Categories, **metadata
) -> None:
    """Register a folder of images and one of label PNGs (8 bit, training ids) as a dataset.

    Args:
        name: what DATASETS.TRAIN and DATASETS.TEST call it.
        image_root: folder of images.
        label_root: folder of labels with the images' stems.
        categories: its classes.
        metadata: further fields of its Detectron2 metadata.
    """
    DatasetCatalog.register(name, lambda: load_image_label_pairs(image_root, label_root))
    MetadataCatalog.get(name).set(
        image_root=image_root,
        sem_seg_root=label_root,
        evaluator_type="sem_seg",
        ignore_label=categories.ignore_label,
        stuff_classes=list(categories.names),
        stuff_colors=[list(color) for color in categories.colors],
        stuff_dataset_id_to_contiguous_id={s: t for t, s in enumerate(categories.source_ids)},
        **metadata,
    )


def _register_all(root: str) -> None:
    layouts = {
        "camvid_sem_seg": (
            "camvid",
            ("train", "val", "test"),
            load_categories("camvid"),
            "python datasets/prepare_camvid.py --source CamVid",
        ),
        "synthetic_sem_seg": (
            "synthetic",
            ("train", "val"),
            SYNTHETIC_CATEGORIES,
            "python datasets/prepare_synthetic.py",
        ),
    }
    for name, (folder, splits, categories, command) in layouts.items():
        for split in splits:
            register_sem_seg(
                f"{name}_{split}",
                os.path.join(root, folder, "images", split),
                os.path.join(root, folder, "annotations_detectron2", split),
                categories,
                prepare_command=command,
            )
    boxes = {
        "synthetic_boxes": (
            "synthetic",
            "images/{}",
            SYNTHETIC_OBJECTS,
            "python datasets/prepare_synthetic.py",
        ),
        "bccd": (
            "bccd",
            "images",
            load_categories("bccd"),
            "python datasets/prepare_voc_detection.py --source BCCD --name bccd",
        ),
    }
    for name, (folder, images, categories, command) in boxes.items():
        for split in ("train", "val"):
            register_boxes(
                f"{name}_{split}",
                os.path.join(root, folder, "annotations", f"instances_{split}.json"),
                os.path.join(root, folder, images.format(split)),
                categories,
                prepare_command=command,
            )
    ade20k = load_categories("ade20k")
    for split in ("train", "val"):
        # Registered by Detectron2, without colours; its names are lists of synonyms.
        MetadataCatalog.get(f"ade20k_sem_seg_{split}").set(
            stuff_colors=[list(color) for color in ade20k.colors],
            prepare_command="python datasets/prepare_ade20k.py --source ADEChallengeData2016.zip",
        )


_register_all(datasets_root())
