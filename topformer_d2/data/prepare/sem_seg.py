"""Datasets that come as folders of images and of label PNGs: CamVid and ADE20K."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..categories import load_categories
from .common import Pair, Report, Source, match_stems, prepare_pairs


@dataclass(frozen=True)
class Split:
    """Folders of one split: in the archive, and below the dataset's folder; and its size."""

    images: str
    labels: str
    images_out: str
    labels_out: str
    expected: int


@dataclass(frozen=True)
class Layout:
    """Where the official archive has a dataset, and where it goes below the datasets' root.

    Attributes:
        categories: name of the category file.
        root: folder below DETECTRON2_DATASETS.
        splits: by name.
        ignored_ids: official ids that are no class by design.
        refuse: (part of a file name, why) that tells another archive of a similar name.
    """

    categories: str
    root: str
    splits: dict[str, Split]
    ignored_ids: tuple[int, ...]
    refuse: tuple[str, str] | None = None


def _camvid_split(name: str, expected: int) -> Split:
    out = f"images/{name}", f"annotations_detectron2/{name}"
    return Split(name, f"{name}annot", *out, expected)


def _ade20k_split(folder: str, expected: int) -> Split:
    images = f"images/{folder}"
    labels_out = f"annotations_detectron2/{folder}"
    return Split(images, f"annotations/{folder}", images, labels_out, expected)


_CAMVID_SIZES = {"train": 367, "val": 101, "test": 233}
LAYOUTS = {
    "camvid": Layout(
        categories="camvid",
        root="camvid",
        splits={name: _camvid_split(name, n) for name, n in _CAMVID_SIZES.items()},
        ignored_ids=(11,),
    ),
    "ade20k": Layout(
        categories="ade20k",
        root="ADEChallengeData2016",
        splits={
            "train": _ade20k_split("training", 20210),
            "val": _ade20k_split("validation", 2000),
        },
        ignored_ids=(0,),
        refuse=("_seg.png", "this is the full ADE20K; the recipe uses ADEChallengeData2016.zip"),
    ),
}


def prepare_sem_seg(dataset: str, source: str, root: str) -> dict[str, Report]:
    """Bring an official archive into the layout of datasets/README.md.

    A second call does only what is missing, and a run killed at any moment can be repeated.

    Args:
        dataset: a key of LAYOUTS.
        source: the folder, .zip or .tar that the official site hands out.
        root: DETECTRON2_DATASETS.

    Returns:
        A report for each split that the source has.

    Raises:
        InputError: the source is not there, or is not this dataset.
    """
    layout = LAYOUTS[dataset]
    categories = load_categories(layout.categories)
    files = Source(source)
    if layout.refuse and any(layout.refuse[0] in name for name in files.names):
        raise InputError(f"{source}: {layout.refuse[1]}")
    target = Path(root) / layout.root
    reports = {}
    for name, split in layout.splits.items():
        images, labels = files.folder(split.images), files.folder(split.labels)
        if not images and not labels:
            continue
        problems: list[str] = []
        pairs = [
            Pair(
                images[stem],
                labels[stem],
                target / split.images_out / Path(images[stem]).name,
                target / split.labels_out / f"{stem}.png",
            )
            for stem in match_stems(images, labels, problems)
        ]
        known = (*categories.source_ids, *layout.ignored_ids)
        report = prepare_pairs(files, pairs, categories.lookup_table(), known, f"{dataset} {name}")
        report.problems = problems + report.problems
        reports[name] = report
    if not reports:
        wanted = ", ".join(f"{s.images}/ with {s.labels}/" for s in layout.splits.values())
        raise InputError(f"{source} is not {dataset}: found none of the folders {wanted}")
    return reports


def expected_pairs(dataset: str) -> dict[str, int]:
    """The recipe's number of pairs of each split."""
    return {name: split.expected for name, split in LAYOUTS[dataset].splits.items()}
