"""Small datasets in the formats that the official sites hand out."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_semantic
from PIL import Image
from pycocotools import mask as rle

from tests.helpers import REPOSITORY
from topformer_d2.data.builtin import datasets_root
from topformer_d2.data.sem_seg import load_image_label_pairs

CATEGORIES = REPOSITORY / "topformer_d2/data/categories"


@dataclass
class Official:
    """What a site hands out, and what is to come of it.

    Attributes:
        sources: a folder for each archive, or a file that is handed out as it is.
        images: {(registered dataset, key): content}, the key being the file's stem without suffix.
        labels: the same with the prepared label (H, W) uint8.
    """

    sources: list[Path]
    images: dict[tuple[str, str], bytes]
    labels: dict[tuple[str, str], np.ndarray]

    def packed(self, kind: str, folder: Path) -> list[str]:
        """The sources as folders, as .zip, or as .tar with one more folder at the top."""
        return [
            str(source if source.is_file() or kind == "folder" else _pack(source, kind, folder))
            for source in self.sources
        ]


def _pack(source: Path, kind: str, folder: Path) -> Path:
    archive = folder / f"{source.name}.{kind}"
    if kind == "tar":
        with tarfile.open(archive, "w") as t:
            t.add(source, f"mirror/{source.name}")
    else:
        with zipfile.ZipFile(archive, "w") as z:
            for path in source.rglob("*.*"):
                z.write(path, path.relative_to(source))
                z.writestr(f"__MACOSX/{path.relative_to(source)}", b"junk")
            z.writestr("README.txt", b"in every archive")
    return archive


def translate(label: np.ndarray, categories: str) -> np.ndarray:
    """Official ids to training ids, pixel by pixel."""
    content = json.loads((CATEGORIES / f"{categories}.json").read_text())
    train_ids = {c["source_id"]: c["train_id"] for c in content["classes"]}
    return np.array([[train_ids.get(int(i), 255) for i in row] for row in label], np.uint8)


def _sizes(count: int) -> list[tuple[int, int]]:
    return [(11 + i, 17 + 2 * i) for i in range(count)]  # no two alike, none square


def _write_image(path: Path, size: tuple[int, int], seed: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def _write_label(path: Path, label: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label).save(path)


def _random_ids(size: tuple[int, int], ids, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.asarray(ids, np.uint8), size)


def _folders(folder: Path, categories: str, ids, splits: dict) -> Official:
    """Pairs as {registered name: (image path, label path)}, with {} for a number of six digits."""
    made = Official([], {}, {})
    for n, (name, (image, label)) in enumerate(splits.items()):
        for i, size in enumerate(_sizes(4)):
            number = f"{10 * n + i:06d}"
            stem = Path(image.format(number)).stem
            seed = 10 * n + i
            made.images[name, stem] = _write_image(folder / image.format(number), size, seed)
            ids_of_label = _random_ids(size, ids, seed)
            _write_label(folder / label.format(number), ids_of_label)
            made.labels[name, stem] = translate(ids_of_label, categories)
    return made


def camvid(folder: Path) -> Official:
    splits = {
        f"camvid_sem_seg_{s}": (f"CamVid/{s}/0016E5_{{}}.png", f"CamVid/{s}annot/0016E5_{{}}.png")
        for s in ("train", "val", "test")
    }
    made = _folders(folder, "camvid", range(12), splits)
    made.sources = [folder / "CamVid"]
    return made


def ade20k(folder: Path) -> Official:
    top = folder / "ADEChallengeData2016"
    splits = {
        f"ade20k_sem_seg_{s}": (
            f"images/{long}/ADE_{s}_00{{}}.jpg",
            f"annotations/{long}/ADE_{s}_00{{}}.png",
        )
        for s, long in (("train", "training"), ("val", "validation"))
    }
    made = _folders(top, "ade20k", range(151), splits)
    made.sources = [top]
    return made


def coco_stuff164k(folder: Path) -> Official:
    splits = {
        f"coco_stuff_164k_sem_seg_{s}": (
            f"{s}2017.zip/{s}2017/000000{{}}.jpg",
            f"stuffthingmaps_trainval2017/{s}2017/000000{{}}.png",
        )
        for s in ("train", "val")
    }
    removed = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
    ids = [i for i in range(182) if i not in removed] + [255] * 20
    made = _folders(folder, "coco_stuff164k", ids, splits)
    annotations = folder / "annotations_trainval2017" / "annotations"
    annotations.mkdir(parents=True)
    for s in ("train", "val"):
        content = {
            "images": [
                {"id": int(stem), "file_name": f"{stem}.jpg", "height": h, "width": w}
                for (name, stem), label in made.labels.items()
                for h, w in [label.shape]
                if name.endswith(s)
            ],
            "annotations": [],
            "categories": [{"id": i, "name": name} for i, name in _coco_things().items()],
        }
        (annotations / f"instances_{s}2017.json").write_text(json.dumps(content))
    made.sources = sorted(folder.iterdir())
    return made


def _coco_things() -> dict[int, str]:
    coco = MetadataCatalog.get("coco_2017_train")
    return dict(zip(coco.thing_dataset_id_to_contiguous_id, coco.thing_classes, strict=True))


def cityscapes(folder: Path) -> Official:
    made = Official([folder / "leftImg8bit_trainvaltest", folder / "gtFine_trainvaltest"], {}, {})
    images, annotations = made.sources
    frames = {"train": ("aachen", "ulm"), "val": ("lindau", "munster"), "test": ("bonn", "mainz")}
    for n, (split, cities) in enumerate(frames.items()):
        for i, (size, city) in enumerate(zip(_sizes(4), cities * 2, strict=True)):
            key, seed = f"{city}_{i:06d}_000019", 10 * n + i
            name = f"cityscapes_fine_sem_seg_{split}", f"{key}_leftImg8bit"
            image = images / "leftImg8bit" / split / city / f"{key}_leftImg8bit.png"
            made.images[name] = _write_image(image, size, seed)
            label = _random_ids(size, range(34), seed)
            made.labels[name] = translate(label, "cityscapes")
            stem = annotations / "gtFine" / split / city / f"{key}_gtFine_"
            _write_label(Path(f"{stem}labelIds.png"), label)
            _write_label(Path(f"{stem}instanceIds.png"), label.astype(np.uint16) * 1000)
            _write_label(Path(f"{stem}color.png"), np.zeros((*size, 4), np.uint8))
            polygons = {"imgHeight": size[0], "imgWidth": size[1], "objects": []}
            Path(f"{stem}polygons.json").write_text(json.dumps(polygons))
    return made


def write_mat(path: Path, ids: np.ndarray | str, num_names: int = 182) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.array([f"name {i}" for i in range(num_names)], object).reshape(-1, 1)
    content = {"S": ids, "names": names, "captions": names[:5], "regionMapStuff": np.eye(3)}
    scipy_io.savemat(path, content, do_compression=True)


def coco_stuff10k(folder: Path) -> Official:
    made = Official([folder / "cocostuff-10k-v1.1"], {}, {})
    top = made.sources[0]
    lists = defaultdict(list)
    removed = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
    ids = [i for i in range(183) if i not in removed]
    for i, size in enumerate(_sizes(8)):
        split, stem = "test" if i % 3 == 2 else "train", f"COCO_train2014_{i:012d}"
        name = f"coco_stuff_10k_sem_seg_{split}", stem
        made.images[name] = _write_image(top / "images" / f"{stem}.jpg", size, i)
        label = _random_ids(size, ids, i)
        # MATLAB stores whole numbers compactly; other writers keep the doubles.
        write_mat(top / "annotations" / f"{stem}.mat", label if i % 2 else label.astype(float))
        made.labels[name] = translate(label, "coco_stuff10k")
        for listed in (split, "all"):
            lists[listed].append(stem)
    (top / "imageLists").mkdir()
    for split, stems in lists.items():
        (top / "imageLists" / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return made


def encode(mask: np.ndarray) -> dict:
    """COCO's compressed RLE as a JSON holds it."""
    coded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": coded["counts"].decode()}


def pascal_context(folder: Path) -> Official:
    made = Official([folder / "VOCtrainval_03-May-2010", folder / "trainval_merged.json"], {}, {})
    voc = made.sources[0] / "VOCdevkit" / "VOC2010"
    table = json.loads((CATEGORIES / "pascal_context59.json").read_text())
    ids = [c["source_id"] for c in table["classes"]]
    content = {"info": {"version": 3}, "images": [], "annos_segmentation": [], "parts": [{"x": 1}]}
    content["categories"] = [{"category_id": i, "name": str(i), "onlysemantic": 0} for i in ids]
    content["annos_boundary"] = [{"image_id": 2008000002, "boundary": [1, 2]}]
    stems = defaultdict(list)
    for i, size in enumerate(_sizes(8)):
        rng = np.random.default_rng(i)
        phase, stem = ("train", "val", "test")[i % 3], f"2008_{i:06d}"
        stems[phase].append(stem)
        entry = {"image_id": int(stem.replace("_", "")), "file_name": f"{stem}.jpg"}
        content["images"].append({**entry, "height": size[0], "width": size[1], "phase": phase})
        if phase == "test":
            continue
        image = _write_image(voc / "JPEGImages" / f"{stem}.jpg", size, i)
        label = np.zeros(size, int)
        for k in range(0 if i == 3 else 12):  # image 3 has no annotation
            category, mask = int(rng.choice(ids)), rng.uniform(size=size) < 0.2
            label[mask] = category
            content["annos_segmentation"].append(
                {
                    **{"id": 100 * i + k, "image_id": entry["image_id"], "category_id": category},
                    **{"segmentation": encode(mask), "area": int(mask.sum()), "iscrowd": k % 2},
                    "parts": [{"part_id": 1, "segmentation": encode(mask)}],
                }
            )
        for n in (59, 60):
            name = f"pascal_context_{n}_sem_seg_{phase}", stem
            made.images[name] = image
            made.labels[name] = translate(label, f"pascal_context{n}")
    # In the file's order an image's annotations need not stand together.
    content["annos_segmentation"].sort(key=lambda a: a["id"] % 100)
    made.sources[1].write_text(json.dumps(content))
    _write_image(voc / "JPEGImages" / "2009_000001.jpg", (9, 9), 0)
    (voc / "ImageSets/Main").mkdir(parents=True)
    (voc / "ImageSets/Main/train.txt").write_text("\n".join([*stems["train"], "2009_000001"]))
    (voc / "ImageSets/Main/val.txt").write_text("\n".join(stems["val"]))
    return made


MAKERS = {
    f.__name__: f
    for f in (ade20k, camvid, cityscapes, coco_stuff10k, coco_stuff164k, pascal_context)
}


def records(name: str, root: Path) -> list[dict]:
    """A registered dataset's records, read below `root` instead of DETECTRON2_DATASETS."""

    def moved(path):
        return str(root / os.path.relpath(path, datasets_root()))

    metadata = MetadataCatalog.get(name)
    if name.startswith("cityscapes"):
        return load_cityscapes_semantic(moved(metadata.image_dir), moved(metadata.gt_dir))
    return load_image_label_pairs(moved(metadata.image_root), moved(metadata.sem_seg_root))


def content(root: Path) -> dict[str, bytes]:
    """{path: content} of all files but the lock, which a killed run leaves."""
    files = (p for p in root.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(root)): p.read_bytes() for p in files}
